"""Each mode ends with each exit code of its table.

Mutants that survived: `compare --validate` ends with 0 though a figure is MISSED; `--known-races`
ends with 0 though something is found with the fix, or a race is not found.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from softsgx.cli.cluster import Cluster
from softsgx.cli.declared import Mode
from softsgx.cli.doctor import machine
from softsgx.cli.errors import EXIT_BAD_INPUT, EXIT_FINDING, EXIT_INTERRUPTED, EXIT_OK
from softsgx.cli.explore import known_races, shipped
from softsgx.cli.explore.finished import Finished
from softsgx.cli.explore.reports import exit_code
from softsgx.cli.main import main
from softsgx.cli.run import program
from softsgx.cli.stopping import Stopping
from softsgx.explore import Failure, Kind, Outcome
from softsgx.lab import validate
from softsgx.lab.validate import Target
from softsgx.runner.doctor.doctor import Check
from softsgx.runner.session.session import run_program
from tests.cli import tables
from tests.cli.conftest import FILE, Race, Small
from tests.cli.enclave_files import contents
from tests.cli.test_explore import CORRECT

CORRECT_FILE, TROUBLE_FILE = "correct.py", "trouble.py"
TROUBLE = CORRECT.replace('yield ("write", "x", True)', '1 / 0; yield ("write", "x", True)')
COSTS = "--designs ioctl --runtimes gramine --workloads stacks --n 1 --prices default --jobs 1"

# The command line after command and mode; {replay} is a string of the counter that fails, {short}
# one of it that does not.
CODES = {
    "explore": {0: CORRECT_FILE, 1: FILE, 2: TROUBLE_FILE, 130: CORRECT_FILE},
    "explore --shipped": {0: "--linux v2", 1: "", 2: "--junit no/where", 130: "--linux v2"},
    "explore --list": {0: "", 2: "nowhere.py", 130: ""},
    "explore --replay": {0: f"{{short}} {FILE}", 1: f"{{replay}} {FILE}", 2: "x", 130: "x"},
    "explore --known-races": {0: "", 1: "", 2: "--cluster tcp://127.0.0.1:1", 130: ""},
    "compare": {0: COSTS, 2: f"{COSTS} --html no/where", 130: COSTS},
    "compare --failure": {
        0: "ioctl/pending",
        1: "mprotect-read/pending",
        2: "ioctl/pending --schedule x",
        130: "ioctl/pending",
    },
    "compare --validate": {0: "", 1: "", 2: "--prices nothing", 130: ""},
    "measure": {0: "app", 2: "nowhere", 130: "app"},
    "sign": {0: "app --key key.pem", 2: "app --key app", 130: "app --key key.pem"},
    "show": {0: "app", 1: "bad.sig", 2: "key.pem", 130: "app"},
    "show --diff": {0: "app app", 1: "app exec", 2: "app nowhere", 130: "app app"},
    "doctor": {0: "", 1: "", 2: "--nothing", 130: ""},
    "doctor --clean": {0: "", 2: "--nothing", 130: ""},
    "completion": {0: "bash", 2: "ksh", 130: "bash"},
    "driver": {
        0: "build --source linux -o sgx.drv",
        2: "build --source nowhere -o sgx.drv",
        130: "build --source linux -o sgx.drv",
    },
    "driver --debian": {
        0: "6.12 build -o sgx.drv",
        2: "6.12 build -o no/where",
        130: "6.12 build -o sgx.drv",
    },
    "run": {125: "--", 126: "-- ./key.pem", 127: "-- ./missing"},
}
OF_ALL = {70, 141}
"""Codes of every mode that have tests of their own: a bug, and a reader that is gone."""


def cases() -> list[Any]:
    return [
        pytest.param(command, mode, code, id=f"{tables.name(command, mode)} {code}")
        for command, mode in tables.modes()
        for code in mode.codes
        if isinstance(code, int) and code not in OF_ALL
    ]


@pytest.mark.parametrize(("command", "mode", "code"), cases())
def test_a_mode_ends_with_its_codes(
    command: str,
    mode: Any,
    code: int,
    small: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path(CORRECT_FILE).write_text(CORRECT)
    Path(TROUBLE_FILE).write_text(TROUBLE)
    sigstruct = bytearray(contents()["app.sig"])
    sigstruct[600] ^= 1
    Path("bad.sig").write_bytes(sigstruct)
    monkeypatch.setattr(
        shipped, "all_shipped", lambda linux, order: [Small(linux, order, atomic=linux == "v2")]
    )
    name = tables.name(command, mode)
    if (name, code) == ("explore --known-races", 1):
        monkeypatch.setattr(known_races, "KNOWN_RACES", (Race(found=False),))
    if name == "explore --known-races" and code == EXIT_BAD_INPUT:
        monkeypatch.setattr("softsgx.cli.cluster.Cluster", Cluster)
    if (name, code) == ("doctor", 1):
        monkeypatch.setattr(
            machine,
            "examine",
            lambda: [Check("check", ok=False, detail="", remedy="", needed=True)],
        )
    if (name, code) == ("compare --validate", 1):
        monkeypatch.setattr(validate, "targets", lambda prices: [figure(1.0), figure(9.0)])
    if command == "run":
        monkeypatch.setattr(program, "run_program", run_program)
    if code == EXIT_INTERRUPTED:
        interrupt(mode, monkeypatch)
    words = CODES[name][code].format(replay=small, short=small.rpartition(":")[0] + ":")
    argv = [command, *([mode.chosen] if mode.chosen else []), *words.split()]
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert (err == "") == (code in (EXIT_OK, EXIT_FINDING) or bool(out and code == EXIT_BAD_INPUT))


def interrupt(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C: a search sees that it was pressed, any other mode gets the exception."""
    if mode.module.rpartition(".")[2] in ("search", "shipped", "known_races"):
        monkeypatch.setattr(Stopping, "interrupted", True)
        monkeypatch.setattr(Stopping, "__call__", lambda stopping: True)
        return

    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module(mode.module), mode.function, pressed)


