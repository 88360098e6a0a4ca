"""Tests wait for facts (`tests/patience.py`): how fast the machine is decides no outcome."""

import ast
from collections.abc import Iterator
from typing import Final

from tests.tidy.source import ROOT, Source

PATIENCE: Final = "tests/patience.py"
_CLOCKS: Final = frozenset(
    f"time.{name}" for name in ("sleep", "time", "monotonic", "perf_counter", "process_time")
)
# Files that look at a clock, and why no outcome depends on it.
ALLOWED: Final[dict[str, str]] = {
    "tests/differential/__main__.py": "a command; operations a second are printed, nothing more",
}


def no_seconds(source: Source) -> Iterator[str]:
    """Clocks, sleeps, and limits of time that are numbers, in a test."""
    if source.path == PATIENCE or source.path in ALLOWED:
        return
    own = _own_numbers(source)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and source.dotted(node) in _CLOCKS:
            yield source.finding(node, f"{source.dotted(node)}: wait for a fact, {PATIENCE}")
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield source.finding(node, f"from time import: wait for a fact, {PATIENCE}")
        elif isinstance(node, ast.keyword) and node.arg == "timeout" and _number(node.value, own):
            yield source.finding(node, f"timeout={ast.unparse(node.value)}: LIMIT_S of {PATIENCE}")
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "wait"
            and node.args
            and _number(node.args[0], own)
        ):
            yield source.finding(node, f"wait({ast.unparse(node.args[0])}): LIMIT_S of {PATIENCE}")


def _own_numbers(source: Source) -> dict[str, ast.expr]:
    """Constants of the file by name: a number with a name is still a number."""
    found = {}
    for node in source.tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            found[node.target.id] = node.value
    return found


def _number(node: ast.expr, own: dict[str, ast.expr]) -> bool:
    """Of a second or more; shorter waits are those of a loop that looks again."""
    if isinstance(node, ast.Name):
        node = own.get(node.id, node)
    if not isinstance(node, ast.Constant) or not isinstance(node.value, int | float):
        return False
    return node.value >= 1


def sources_of_tests() -> Iterator[Source]:
    """The Python files of the tests."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        yield Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
