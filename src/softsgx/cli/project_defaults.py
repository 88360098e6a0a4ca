"""What the file of a project says for a command, where the command line says nothing."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from softsgx.cli.declared import Mode, Option
from softsgx.cli.errors import UsageError
from softsgx.project.file import ProjectError, Types, nearest, nearest_of, read, where


def fill_in(
    command: str,
    types: Types,
    options: Mapping[str, Option],
    mode: Mode,
    given: set[str],
    args: argparse.Namespace,
) -> None:
    """Set the arguments that are not `given` to what [tool.softsgx.COMMAND] says. UsageError.

    `types` has the keys that may be there, `args` the defaults of the mode. A value has no effect
    in a mode without its option, and none where the command line makes it pointless: a bound of
    preemptions with a strategy that has none. In the file alone such a pair is an error.
    """
    allowed = {key: options[f"--{key}"] for key in types}
    file = nearest() if any(each.name in mode.names for each in allowed.values()) else None
    if file is None:
        return
    try:
        found = read(file, command, types)
    except ProjectError as error:
        raise UsageError(str(error)) from None
    starts = {f"--{key}": where(file, command, key) for key in found}
    values = {
        f"--{key}": _parsed(allowed[key], value, starts[f"--{key}"]) for key, value in found.items()
    }
    for name in [*values]:
        if name in given or name not in mode.names:
            del values[name]
    for name in given:
        # What stands in the way of the command line is as if it were not in the file.
        other, possible = options[name].only or ("", ())
        if other in values and values[other] not in possible:
            del values[other]
        if getattr(args, options[name].key) != options[name].bare:
            for instead in options[name].instead:
                values.pop(instead, None)
    for name, value in values.items():
        setattr(args, options[name].key, value)
    for name in values:
        option = options[name]
        other, possible = option.only or ("", ())
        if other and getattr(args, options[other].key) not in possible:
            if other in values:
                raise UsageError(f"{starts[name]}: {option.condition}")
            setattr(args, option.key, mode.default(option))


def _parsed(option: Option, value: Any, start: str) -> Any:
    """A value of the file, as the command line would have it. UsageError."""
    if option.flag:
        return value
    if option.choices and value not in option.choices:
        raise UsageError(f"{start}: {value}: unknown{nearest_of(value, option.choices)}")
    try:
        return option.type(str(value))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{start}: {error}") from None