def figure(model: float) -> Target:
    return Target("what", "source", "s", 1.0, model, 1.5)


def test_every_mode_is_there_with_all_its_codes() -> None:
    """A code that is removed from a table makes no case, but fails here."""
    assert {name: set(codes) for name, codes in CODES.items()} == {
        tables.name(command, mode): {c for c in mode.codes if isinstance(c, int)} - OF_ALL
        for command, mode in tables.modes()
    }


@pytest.mark.parametrize(
    ("race", "code"),
    [
        (Race(), EXIT_OK),
        (Race(found=False), EXIT_FINDING),
        (Race(fixed=False), EXIT_FINDING),
        (Race(found=False, fixed=False), EXIT_FINDING),
    ],
)
@pytest.mark.parametrize("json", [False, True])
@pytest.mark.usefixtures("small")
def test_a_race_must_be_found_and_its_fix_must_hold(
    race: Race, code: int, json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race that is wrong is not the last one."""
    monkeypatch.setattr(known_races, "KNOWN_RACES", (race, Race()))
    assert main(["explore", "--known-races", *(["--json"] if json else [])]) == code


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        (known_races.PREEMPTIONS, "nothing in 77, every schedule up to "),
        (known_races.PREEMPTIONS - 1, "nothing, every schedule up to "),
        (-1, "nothing |"),
    ],
)
@pytest.mark.usefixtures("small")
def test_executions_are_counted_only_where_they_are_no_matter_of_the_machine(
    bound: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A search with the fix that ran out of time reports its bound, not its executions."""
    assert main(["explore", "--known-races", "--json"]) == EXIT_OK
    (found,) = json.loads(capsys.readouterr().out)
    found |= {"fixed_bound": bound, "fixed_executions": 77}
    assert f"| {said}" in known_races.markdown([found])


@pytest.mark.parametrize(
    ("model", "tolerance", "code"),
    [(1.0, 1.0, EXIT_OK), (1.1, 1.0, EXIT_FINDING), (1.1, 1.2, EXIT_OK)],
)
def test_a_missed_figure_is_a_finding_at_whatever_prices(
    model: float, tolerance: float, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = Target("fine", "source", "s", 1.0, 1.0, 1.0)
    other = Target("other", "source", "s", 1.0, model, tolerance)
    monkeypatch.setattr(
        validate, "targets", lambda prices: [other, fine] if prices.name == "low" else [fine]
    )
    assert main(["compare", "--validate"]) == EXIT_OK
    for more in ([], ["--json"]):
        assert main(["compare", "--validate", "--prices", "default,low,high", *more]) == code


def finished(kind: Kind | None, interrupted: bool = False) -> Finished:
    failure = None if kind is None else Failure(kind, "rule", "text", "", "", (), 1)
    outcome = Outcome("small", "dfs", failure=failure)
    return Finished("small", Small(None, None), outcome, 0.0, interrupted)


@pytest.mark.parametrize(
    ("kinds", "interrupted", "code"),
    [
        ([], False, EXIT_OK),
        ([None, None], False, EXIT_OK),
        ([None, None], True, EXIT_INTERRUPTED),
        ([Kind.VIOLATION, None], False, EXIT_FINDING),
        ([Kind.VIOLATION, None], True, EXIT_FINDING),
        ([Kind.DEADLOCK], False, EXIT_FINDING),
        ([None, Kind.ASSERTION], False, EXIT_FINDING),
        ([Kind.SCENARIO], False, EXIT_BAD_INPUT),
        ([Kind.STEP_BOUND, None], True, EXIT_BAD_INPUT),
        ([Kind.NONDETERMINISM], False, EXIT_BAD_INPUT),
        # A finding counts, whatever else is broken.
        ([Kind.SCENARIO, Kind.ASSERTION, Kind.STEP_BOUND], True, EXIT_FINDING),
    ],
)
def test_the_code_of_several_searches(
    kinds: list[Kind | None], interrupted: bool, code: int
) -> None:
    assert exit_code([finished(kind, interrupted) for kind in kinds]) == code
