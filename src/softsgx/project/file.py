"""Defaults of a project: the tables [tool.softsgx.NAME] of its pyproject.toml.

The command line and the pytest plugin read them. Whatever is there and not understood is refused in
one line with file and key, since a default that is silently ignored is worse than none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from softsgx.report.near import meant

NAME: Final = "pyproject.toml"
TABLES: Final = ("explore", "pytest")
"""Of [tool.softsgx]."""

Types = Mapping[str, tuple[type, ...]]
"""The keys of a table, with the types of TOML that a value may have."""

_TYPES: Final = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "an array of strings",
}


class ProjectError(Exception):
    """The file cannot be used; the text names it, and the key."""


def nearest() -> Path | None:
    """The pyproject.toml of the working directory, or of the nearest directory above it."""
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        return None
    files = (place / NAME for place in (here, *here.parents))
    return next((file for file in files if os.path.isfile(file)), None)


def read(file: Path, table: str, types: Types) -> dict[str, Any]:
    """[tool.softsgx.`table`]; empty if it is not there. ProjectError names file and key."""
    import tomllib  # which no other command needs

    try:
        found: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProjectError(f"{file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ProjectError(f"{file}: not TOML: {error}") from None
    found = _table(file, "tool", found.get("tool", {}))
    found = _table(file, "tool.softsgx", found.get("softsgx", {}))
    for key in found:
        if key not in TABLES:
            raise ProjectError(f"{file}: [tool.softsgx] {key}: unknown{nearest_of(key, TABLES)}")
    found = _table(file, f"tool.softsgx.{table}", found.get(table, {}))
    for key, value in found.items():
        _check(where(file, table, key), key, value, types)
    return dict(found)


def where(file: Path, table: str, key: str) -> str:
    """The beginning of a message."""
    return f"{file}: [tool.softsgx.{table}] {key}"


def nearest_of(word: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or all of them."""
    return meant(word, known) or f": known are {', '.join(known)}"


def _table(file: Path, name: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ProjectError(f"{file}: {name}: not a table")
    return found


def _check(start: str, key: str, value: Any, types: Types) -> None:
    if key not in types:
        raise ProjectError(f"{start}: unknown{nearest_of(key, [*types])}")
    strings = not isinstance(value, list) or all(isinstance(each, str) for each in value)
    # Not isinstance: true and false are no numbers.
    if type(value) not in types[key] or not strings:
        wanted = " or ".join(_TYPES[each] for each in types[key])
        raise ProjectError(f"{start}: {value!r} is not {wanted}")
