"""Modules that import each other when the program runs, directly or through others."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from tests.tidy.source import Source

# Which circle may stay, and why.
KEPT: Final[Mapping[tuple[str, ...], str]] = {
    ("softsgx.linux.sgx.encl", "softsgx.linux.sgx.main"): "the kernel's encl.c and main.c",
}

# Rooms without a circle even where the type checker alone follows an import.
# In sim and linux classes know each other's types: a task its execution, a process its mm, as the
# structures of the kernel's headers do.
ROOMS_TYPED_TOO: Final = frozenset(
    {"spec", "events", "mem", "cpu", "image", "explore", "report"}
    | {"system", "lab", "runner", "cli"}
)


def circles(
    files: Iterable[Source],
    kept: Mapping[tuple[str, ...], str] = KEPT,
    *,
    typed_too: bool = False,
) -> Iterator[str]:
    """Circles of imports. One inside a function counts; of those for the type checker only when
    `typed_too`."""
    modules = {".".join(source.module): source for source in files}
    known = modules.keys()
    imports = {name: _imported(source, known, typed_too) for name, source in modules.items()}
    reached = {name: _reached(name, imports) for name in imports}
    told: set[tuple[str, ...]] = set()
    for name in sorted(imports):
        circle = tuple(sorted(other for other in reached[name] if name in reached[other]))
        if circle and circle not in told and circle not in kept:
            told.add(circle)
            yield f"{modules[name].path}:1: imports in a circle: {', '.join(circle)}"


def _reached(name: str, imports: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    pending = [name]
    while pending:
        new = imports[pending.pop()] - found
        found |= new
        pending.extend(new)
    return found


def _imported(source: Source, modules: Iterable[str], typed_too: bool) -> set[str]:
    """The modules that a file imports when it runs, or anywhere."""
    known, found = set(modules), set()
    for node in ast.walk(source.tree) if typed_too else _executed(source.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
    return found & known


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from _executed(child)
