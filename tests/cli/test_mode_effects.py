"""Each option of each mode has an effect: without it the result differs.

The result is the exit code, both outputs and the files. Searches are of two small scenarios; what
would take long is replaced by something small that depends on the same options.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from softsgx.cli.main import COMMANDS, main
from tests.cli import tables
from tests.cli.conftest import FILE
from tests.cli.tables import TABLES

SMALL = "--designs ioctl --runtimes gramine --workloads stacks --n 1,2 --prices default --jobs 1"
SERVER = SMALL.replace("stacks", "server")

# The command line without the option, and with it.
SEARCH = {
    "--driver": ("", "--driver nowhere.drv"),
    "--strategy": ("", "--strategy dfs"),
    "--preemptions": ("", "--preemptions 0"),
    "--executions": ("", "--executions 2"),
    "--depth": ("--strategy pct --executions 20", "--strategy pct --executions 20 --depth 1"),
    "--budget": ("", "--budget 0.000001s"),
    "--seed": ("--strategy random --executions 9", "--strategy random --executions 9 --seed 3"),
    "--jobs": ("", "--jobs 2"),
    "--cluster": ("", "--cluster"),
    "--progress": ("", "--progress"),
    # On a terminal it is the default: test_progress.py.
    "--no-progress": ("--progress", "--no-progress"),
    "--json": ("", "--json"),
    "--junit": ("", "--junit out.xml"),
    "--sarif": ("", "--sarif out.sarif"),
    "--html": ("", "--html out.html"),
    # Without an object they are refused; what they do with one is in tests/cdriver.
    "--coverage": ("", "--coverage out.info"),
    "--data-races": ("", "--data-races"),
    "--points": ("", "--points accesses"),
}
REPORTS = {name: SEARCH[name] for name in ("--json", "--junit", "--sarif", "--html")}
EFFECTS = {
    "explore": {
        "TARGET": ("", FILE),
        **{name: (f"{FILE} {a}", f"{FILE} {b}") for name, (a, b) in SEARCH.items()},
    },
    "explore --shipped": {
        **SEARCH,
        "--linux": ("", "--linux v2"),
        "--order": ("", "--order enarx"),
    },
    "explore --list": {"TARGET": ("", FILE), "--json": ("", "--json")},
    "explore --replay": {
        **{name: (f"{FILE} {a}", f"{FILE} {b}") for name, (a, b) in REPORTS.items()},
        "TARGET": ("", FILE),
        "--driver": (FILE, f"{FILE} --driver nowhere.drv"),
    },
    "explore --known-races": {
        **{n: SEARCH[n] for n in ("--driver", "--budget", "--jobs", "--cluster")},
        **{n: SEARCH[n] for n in ("--progress", "--no-progress")},
        "--json": SEARCH["--json"],
        "--seed": ("--json", "--json --seed 3"),
    },
    "compare": {
        "--designs": (SMALL, SMALL.replace("ioctl", "fault-once")),
        "--driver": (SMALL, f"{SMALL} --driver nowhere.drv"),
        "--driver-mprotect": (SMALL, f"{SMALL} --driver-mprotect nowhere.drv"),
        "--runtimes": (SMALL, SMALL.replace("gramine", "enarx")),
        "--workloads": (SMALL, SMALL.replace("stacks", "cow")),
        "--n": (SMALL, SMALL.replace("1,2", "1")),
        "--prices": (SMALL, SMALL.replace("default", "low")),
        "--seed": (SERVER, f"{SERVER} --seed 5"),
        "--jobs": (SMALL, SMALL.replace("--jobs 1", "--jobs 2")),
        "--progress": (SMALL, f"{SMALL} --progress"),
        "--no-progress": (f"{SMALL} --progress", f"{SMALL} --no-progress"),
        "--all": (SMALL, f"{SMALL} --all"),
        "--failures": (SMALL, f"{SMALL} --failures"),
        "--json": (SMALL, f"{SMALL} --json"),
        "--html": (SMALL, f"{SMALL} --html out.html"),
        "--plots": (SMALL, f"{SMALL} --plots plots"),
    },
    "compare --failure": {"--schedule": ("", "--schedule 1:z"), "--json": ("", "--json")},
    "compare --validate": {"--prices": ("", "--prices low,high"), "--json": ("", "--json")},
}  # fmt: skip


# For other modes: to what the option is added, if not to the shortest command line.
BASE = {
    "measure --layout": "selftest",
    "measure --measure-heap": "app --heap-pages 1",
    "show --layout": "selftest",
    "show --measure-heap": "app --heap-pages 1",
    "show --diff": "app app.sgxs",
    "show --diff FILE": "app app",
    "show --diff --layout": "selftest app.sgxs",
    "show --diff --measure-heap": "app app.sgxs --heap-pages 1",
    "show --diff --all": "app app.sgxs --threads 40",
    "sign": "app --key key.pem -o new.sig",
    "sign -o": "app --key key.pem",
    "sign --layout": "selftest --key key.pem -o new.sig",
    "sign --measure-heap": "app --key key.pem -o new.sig --heap-pages 1",
    "sign --cet-attributes": "app --key key.pem -o new.sig --attributes 0x44",
    "sign --cetmask": "app --key key.pem -o new.sig --attributes 0x44",
    "sign --isvfamilyid": "app --key key.pem -o new.sig --attributes 0x84",
    "sign --isvextprodid": "app --key key.pem -o new.sig --attributes 0x84",
    "run": "-- /bin/true",
    "run PROGRAM": "--",
    "run --xfrm": "--engine native -- /bin/true",
}


_TIME = re.compile(r'\d+\.\d+ s\b|"seconds": [\d.]+|time="[\d.]+"|\| \d+\.\d+ \|')


def seen(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str, dict[str, str]]:
    """The result of a command line, without times; files that it writes are removed.

    A bug does not count as an effect: `compare --plots` once ended in a traceback.
    """
    before = set(Path().rglob("*"))
    code = main(argv)
    out, err = capsys.readouterr()
    assert ": a bug in softsgx: " not in err, err
    new = [path for path in sorted(set(Path().rglob("*")) - before) if path.is_file()]
    files = {str(path): path.read_text(errors="replace") for path in new if path.suffix != ".pyc"}
    for path in new:
        path.unlink()
    return code, _TIME.sub("", out), err, files


def cases() -> list[Any]:
    return [
        pytest.param(command, mode, option, id=f"{tables.name(command, mode)} {option}")
        for command, mode in tables.modes()
        for option in mode.names
        if option != mode.chosen
    ]


def test_nothing_is_tried_that_is_not_there() -> None:
    known = {tables.name(command, mode): mode for command, mode in tables.modes()}
    for name, options in EFFECTS.items():
        assert set(options) == set(known[name].names) - {known[name].chosen}
    for place in BASE:
        name, _, option = place.rpartition(" ")
        assert place in known or option in known[name].names


@pytest.mark.parametrize(("command", "mode", "option"), cases())
def test_an_option_of_a_mode_has_an_effect(
    command: str, mode: Any, option: str, small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    without, given = pair(command, mode, option, small)
    assert seen([command, *without], capsys) != seen([command, *given], capsys)


def pair(command: str, mode: Any, option: str, replay: str) -> tuple[list[str], list[str]]:
    """A command line without the option, and one that differs by it."""
    name = tables.name(command, mode)
    start = [mode.chosen] if mode.chosen else []
    if name in EFFECTS:
        start += {"--replay": [replay], "--failure": ["ioctl/pending"]}.get(mode.chosen, [])
        without, given = (words.split() for words in EFFECTS[name][option])
        assert option == "TARGET" or option in given
    else:
        added = tables.words(command, TABLES[command].options[option])
        least = " ".join(tables.least(command, mode)[1 + len(start) :])
        base = BASE.get(f"{name} {option}", BASE.get(name, least)).split()
        if option in mode.needs:
            at = next(at for at in range(len(base)) if base[at : at + len(added)] == added)
            without, given = [*base[:at], *base[at + len(added) :]], base
        else:
            without, given = base, [*added, *base]
    return [*start, *without], [*start, *given]


def test_the_same_command_line_is_seen_alike(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the test above could not fail."""
    for argv in (["explore", FILE], ["explore", "--shipped"], ["explore", "--known-races"]):
        assert seen(argv, capsys) == seen(argv, capsys)
    argv = ["compare", *SMALL.split(), "--html", "out.html", "--plots", "plots"]
    assert seen(argv, capsys) == seen(argv, capsys)


def test_every_command_has_a_table() -> None:
    assert set(TABLES) == set(COMMANDS)
