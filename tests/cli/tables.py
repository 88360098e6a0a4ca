"""The tables of modes of all commands, and a command line for each mode."""

from __future__ import annotations

from collections.abc import Iterator

from softsgx.cli.completion.scripts import tables
from softsgx.cli.declared import Mode, Option

TABLES = {name: table for name, _, table in tables()}

LAYOUT = {
    "--layout": "selftest",
    "--threads": "2",
    "--nssa": "3",
    "--ssaframesize": "2",
    "--stack-pages": "5",
    "--heap-pages": "2",
    "--guard-pages": "2",
    "--thread-data-pages": "2",
    "--relocate-to": "0x1000",
}

# A value that the option accepts, if it takes one.
VALUES = {
    "explore": {
        "TARGET": "scenarios.py",
        "--driver": "sgx.drv",
        "--coverage": "out.info",
        "--points": "accesses",
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
        "--html": "out.html",
    },
    "compare": {
        "--failure": "ioctl/pending",
        "--designs": "ioctl",
        "--driver": "sgx.drv",
        "--driver-mprotect": "sgx.drv",
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
    "measure": {"FILE": "app", **LAYOUT},
    "show": {"FILE": "app", **LAYOUT},
    "doctor": {},
    "completion": {"SHELL": "bash"},
    "driver": {
        "ACTION": "build",
        "--source": "linux",
        "--debian": "6.12",
        "-o": "sgx.drv",
        "--encls": "trap",
    },
    "sign": {
        "FILE": "app",
        "--key": "key.pem",
        "-o": "other.sig",
        "--sgxs": "out.sgxs",
        "--attributes": "0x6",
        "--attributemask": "1",
        "--xfrm": "7",
        "--xfrmmask": "1",
        "--miscselect": "1",
        "--miscmask": "1",
        "--cet-attributes": "1",
        "--cetmask": "1",
        "--isvprodid": "1",
        "--isvsvn": "1",
        "--vendor": "0x8086",
        "--swdefined": "1",
        "--isvfamilyid": "01" * 16,
        "--isvextprodid": "01" * 16,
        "--date": "2024-02-29",
        **LAYOUT,
    },
    "run": {
        "PROGRAM": "/bin/true",
        "--engine": "native",
        "--supervisor": "systrap",
        "--epc": "8M",
        "--linux": "v2",
        "--driver": "sgx.drv",
        "--coverage": "out.info",
        "--xfrm": "3",
        "--cpu-option": "cet=1",
        "--inject": "EMODPR:when=3",
        "--vendor": "GenuineIntel",
        "--seed": "1",
        "--tick": "0",
        "--cpuid": "patch",
        "--stats": "json",
        "--trace": "trace.txt",
        "--junit": "out.xml",
        "--sgxs-out": "out.sgxs",
    },
}


def words(command: str, option: Option) -> list[str]:
    """The option with its value, as on the command line."""
    if option.flag:
        return [option.name]
    value = VALUES[command][option.name]
    if option.joined:
        return [f"{option.name}={value}"]
    return [value] if option.positional else [option.name, value]


def with_default(option: Option) -> list[str] | None:
    """The option with its default as the value; None if it has none to give."""
    default = option.default
    if isinstance(default, bool) or not isinstance(default, int | str) or option.flag:
        return None
    return [str(default)] if option.positional else [option.name, str(default)]


def least(command: str, mode: Mode) -> list[str]:
    """The shortest command line of a mode."""
    options = TABLES[command].options
    needed = [name for name in mode.names if name not in mode.options]
    repeated = [name for name in needed for _ in mode.takes.get(name, ("once",))]
    return [command, *(word for name in repeated for word in words(command, options[name]))]


def modes() -> Iterator[tuple[str, Mode]]:
    """All of them."""
    for command, table in TABLES.items():
        yield from ((command, mode) for mode in table.modes)


def name(command: str, mode: Mode) -> str:
    """The id of a mode in tests."""
    return f"{command} {mode.chosen}".strip()
