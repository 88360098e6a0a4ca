"""The rules of the processor: every string such as "EADD.07" in src/softsgx/cpu, and what it says.

The paraphrase of a rule is the comment after it on its line, or else the comment lines directly
above its statement. `problems` verifies the numbering; it does not verify that a paraphrase is
right, or that the order is the manual's.
"""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
CODE: Final = "src/softsgx/cpu"

_RULE: Final = re.compile(r"(?P<family>[A-Z0-9]+)\.(?P<number>[0-9]{2})")
# What was meant as a rule and is misspelt.
_NEARLY: Final = re.compile(r"[A-Za-z]\w*\.[0-9]+")
_DIRECTIVE: Final = re.compile(r"#\s*(type:|noqa|fmt:|pragma)")


class Rule(NamedTuple):
    """One check: where it stands, and what it says."""

    id: str
    paraphrase: str
    path: str
    line: int

    @property
    def family(self) -> str:
        """What stands before the dot: a leaf, or what several leaves share."""
        return self.id.split(".")[0]

    @property
    def number(self) -> int:
        """What stands after the dot."""
        return int(self.id.split(".")[1])


@dataclass(frozen=True)
class Module:
    """A file of the processor; `path` is relative to the repository."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, self.path)

    @property
    def title(self) -> str:
        """The first line of the docstring."""
        return (ast.get_docstring(self.tree) or "").partition("\n")[0]

    @cached_property
    def rules(self) -> list[Rule]:
        """All rules, in the order of the file."""
        found = []
        for text, line, statement in _strings(self.tree, self.tree):
            if _RULE.fullmatch(text):
                said = self._paraphrase(line, statement.lineno)
                found.append(Rule(text, said, self.path, line))
        return sorted(found, key=lambda rule: rule.line)

    @cached_property
    def _comments(self) -> dict[int, tuple[str, bool]]:
        """By line: the comment, and whether the line is nothing else. Not those to programs."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {
            token.start[0]: (token.string.lstrip("# "), token.line.lstrip().startswith("#"))
            for token in tokens
            if token.type == tokenize.COMMENT and not _DIRECTIVE.match(token.string)
        }

    def _paraphrase(self, line: int, statement: int) -> str:
        after, _ = self._comments.get(line, ("", False))
        if after:
            return after
        above: list[str] = []
        while self._comments.get(statement - 1, ("", False))[1]:
            statement -= 1
            above.insert(0, self._comments[statement][0])
        return " ".join(above)

    def misspelt(self) -> Iterator[str]:
        """Strings that look like rules and are not."""
        for text, line, _ in _strings(self.tree, self.tree):
            if _NEARLY.fullmatch(text) and not _RULE.fullmatch(text):
                yield f"{self.path}:{line}: {text} is no rule: FAMILY.NN"


def modules(root: Path = ROOT) -> list[Module]:
    """The files of the processor, in the order of their paths."""
    return [
        Module(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted((root / CODE).rglob("*.py"))
    ]


def problems(files: Iterable[Module]) -> Iterator[str]:
    """What is wrong with the rules of these files."""
    seen: dict[str, Rule] = {}
    families: dict[str, list[Rule]] = defaultdict(list)
    for module in files:
        yield from module.misspelt()
        yield from _disorder(module)
        for rule in module.rules:
            if rule.id in seen:
                yield f"{_at(rule)}: {rule.id} stands at {_at(seen[rule.id])} already"
            seen.setdefault(rule.id, rule)
            families[rule.family].append(rule)
            if not rule.paraphrase:
                yield f"{_at(rule)}: {rule.id} has no paraphrase"
    for family, rules in families.items():
        paths = sorted({rule.path for rule in rules})
        if len(paths) > 1:
            yield f"{family}: rules of one family in {' and '.join(paths)}"
        missing = set(range(1, max(r.number for r in rules) + 1)) - {r.number for r in rules}
        for number in sorted(missing):
            yield f"{rules[0].path}: no {family}.{number:02}, but later ones"


def _at(rule: Rule) -> str:
    return f"{rule.path}:{rule.line}"


def _strings(node: ast.AST, statement: ast.AST) -> Iterator[tuple[str, int, ast.stmt]]:
    """Every string with its line and the innermost statement that holds it."""
    for child in ast.iter_child_nodes(node):
        inner = child if isinstance(child, ast.stmt) else statement
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            assert isinstance(inner, ast.stmt), "a string outside every statement"
            yield child.value, child.lineno, inner
        yield from _strings(child, inner)


def _disorder(module: Module) -> Iterator[str]:
    """Functions whose rules do not ascend.

    A helper's rules count where it is called if the caller has rules before and after them; so a
    listing may be cut into functions and still reads in its order. A helper that is shared, or
    numbered before or after its caller, only has to ascend in itself.
    """
    functions = {f.name: f for f in module.tree.body if isinstance(f, ast.FunctionDef)}
    order = {name: list(_items(f, functions)) for name, f in functions.items()}
    families = sorted({rule.family for rule in module.rules})
    for family in families:
        for name in functions:
            numbers = _numbers(name, family, order, set())
            for before, after in pairwise(numbers):
                if after <= before:
                    late, early = f"{family}.{before:02}", f"{family}.{after:02}"
                    yield f"{module.path}: {name}: {early} comes after {late}"


def _items(function: ast.FunctionDef, functions: dict[str, ast.FunctionDef]) -> Iterator[str]:
    """Rules and calls of functions of the same file, in the order of the text."""
    nodes = [n for n in ast.walk(function) if isinstance(n, ast.Constant | ast.Call)]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and _RULE.fullmatch(node.value):
                yield node.value
        elif isinstance(node.func, ast.Name) and node.func.id in functions:
            yield node.func.id


def _numbers(name: str, family: str, order: dict[str, list[str]], busy: set[str]) -> list[int]:
    """The numbers of a family in a function, those of helpers inserted."""
    prefix = f"{family}."
    own = [int(item[len(prefix) :]) for item in order[name] if item.startswith(prefix)]
    numbers: list[int] = []
    for item in order[name]:
        if item.startswith(prefix):
            numbers.append(int(item[len(prefix) :]))
        elif item in order and item not in busy and own:
            helper = _numbers(item, family, order, busy | {name})
            if helper and min(own) < min(helper) < max(own):
                numbers += helper
                busy = busy | {item}
    return numbers
