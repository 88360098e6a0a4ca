"""Which test reaches which block of statements: recorded once, read for every mutant.

The recording runs the tests on a copy of the tree whose compiled files (`__pycache__`, marked as
not to be checked) set one byte of a file in memory at the start of each block. Sources and line
numbers are the original's, subprocesses write to the same bytes even if they are killed, and a
block costs one store; coverage.py traces each line of one process.
"""

import ast
import importlib.util
import marshal
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

HITS: Final = "_softsgx_hits"
# Put beside the package of the copy. Without the file everything runs, and nothing is recorded.
HITS_SOURCE: Final = """
import mmap
try:
    with open({path!r}, "r+b") as file:
        hits = mmap.mmap(file.fileno(), 0)
except OSError:
    hits = bytearray({size})
"""


class Block(NamedTuple):
    """Statements that run one after the other: the `ordinal`-th such run of a function."""

    path: str
    function: str
    ordinal: int


_COMPOUND: Final = ast.If | ast.For | ast.While | ast.Try | ast.TryStar | ast.With | ast.Match


class Blocks:
    """The blocks of the functions of one file. Module and class level belong to none."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.tree = ast.parse(text, path)
        self.all: list[Block] = []
        self._of: dict[tuple[int, int], Block] = {}
        self._starts: list[tuple[list[ast.stmt], int, Block]] = []
        self._level(self.tree.body, "")

    def at(self, node: ast.AST) -> Block | None:
        """The block of a statement of this text, also if it was parsed another time."""
        return self._of.get((getattr(node, "lineno", 0), getattr(node, "col_offset", 0)))

    def marked(self, first: int) -> ast.Module:
        """The tree with `_softsgx_hits[first + n] = 1` before the n-th block."""
        numbers = {block: first + number for number, block in enumerate(self.all)}
        for body, position, block in reversed(self._starts):
            where = body[position]
            store = ast.parse(f"{HITS}[{numbers[block]}] = 1").body[0]
            for node in ast.walk(store):
                ast.copy_location(node, where)
                for name in ("end_lineno", "end_col_offset"):
                    setattr(node, name, getattr(where, name.removeprefix("end_"), 0))
            body.insert(position, store)
        start = int(_is_docstring(self.tree.body))
        while start < len(self.tree.body) and _is_future(self.tree.body[start]):
            start += 1
        line = ast.parse(f"from {HITS} import hits as {HITS}").body
        self.tree.body[start:start] = line
        return self.tree

    def _level(self, body: list[ast.stmt], prefix: str) -> None:
        """Module or class level: only the functions in it have blocks."""
        for node in body:
            for inner in ast.walk(node) if not isinstance(node, _DEFINITIONS) else (node,):
                if isinstance(inner, ast.ClassDef):
                    self._level(inner.body, f"{prefix}{inner.name}.")
                elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    self._function(inner, prefix)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, prefix: str) -> None:
        name = f"{prefix}{node.name}"
        first = len(self.all)
        self._block(node.body, name, int(_is_docstring(node.body)))
        # Defaults are evaluated where the function is defined; its own tests are the best guess.
        if first < len(self.all):
            self._of[node.lineno, node.col_offset] = self.all[first]

    def _block(self, body: list[ast.stmt], name: str, start: int = 0) -> None:
        block: Block | None = None
        for position, node in enumerate(body):
            if position < start:
                continue
            if block is None:
                block = Block(self.path, name, sum(1 for b in self.all if b.function == name))
                self.all.append(block)
                self._starts.append((body, position, block))
            self._of[node.lineno, node.col_offset] = block
            if isinstance(node, ast.ClassDef):
                self._level(node.body, f"{name}.{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._function(node, f"{name}.")
                self._of[node.lineno, node.col_offset] = block
            elif isinstance(node, _COMPOUND):
                for inner in bodies(node):
                    self._block(inner, name)
                block = None  # an inner block may have left


_DEFINITIONS: Final = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def bodies(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks inside a statement that is not a definition."""
    for name in ("body", "orelse", "finalbody"):
        if body := getattr(node, name, None):
            yield body
    for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield part.body


def _is_docstring(body: list[ast.stmt]) -> bool:
    first = body[0] if body else None
    return (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def mark(root: Path, paths: list[str], hits: Path) -> list[Block]:
    """Compile files of the copy at `root` so that they record; the blocks in the order of bytes."""
    blocks: list[Block] = []
    for path in paths:
        source = root / path
        text = source.read_text(encoding="utf-8")
        found = Blocks(path, text)
        code = compile(found.marked(len(blocks)), str(source), "exec", dont_inherit=True)
        blocks.extend(found.all)
        compiled = Path(importlib.util.cache_from_source(str(source)))
        compiled.parent.mkdir(exist_ok=True)
        # Flags 1: a compiled file by hash, which Python does not check against the source.
        head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
        text_hash = importlib.util.source_hash(source.read_bytes())
        compiled.write_bytes(head + text_hash + marshal.dumps(code))
    hits.write_bytes(bytes(len(blocks)))
    module = HITS_SOURCE.format(path=str(hits), size=len(blocks))
    (root / "src" / f"{HITS}.py").write_text(module, encoding="utf-8")
    return blocks


def names_in(node: ast.AST) -> Iterator[str]:
    """Every name and attribute that stands in a tree."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr
