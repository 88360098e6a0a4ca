"""The reference pages of the site, part of `make site`.

One page for each module with public names, from their docstrings and signatures, and one for the
commands, from the tables of which their parsers and the man page are made.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import groupby
from pathlib import Path
from textwrap import dedent, indent
from typing import Any, Final

from softsgx.cli.completion.scripts import tables
from softsgx.cli.errors import markdown
from softsgx.cli.modes import Table

MODULES: Final = ("softsgx", "softsgx.system", "softsgx.explore", "softsgx.cpu")
CLI: Final = "cli.md"
NAMES: Final = (CLI, *(f"{name}.md" for name in MODULES))
"""The pages, in their order."""
WIDTH: Final = 88
_CODE: Final = re.compile(r"(`[^`]+`)")
_COLUMNS: Final = re.compile(r"^\S+(?: \S+)* {2,}\S", re.MULTILINE)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def pages() -> dict[str, str]:
    """Each page, by its name."""
    return {f"{name}.md": module_page(name) for name in MODULES} | {CLI: cli_page()}


def module_page(name: str) -> str:
    """The public names of a module, in the order of `__all__`."""
    module = import_module(name)
    parts = [f"# {name}\n", text(module.__doc__ or "")]
    for public in module.__all__:
        parts += _entry(public, getattr(module, public))
    return "\n".join(parts)


def _entry(name: str, value: Any) -> Iterator[str]:
    yield f"## {name}\n"
    if inspect.isclass(value):
        yield from _class(name, value)
    elif inspect.isfunction(value):
        yield _fenced(_signature(_definition(value)))
        yield text(inspect.getdoc(value) or "")
    else:
        yield text(_constant(name))


def _class(name: str, kind: type) -> Iterator[str]:
    body = _definition(kind)
    assert isinstance(body, ast.ClassDef)
    bases = f"({', '.join(map(ast.unparse, body.bases))})" if body.bases else ""
    head = [f"class {name}{bases}"]
    head += [f"    {ast.unparse(item)}" for item in body.body if _is_field(item)]
    functions = [item for item in body.body if isinstance(item, _Function)]
    init = [item for item in functions if item.name == "__init__"]
    yield _fenced("\n".join(head + [indent(_signature(item), "    ") for item in init]))
    yield text(inspect.cleandoc(ast.get_docstring(body) or ""))
    for item in functions:
        if item.name.startswith("_"):
            continue
        yield f"### {name}.{item.name}\n"
        is_property = any(ast.unparse(x).endswith("property") for x in item.decorator_list)
        shown = f"{item.name}: {ast.unparse(item.returns)}" if is_property and item.returns else ""
        yield _fenced(shown or _signature(item))
        yield text(ast.get_docstring(item) or "")


def _is_field(item: ast.stmt) -> bool:
    """An annotated attribute, or a member of an enumeration."""
    target = item.target if isinstance(item, ast.AnnAssign) else None
    if isinstance(item, ast.Assign):
        target = item.targets[0] if isinstance(item.targets[0], ast.Name) else None
    return isinstance(target, ast.Name) and not target.id.startswith("_")


def _definition(value: Any) -> ast.ClassDef | _Function:
    found = ast.parse(dedent(inspect.getsource(value))).body[0]
    assert isinstance(found, ast.ClassDef | _Function)
    return found


def _signature(function: ast.ClassDef | _Function) -> str:
    """Name, arguments and result; without `self`, a line for each argument if it is long."""
    assert isinstance(function, _Function)
    given = [x for x in _arguments(function.args) if x not in ("self", "cls")]
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    whole = f"{function.name}({', '.join(given)}){returns}"
    if len(whole) <= WIDTH:
        return whole
    lines = "".join(f"    {argument},\n" for argument in given)
    return f"{function.name}(\n{lines}){returns}"


def _arguments(arguments: ast.arguments) -> Iterator[str]:
    plain = [*arguments.posonlyargs, *arguments.args]
    without = [None] * (len(plain) - len(arguments.defaults))
    for argument, default in zip(plain, [*without, *arguments.defaults], strict=True):
        yield _argument(argument, default)
    if arguments.vararg:
        yield f"*{ast.unparse(arguments.vararg)}"
    elif arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _argument(argument, default)
    if arguments.kwarg:
        yield f"**{ast.unparse(arguments.kwarg)}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")


def _constant(name: str) -> str:
    """The text below the assignment of a constant, or its value."""
    for tree in _modules(name):
        for item, after in zip(tree.body, [*tree.body[1:], None], strict=True):
            if isinstance(item, ast.AnnAssign) and ast.unparse(item.target) == name:
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                if documented and isinstance(after, ast.Expr):
                    return inspect.cleandoc(str(ast.literal_eval(after.value)))
                return f"`{ast.unparse(item)}`"
            if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == name:
                return f"`{ast.unparse(item)}`"
    raise LookupError(name)


def _modules(name: str) -> Iterator[ast.Module]:
    """Those of the modules that are loaded which have the name at the begin of a line."""
    for module in sorted(x for x in sys.modules if x.startswith("softsgx")):
        if file := getattr(sys.modules[module], "__file__", None):
            source = Path(file).read_text(encoding="utf-8")
            if f"\n{name}" in source:
                yield ast.parse(source)


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```\n"


def text(docstring: str) -> str:
    """A docstring as Markdown: columns and indented parts stay as they are."""
    found = []
    parts = groupby(inspect.cleandoc(docstring).split("\n\n"), key=_is_kept)
    for kept, paragraphs in parts:
        part = "\n\n".join(paragraphs)
        if kept:
            found.append(f"```text\n{dedent(part)}\n```")
        else:
            pieces = _CODE.split(part)
            found.append("".join(x if x.startswith("`") else _escaped(x) for x in pieces))
    return "\n\n".join(found) + "\n"


def _is_kept(paragraph: str) -> bool:
    return paragraph.startswith("    ") or _COLUMNS.search(paragraph) is not None


def _escaped(plain: str) -> str:
    return re.sub(r"([*_\[\]<])", r"\\\1", plain)


def cli_page() -> str:
    """Every command: usage, options, exit codes."""
    parts = ["# Commands\n", "`softsgx COMMAND --help` says the same, mode by mode.\n"]
    for name, about, table in tables():
        parts += [f"## softsgx {name}\n", f"{_escaped(about)}.\n"]
        parts += [f"```text\n{table.usage()}\n```\n", _options(table)]
        parts += ["Exit codes:\n", markdown(table.codes)]
    return "\n".join(parts)


def _options(table: Table) -> str:
    """A table of the options; empty if there are none."""
    rows = ["| option | what it does | default |", "| --- | --- | --- |"]
    for option in table.options.values():
        cells = [f"`{option.usage}`", _escaped(option.help), _escaped(option.default_text)]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n" if len(rows) > 2 else ""
