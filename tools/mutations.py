"""Small changes of a source file, one at a time: what `make mutants` tries on the suite.

A mutant is the text of a file with one span of it replaced. Text that only people read is left
alone: docstrings, strings, annotations, messages of exceptions and of assertions, `__repr__`.
"""

import ast
import errno
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from operator import itemgetter
from typing import Final, NamedTuple

from tools.reach import bodies

COMPARISONS: Final = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}
ARITHMETIC: Final = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "|"),
}
# Calls that only make types or text.
SILENT_CALLS: Final = frozenset("TypeVar NewType Literal cast print field Unmodelled".split())
TEXT_FUNCTIONS: Final = frozenset("__repr__ __str__ __format__".split())


class Span(NamedTuple):
    """From `start` up to `end`, offsets of characters in the text of the file."""

    start: int
    end: int


@dataclass(frozen=True)
class Mutant:
    """One change: `span` of the file at `path`, inside `function` (dotted), becomes `new`."""

    path: str
    function: str
    text: str
    span: Span
    new: str
    node: ast.AST

    @cached_property
    def changed(self) -> str:
        """The text of the whole file with the change."""
        return self.text[: self.span.start] + self.new + self.text[self.span.end :]

    @property
    def line(self) -> int:
        """The number of the first line of the change, from 1."""
        return self.text.count("\n", 0, self.span.start) + 1

    @cached_property
    def diff(self) -> tuple[str, str]:
        """The lines of the change as they were and as they are, each joined and stripped."""
        first = self.text.rfind("\n", 0, self.span.start) + 1
        last = self.text.find("\n", self.span.end)
        head, tail = self.text[first : self.span.start], self.text[self.span.end : last]
        old = self.text[self.span.start : self.span.end]
        before, after = head + old + tail, head + self.new + tail
        return " ".join(before.split()), " ".join(after.split())

    def describe(self) -> str:
        """Place and change, as three lines of a diff without context."""
        old, new = self.diff
        return f"{self.path}:{self.line} ({self.function or 'module'})\n  - {old}\n  + {new}"


def sample(mutants: list[Mutant], seed: int, size: int) -> list[Mutant]:
    """`size` of them, the same for a seed; editing one function leaves the draw of others."""
    alike: Counter[tuple[str, ...]] = Counter()
    salt = seed.to_bytes(8, "little", signed=True)
    drawn = []
    for mutant in mutants:
        what = (mutant.path, mutant.function, *mutant.diff)
        alike[what] += 1
        text = "\0".join((*what, str(alike[what]))).encode()
        drawn.append((hashlib.blake2b(text, digest_size=16, salt=salt).digest(), mutant))
    drawn.sort(key=itemgetter(0))
    return list(islice((mutant for _, mutant in drawn if is_change(mutant)), size))


def is_change(mutant: Mutant) -> bool:
    """Whether Python compiles it, and to something else: parentheses alone are no change."""
    try:
        return ast.dump(ast.parse(mutant.changed)) != ast.dump(ast.parse(mutant.text))
    except SyntaxError:
        return False


def mutants_of(path: str, text: str) -> list[Mutant]:
    """Every mutant of a file in the order of its text, among them some that change nothing."""
    found = {(mutant.span, mutant.new): mutant for mutant in _Finder(path, text).module()}
    return [found[key] for key in sorted(found)]


