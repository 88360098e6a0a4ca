"""The tables of modes of the commands that have one, and how each of their modes is called."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from softsgx.cli.main import COMMANDS
from softsgx.cli.modes import Mode, Option, Table

TABLES = {
    name: table
    for name, command in COMMANDS.items()
    if isinstance(table := getattr(import_module(command.module), "TABLE", None), Table)
}

# A value that the option accepts, where it has one.
VALUES = {
    "explore": {
        "TARGET": "scenarios.py",
        "--replay": "0.1.0/Counter/00000000/1:a",
        "--linux": "v2",
        "--order": "enarx",
        "--strategy": "dfs",
        "--preemptions": "1",
        "--executions": "5",
        "--depth": "2",
        "--budget": "5s",
        "--seed": "7",
        "--jobs": "2",
        "--cluster": "tcp://127.0.0.1:1",
        "--junit": "out.xml",
        "--sarif": "out.sarif",
    },
    "compare": {
        "--failure": "ioctl/pending",
        "--designs": "ioctl",
        "--runtimes": "gramine",
        "--workloads": "stacks",
        "--n": "2",
        "--prices": "low",
        "--seed": "7",
        "--jobs": "1",
        "--html": "out.html",
        "--plots": "plots",
        "--schedule": "1:a",
    },
}


def words(command: str, option: Option) -> list[str]:
    """The option with its value, as on the command line."""
    if option.flag:
        return [option.name]
    value = VALUES[command][option.name]
    return [value] if option.positional else [option.name, value]


def with_default(option: Option) -> list[str] | None:
    """The option with the default said; None if it has none that can be said."""
    default = option.default
    if isinstance(default, bool) or not isinstance(default, int | str) or option.flag:
        return None
    return [str(default)] if option.positional else [option.name, str(default)]


def least(command: str, mode: Mode) -> list[str]:
    """The shortest command line of a mode."""
    options = TABLES[command].options
    needed = [name for name in mode.names if name not in mode.options]
    return [command, *(word for name in needed for word in words(command, options[name]))]


def modes() -> Iterator[tuple[str, Mode]]:
    """All of them."""
    for command, table in TABLES.items():
        yield from ((command, mode) for mode in table.modes)


def name(command: str, mode: Mode) -> str:
    """For the ids of tests."""
    return f"{command} {mode.chosen}".strip()
