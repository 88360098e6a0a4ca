"""The record of which tests reach which blocks: made where it is missing, and asked per mutant."""

import ast
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools.mutant_tree import BUILD, PASSED, ROOT, Tree
from tools.mutations import Mutant
from tools.reach import Block, Blocks, mark, names_in

PACKAGE: Final = "src/softsgx"


@dataclass(frozen=True)
class Test:
    """A test that passed: its id, and the seconds of processor time that it took."""

    id: str
    seconds: float
    breadth: int

    @property
    def file(self) -> str:
        """The file that pytest collects for it."""
        return self.id.split("::")[0]

    @property
    def function(self) -> str:
        """The id without its parameters."""
        return self.id.split("[")[0]


def chunks() -> list[str]:
    """What one process of pytest records: each directory of tests."""
    tests = (path.parent.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py"))
    tops = {Path(*path.parts[:2]).as_posix() for path in tests if len(path.parts) > 1}
    return sorted(top for top in tops if top != "tests/tidy")


def sources(rooms: Iterable[str]) -> list[str]:
    """The files of rooms, relative to the checkout."""
    found = (path for room in rooms for path in (ROOT / PACKAGE / room).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def _key(chunk: str, rooms: tuple[str, ...]) -> str:
    """Changes when the package or the tests of a chunk do."""
    digest = hashlib.blake2b(repr(rooms).encode())
    helpers = sorted((ROOT / "tests").glob("*.py"))
    for path in (
        *sorted((ROOT / "src").rglob("*.py")),
        *helpers,
        *sorted((ROOT / chunk).rglob("*")),
    ):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def record(rooms: tuple[str, ...], wanted: list[str], *, stale: bool) -> None:
    """Record the chunks whose record is missing, or older than package and tests."""
    out = BUILD / "reach"
    out.mkdir(parents=True, exist_ok=True)
    copy: Tree | None = None
    blocks: list[Block] = []
    for chunk in wanted:
        kept = out / f"{Path(chunk).name}.json"
        key = _key(chunk, rooms)
        if kept.exists() and (stale or json.loads(kept.read_text("utf-8"))["key"] == key):
            continue
        if copy is None:
            copy = Tree(BUILD / "tree-reach")
            copy.refresh()
            blocks = mark(copy.root, sources(rooms), BUILD / "reach" / "hits")
        print(f"recording what {chunk} reaches", flush=True)
        lines = out / "lines.jsonl"
        lines.unlink(missing_ok=True)
        arguments = ["-p", "tools.reach_plugin", chunk]
        code, text = copy.pytest(arguments, {"SOFTSGX_REACH": str(lines)}, None)
        if not lines.exists():
            raise SystemExit(f"softsgx: mutants: {chunk}: recorded nothing:\n{text[-2000:]}")
        if code != PASSED:
            print(f"  not all passed; those that failed are left out: {text.splitlines()[-1]}")
        found = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
        kept.write_text(json.dumps({"key": key, "blocks": blocks, "lines": found}), "utf-8")


class Reaching:
    """Asked which tests reach a mutant."""

    def __init__(self, wanted: list[str]) -> None:
        self.tests: list[Test] = []
        self._by_block: dict[Block, set[int]] = defaultdict(set)
        self._by_file: dict[str, list[int]] = defaultdict(list)
        self._blocks: dict[str, Blocks] = {}
        self._uses: dict[str, set[Block]] = {}
        self._made_of: dict[str, set[str]] = {}
        self._named_in: dict[str, set[str]] = {}
        for chunk in wanted:
            self._load(
                json.loads((BUILD / "reach" / f"{Path(chunk).name}.json").read_text("utf-8"))
            )

    def _load(self, kept: dict[str, list[Any]]) -> None:
        blocks = [Block(*block) for block in kept["blocks"]]
        before = len(self.tests)
        for line in kept["lines"]:
            if line.get("passed"):
                number = len(self.tests)
                test = Test(str(line["test"]), float(str(line["processor"])), len(_hits(line)))
                self.tests.append(test)
                self._by_file[test.file].append(number)
                for hit in _hits(line):
                    self._by_block[blocks[hit]].add(number)
        here = range(before, len(self.tests))
        for line in kept["lines"]:
            if "file" in line:
                # Or a directory, or nothing: that was a fixture of the whole session.
                of_file = [n for n in here if self.tests[n].file.startswith(str(line["file"]))]
                for hit in _hits(line):
                    self._by_block[blocks[hit]].update(of_file)

    def of(self, mutant: Mutant) -> list[Test]:
        """The tests that reach a mutant, in the order in which they are to be tried.

        Of a change at module level: those that reach anything that names what is assigned there,
        and those of files that name it themselves.
        """
        if mutant.path not in self._blocks:
            self._blocks[mutant.path] = Blocks(mutant.path, mutant.text)
        block = self._blocks[mutant.path].at(mutant.node)
        if block is not None:
            numbers = self._by_block.get(block, set())
        else:
            numbers = set().union(*(self._by_block.get(block, ()) for block in self._using(mutant)))
            numbers.update(*(self._by_file[file] for file in self._naming(mutant)))
        return order([self.tests[number] for number in numbers], mutant.path)

    def _using(self, mutant: Mutant) -> Iterator[Block]:
        if not self._uses:
            self._index()
        names = set(mutant.function.split(".")) - {""} | set(_assigned(mutant.node))
        for _ in range(3):
            names |= {name for name, parts in self._made_of.items() if parts & names}
        for name in names:
            yield from self._uses.get(name, ())

    def _naming(self, mutant: Mutant) -> Iterator[str]:
        """The files of tests that name what is assigned: a table may be all that they look at."""
        names = set(_assigned(mutant.node))
        for file in self._by_file:
            if file not in self._named_in:
                path = ROOT / file
                text = path.read_text("utf-8") if path.is_file() else ""  # of an old record
                self._named_in[file] = set(names_in(ast.parse(text)))
            if names & self._named_in[file]:
                yield file

    def _index(self) -> None:
        """Which blocks name what, and of which names a name of module level is made."""
        uses: dict[str, set[Block]] = defaultdict(set)
        made: dict[str, set[str]] = defaultdict(set)
        for path in sorted((ROOT / PACKAGE).rglob("*.py")):
            text = path.read_text("utf-8")
            blocks = Blocks(path.relative_to(ROOT).as_posix(), text)
            for node in ast.walk(blocks.tree):
                if isinstance(node, ast.stmt):
                    block = blocks.at(node)
                    for name in names_in(node):
                        if block is not None:
                            uses[name].add(block)
                        elif isinstance(node, ast.Assign | ast.AnnAssign):
                            for target in _assigned(node):
                                made[target].add(name)
        self._uses, self._made_of = uses, made


def _hits(line: dict[str, object]) -> list[int]:
    hits = line["hits"]
    assert isinstance(hits, list)
    return hits


def _assigned(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Assign):
        targets: list[ast.expr] = node.targets
    else:
        targets = [target] if (target := getattr(node, "target", None)) is not None else []
    for target in targets:
        yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def order(tests: list[Test], path: str) -> list[Test]:
    """Nearest first: same room, few blocks, fast; one case of each function before the rest."""
    parts = Path(path).relative_to(PACKAGE).parts
    room, stem = parts[0], Path(path).stem

    def near(test: Test) -> tuple[bool, bool, int, float]:
        return (
            stem.strip("_") not in test.file,
            not test.file.startswith(f"tests/{room}/"),
            test.breadth // 20,
            test.seconds,
        )

    seen: dict[str, int] = defaultdict(int)
    ranked: list[tuple[int, int, Test]] = []
    for test in sorted(tests, key=near):
        ranked.append((seen[test.function], len(ranked), test))
        seen[test.function] += 1
    ranked.sort(key=lambda entry: (entry[0] // 2, entry[1]))
    return [test for _, _, test in ranked]