class _Finder:
    """Walks one file and keeps where it is."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.function: list[str] = []
        self._lines = [0]
        for line in text.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._encoded = [line.encode() for line in text.splitlines()]
        self.errnos = sorted(set(re.findall(r"\bE[A-Z]{2,}[A-Z0-9]*\b", text)) & ERRNOS)

    def module(self) -> Iterator[Mutant]:
        yield from self._block(ast.parse(self.text).body)

    # Statements.

    def _block(self, body: list[ast.stmt]) -> Iterator[Mutant]:
        for position, statement in enumerate(body):
            if position == 0 and _is_text(statement):
                continue
            yield from self._statement(statement)

    def _statement(self, node: ast.stmt) -> Iterator[Mutant]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from self._definition(node)
            return
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert) or _only_for_people(node):
            return
        yield from self._removals(node)
        for part in _expressions(node):
            yield from self._expression(part, node)
        if isinstance(node, ast.If | ast.While):
            yield from self._condition(node.test, node)
        for body in bodies(node):
            yield from self._block(body)

    def _definition(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    ) -> Iterator[Mutant]:
        if node.name in TEXT_FUNCTIONS or any(_name(part) == "overload" for part in _marks(node)):
            return
        if isinstance(node, ast.ClassDef) and any(_name(base) == "Protocol" for base in node.bases):
            return
        if not isinstance(node, ast.ClassDef):
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None:
                    yield from self._expression(default, node)
        self.function.append(node.name)
        yield from self._block(node.body)
        self.function.pop()

    def _removals(self, node: ast.stmt) -> Iterator[Mutant]:
        """Statements that can go; `break` and `continue` trade places."""
        if isinstance(node, ast.Break):
            yield self._replace(node, "continue", node)
        elif isinstance(node, ast.Continue):
            yield self._replace(node, "break", node)
        if isinstance(node, ast.Assign):
            removable = all(isinstance(to, ast.Attribute | ast.Subscript) for to in node.targets)
        elif isinstance(node, ast.AnnAssign):
            removable = False
        elif isinstance(node, ast.Expr):
            removable = not isinstance(node.value, ast.Constant)
        else:
            kinds = ast.AugAssign | ast.Raise | ast.Delete | ast.Continue | ast.Break
            removable = isinstance(node, kinds)
        if removable and self.function:
            yield self._replace(node, "pass", node)
        if isinstance(node, ast.Return) and node.value is not None:
            yield from self._returns(node, node.value)

    def _returns(self, node: ast.Return, value: ast.expr) -> Iterator[Mutant]:
        if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.USub):
            named = _name(value.operand)
            if named in ERRNOS:
                yield self._replace(value, "0", node)
                return
        if not isinstance(value, ast.Constant):
            yield self._replace(value, "None", node)

    # Expressions.

    def _expression(self, node: ast.expr, inside: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.JoinedStr) or _only_for_people(node):
            return
        if isinstance(node, ast.Subscript) and _name(node.value) in TYPES:
            return
        yield from self._here(node, inside)
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.expr):
                yield from self._expression(part, inside)
            elif isinstance(part, ast.keyword):
                yield from self._expression(part.value, inside)
            elif isinstance(part, ast.comprehension):
                yield from self._expression(part.iter, inside)
                for test in part.ifs:
                    yield from self._expression(test, inside)
                    yield from self._condition(test, inside)

    def _here(self, node: ast.expr, inside: ast.AST) -> Iterator[Mutant]:
        """What can be changed at the root of an expression."""
        if isinstance(node, ast.Compare):
            left = node.left
            for op, right in zip(node.ops, node.comparators, strict=True):
                yield from self._operator(left, right, COMPARISONS[type(op)], inside)
                left = right
        elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            if not (_is_string(node.left) or _is_string(node.right)):
                yield from self._operator(node.left, node.right, ARITHMETIC[type(node.op)], inside)
                if isinstance(node.op, ast.BitOr):
                    yield self._replace(node, self._whole(node.left), inside)
                    yield self._replace(node, self._whole(node.right), inside)
        elif isinstance(node, ast.BoolOp):
            pair = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from self._operator(left, right, pair, inside)
            for term in node.values:
                yield self._replace(term, "True" if pair[0] == "and" else "False", inside)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
            yield self._replace(node, f"({self._whole(node.operand)})", inside)
        elif isinstance(node, ast.Constant):
            yield from self._constant(node, inside)
        elif isinstance(node, ast.Name) and node.id in ERRNOS:
            others = [name for name in self.errnos if name != node.id]
            if others:
                other = others[ERRNO_ORDER.index(node.id) % len(others)]
                yield self._replace(node, other, inside)
        elif isinstance(node, ast.IfExp):
            yield from self._condition(node.test, inside)
        elif isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
            yield from self._entries(node, inside)

    def _constant(self, node: ast.Constant, inside: ast.AST) -> Iterator[Mutant]:
        if isinstance(node.value, bool):
            yield self._replace(node, str(not node.value), inside)
        elif isinstance(node.value, int):
            yield self._replace(node, "1" if node.value == 0 else str(node.value + 1), inside)
            if node.value == 1:
                yield self._replace(node, "0", inside)

    def _condition(self, node: ast.expr, inside: ast.AST) -> Iterator[Mutant]:
        if not isinstance(node, ast.Constant):
            for value in ("True", "False"):
                yield self._replace(node, value, inside)

    def _entries(
        self, node: ast.Tuple | ast.List | ast.Set | ast.Dict, inside: ast.AST
    ) -> Iterator[Mutant]:
        """One entry fewer, of two or more."""
        if not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            return
        if isinstance(node, ast.Dict):
            starts: list[ast.expr] = [
                value if key is None else key
                for key, value in zip(node.keys, node.values, strict=True)
            ]
            ends = node.values
        else:
            starts = ends = node.elts
        if len(ends) < 2:
            return
        for position in range(len(ends)):
            if position + 1 < len(ends):
                span = Span(self._at(starts[position]).start, self._at(starts[position + 1]).start)
                if isinstance(node, ast.Dict) and None in node.keys:
                    continue
            else:
                span = Span(self._at(ends[position - 1]).end, self._at(ends[position]).end)
                if isinstance(node, ast.Tuple) and len(ends) == 2:
                    yield self._mutant(span, ",", inside)
                    continue
            yield self._mutant(span, "", inside)

    def _operator(
        self, left: ast.expr, right: ast.expr, change: tuple[str, str], inside: ast.AST
    ) -> Iterator[Mutant]:
        """The operator between two operands, found in the text between them."""
        old, new = change
        start, end = self._at(left).end, self._at(right).start
        between = re.sub(r"#[^\n]*", lambda note: " " * len(note[0]), self.text[start:end])
        pattern = r"\s+".join(map(re.escape, old.split()))
        found = re.search(
            rf"\b{pattern}\b" if old.isidentifier() or " " in old else pattern, between
        )
        if found:
            yield self._mutant(Span(start + found.start(), start + found.end()), new, inside)

    # Places.

    def _at(self, node: ast.AST) -> Span:
        line, column = getattr(node, "lineno"), getattr(node, "col_offset")  # noqa: B009
        end, end_column = getattr(node, "end_lineno"), getattr(node, "end_col_offset")  # noqa: B009
        return Span(self._offset(line, column), self._offset(end, end_column))

    def _offset(self, line: int, column: int) -> int:
        return self._lines[line - 1] + len(self._encoded[line - 1][:column].decode())

    def _source(self, node: ast.AST) -> str:
        span = self._at(node)
        return self.text[span.start : span.end]

    def _whole(self, node: ast.AST) -> str:
        """The text of an operand, in parentheses where they may be needed."""
        source = self._source(node)
        return source if isinstance(node, ast.Name | ast.Attribute | ast.Call) else f"({source})"

    def _replace(self, node: ast.AST, new: str, inside: ast.AST) -> Mutant:
        return self._mutant(self._at(node), new, inside)

    def _mutant(self, span: Span, new: str, inside: ast.AST) -> Mutant:
        return Mutant(self.path, ".".join(self.function), self.text, span, new, inside)


def _errnos() -> list[str]:
    return sorted(name for name in dir(errno) if name.startswith("E"))


ERRNO_ORDER: Final = _errnos()
ERRNOS: Final = frozenset(ERRNO_ORDER)
# Subscripts of these are types, wherever they stand.
TYPES: Final = frozenset(
    "Callable Iterator Iterable Generator Sequence Mapping Literal Annotated Union Optional".split()
)
# What is assigned to these says how a class is laid out, or is a type.
LAYOUT: Final = frozenset("__all__ __slots__ __match_args__".split())


def _name(node: ast.AST | None) -> str:
    """The last part of a dotted name, of a call of one, or of a subscript of one; else nothing."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[ast.expr]:
    return node.decorator_list


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and _is_string(node.value)


