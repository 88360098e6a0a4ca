"""One source file as the rules see it: its place among the rooms, its syntax tree, its names."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = "softsgx"


@dataclass(frozen=True)
class Source:
    """A Python file of the package: `path` is relative to the repository, as `src/softsgx/...`."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, self.path)

    @cached_property
    def module(self) -> tuple[str, ...]:
        """The dotted name, in parts; that of a package for its __init__.py."""
        parts = PurePosixPath(self.path).with_suffix("").parts[1:]
        return parts[:-1] if parts[-1] == "__init__" else parts

    @property
    def is_package(self) -> bool:
        """Whether this is an __init__.py."""
        return self.path.endswith("/__init__.py")

    @property
    def room(self) -> str:
        """The room the file is in; for files beside the rooms, the file's own name or `softsgx`."""
        return self.module[1] if len(self.module) > 1 else PACKAGE

    @cached_property
    def origins(self) -> dict[str, str]:
        """Names bound by imports of other packages, and the dotted names they stand for."""
        names = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.split(".")[0]
                    names[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return names

    def finding(self, node: ast.AST, what: str) -> str:
        """One finding, in the form that editors jump to."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {what}"

    def dotted(self, node: ast.expr) -> str:
        """What `a.b.c` stands for, seen through the imports; empty for any other expression."""
        if isinstance(node, ast.Name):
            return self.origins.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (base := self.dotted(node.value)):
            return f"{base}.{node.attr}"
        return ""

    def functions(self) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        """Every function with its qualified name, nested ones included."""
        yield from _functions(self.tree, "")


def _functions(
    parent: ast.AST, prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.iter_child_nodes(parent):
        name = prefix
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}{node.name}."
            yield name[:-1], node
        elif isinstance(node, ast.ClassDef):
            name = f"{prefix}{node.name}."
        yield from _functions(node, name)


def sources() -> list[Source]:
    """All Python files of the package, in the order of their paths."""
    return [
        Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "src").rglob("*.py"))
    ]
