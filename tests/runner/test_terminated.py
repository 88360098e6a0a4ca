"""SIGTERM to the processes of a run with reports: all of them end, and the reports are written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import LIMIT_S, settle, until
from tests.runner.programs import ENGINES, Program, Workshop


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("terminated"))


@pytest.fixture(scope="module")
def spinning(workshop: Workshop) -> list[str]:
    return workshop.command(Program.read(Path(__file__).parent / "spinning.c"))


def is_gone(pid: int) -> bool:
    """Whether a process is gone, or a zombie that its new parent has yet to collect."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return True
    return state[0] == "Z"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["computes", "stores", "waits"])
@pytest.mark.parametrize("options", [("--stats", "--trace"), ("--explain",)], ids=" ".join)
def test_sigterm_ends_a_run_whatever_it_does(
    spinning: list[str], tmp_path: Path, engine: str, what: str, options: tuple[str, ...]
) -> None:
    """The story: the handler raised SystemExit, which was lost in a callback of the emulator."""
    trace = tmp_path / "t.jsonl"
    given = [word for name in options for word in (name, *([str(trace)] * (name == "--trace")))]
    command = [sys.executable, "-m", "softsgx", "run", "--engine", engine, *given, "--"]
    with subprocess.Popen(
        [*command, *spinning, what],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        pids = [int(word) for word in run.stdout.readline().split()]
        assert len(pids) == 2, run.communicate()
        settle()
        os.killpg(run.pid, signal.SIGTERM)
        _, said = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 128 + signal.SIGTERM, said
    until(lambda: all(map(is_gone, pids)), "the end of both")
    assert "ignored" not in said, "an exception that nobody got"
    if "--stats" in options:
        assert "softsgx: stats\n" in said
        assert "EINIT" in said
        events = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
        ended = [e for e in events if e.get("what") == "ProcessEnded"]
        assert {e["process"]: e["outcome"] for e in ended} == dict.fromkeys(
            map(str, pids), "SIGTERM"
        )


def test_sigterm_comes_again_and_again(spinning: list[str]) -> None:
    """Until the very end, when the reports are already written."""
    command = [sys.executable, "-m", "softsgx", "run", "--stats", "--", *spinning, "stores"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        while run.poll() is None:
            os.killpg(run.pid, signal.SIGTERM)
            settle(0.001)
        _, said = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 128 + signal.SIGTERM, said
    assert "softsgx: stats\n" in said


def test_an_ignored_sigterm_stays_ignored() -> None:
    """Ignored by the caller of softsgx, as with `nohup`: the program ends by itself."""
    ignoring = "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    ignoring += "; os.execv(sys.argv[1], sys.argv[1:])"
    inner = [sys.executable, "-m", "softsgx", "run", "--stats", "--", "/bin/cat"]
    with subprocess.Popen(
        [sys.executable, "-c", ignoring, *inner],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        assert run.stdin is not None
        assert run.stdout is not None
        run.stdin.write("here\n")
        run.stdin.flush()
        assert run.stdout.readline() == "here\n"
        run.terminate()
        settle()
        assert run.communicate("more\n", timeout=LIMIT_S)[0] == "more\n"
    assert run.returncode == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_sigterm_does_not_wait_for_a_long_call(workshop: Workshop, engine: str) -> None:
    """Linux interrupts it for SIGKILL, too. The story: 32768 pages took many seconds more."""
    program = workshop.command(Program.read(Path(__file__).parent / "long_call.c"))
    command = [sys.executable, "-m", "softsgx", "run", "--engine", engine, "--stats", "--"]
    with subprocess.Popen(
        [*command, *program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        settle()
        run.terminate()
        _, said = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 128 + signal.SIGTERM, said
    assert "came to its end" not in said
    added = re.search(r"\bEADD (\d+)", said)
    assert added is None or int(added[1]) < (128 << 20) >> 12, said