def _only_for_people(node: ast.AST) -> bool:
    """Statements and calls that the type checker and the reader need, not the program."""
    if isinstance(node, ast.If):
        return _name(node.test) == "TYPE_CHECKING" or "__name__" in ast.dump(node.test)
    if isinstance(node, ast.Assign):
        return any(_name(to) in LAYOUT for to in node.targets)
    if isinstance(node, ast.AnnAssign):
        return _name(node.annotation) == "TypeAlias"
    if isinstance(node, ast.BinOp):
        return any(
            (isinstance(side, ast.Subscript) and _name(side) in TYPES)
            or (isinstance(side, ast.Constant) and side.value is None)
            for side in (node.left, node.right)
        )
    return isinstance(node, ast.Call) and _name(node) in SILENT_CALLS


def _expressions(node: ast.stmt) -> Iterator[ast.expr]:
    """The expressions of a statement itself that may be changed, without those of its bodies."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "targets", "target"):
            # Of a target only what is computed: `a[i + 1] = ...`.
            targets = value if isinstance(value, list) else [value]
            if name != "annotation":
                yield from (part.slice for part in targets if isinstance(part, ast.Subscript))
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.expr):
                yield part
            elif isinstance(part, ast.withitem):
                yield part.context_expr
            elif isinstance(part, ast.match_case) and part.guard is not None:
                yield part.guard
