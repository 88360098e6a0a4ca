"""`softsgx doctor`: table, JSON and exit code, here and where system calls are denied."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from softsgx.cli.doctor import machine
from softsgx.cli.main import main
from softsgx.runner.doctor.doctor import Check
from tests.cli import snapshots

GOOD = Check("ptrace", True, "a child was traced", "unused")
HINT = Check("gcc", False, "not in PATH", "for make demo: install gcc", needed=False)
BAD = Check("seccomp", False, "installing a filter is refused", "allow seccomp")

# Denies one system call as a container does, and then asks doctor.
CONTAINER = """
import ctypes, struct, sys
from softsgx.cli.main import main
rows = [(0x20, 0, 0, 0), (0x15, 0, 1, int(sys.argv[1])), (6, 0, 0, 0x50001), (6, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *row) for row in rows))
prog = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 4, ctypes.addressof(code)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(prog)), 0, 0) == 0
sys.exit(main(["doctor", "--json"]))
"""


@pytest.mark.parametrize(
    ("checks", "code"), [([GOOD], 0), ([GOOD, HINT], 0), ([GOOD, HINT, BAD], 1), ([BAD], 1)]
)
def test_exit_code_is_a_finding_where_something_needed_is_missing(
    checks: list[Check],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(machine, "examine", lambda: checks)
    assert main(["doctor"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    assert out.endswith(f"programs can{'not run here: seccomp' if code else ' run here'}\n")
    assert main(["doctor", "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["ready"] is (code == 0)
    assert [check["name"] for check in found["checks"]] == [check.name for check in checks]


def test_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(machine, "examine", lambda: [GOOD, HINT, BAD])
    main(["doctor"])
    snapshots.check("doctor.txt", capsys.readouterr().out)


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(machine, "examine", lambda: [GOOD, BAD])
    main(["doctor", "--json"])
    snapshots.check("doctor.json", capsys.readouterr().out)


def test_this_machine_runs_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "number", "detail"),
    [
        ("ptrace", 101, "PTRACE_SEIZE: Operation not permitted"),
        ("inotify", 294, "inotify_init1: Operation not permitted"),
    ],
)
def test_container_that_denies_a_system_call(name: str, number: int, detail: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONTAINER, str(number)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks[name]["detail"] == detail
    assert checks[name]["remedy"]
    assert not checks["limits"]["ok"]
    assert "Seccomp 2" in checks["limits"]["detail"]
