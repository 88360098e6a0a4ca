"""`softsgx explore` with a budget, with Ctrl-C, and with workers that hang or lose their parent."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from softsgx.cli import jobs, stopping, workers
from softsgx.cli.main import main
from softsgx.cli.scenarios import find
from softsgx.explore.unit import Unit
from softsgx.sim import Execution
from tests.cli.test_explore import CORRECT, COUNTER, written
from tests.patience import LIMIT_S, until

# A body that never reaches a point cannot be interrupted from within. It leaves a mark first.
HANGING = "import pathlib, os\n" + CORRECT.replace(
    "for _ in range(5):",
    "pathlib.Path(__file__).with_name(f'hangs.{os.getpid()}').touch()\n"
    "        while True: pass\n"
    "        for _ in range(5):",
)
LONG = CORRECT.replace("range(5)", "range(500)")


class Clock:
    """Replaces `time`: each call takes a while."""

    def __init__(self, step_s: float) -> None:
        self._ticks = itertools.count()
        self._step = step_s
        self.now = 0.0

    def time(self) -> float:
        """The time of this call, in seconds."""
        self.now = next(self._ticks) * self._step
        return self.now


@pytest.mark.parametrize("more", [[], ["--jobs", "1"]], ids=" ".join)
def test_a_budget_is_for_all_scenarios_of_a_file(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
) -> None:
    """Each gets an equal share of what is left; each got the whole."""
    clock = Clock(0.05)
    monkeypatch.setattr(stopping, "time", clock)
    monkeypatch.setattr(workers, "time", clock)
    path = written(tmp_path, LONG + LONG.replace("class Correct", "class Second"))
    assert main(["explore", path, "--budget", "2s", *more]) == 0
    assert 1.9 < clock.now < 2.6, "one look more or less, not a share"
    assert capsys.readouterr().out.count("nothing found in ") == 2


def test_a_budget_is_kept_by_all_that_a_search_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1 s for slow steps, random walks and the minimiser took 22 s."""
    path = written(tmp_path, COUNTER)
    said = {
        "nothing found in ": 0,
        "  not executed a second time, and not minimised: the time was up\n": 0,
        "  perhaps not minimal: the limit was reached\n": 0,
        "  the time was up; the replay shows the schedule\n": 0,
        "   4   write value\n": 0,
    }
    for tenths in range(1, 60):
        clock = Clock(0.02)
        monkeypatch.setattr(stopping, "time", clock)
        main(["explore", path, "--budget", f"{tenths / 10}s"])
        assert clock.now < 1.1 * tenths / 10 + 0.1
        story = capsys.readouterr().out
        for text in said:
            said[text] += text in story
        if "not executed a second time" in story:
            assert "replay shows" not in story
            assert "write value" not in story
    assert all(said.values()), said


@pytest.mark.parametrize("limit", [{"left": 2.0}, {"end": 2.0}], ids=str)
def test_a_worker_stops_within_an_execution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, float]
) -> None:
    """It looked at the time only between executions, however long they were."""
    (scenario,) = find(written(tmp_path, LONG))
    monkeypatch.setattr(workers, "find", lambda *_target, **_how: [scenario])
    clock = Clock(0.01)
    monkeypatch.setattr(stopping, "time", clock)
    spec = workers.SearchSpec(f"{limit}.py", "Correct", None)
    (part,) = workers.work_on(spec, [Unit("dfs")], 3600.0, **limit)
    assert (part.late, part.executions) == (True, 0)
    assert clock.now < 2.1


def test_processes_get_the_deadline_as_a_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units may wait for a process, so seconds from their start would be too late."""
    processes = jobs.Processes(1)
    submitted: list[tuple[object, ...]] = []
    monkeypatch.setattr(processes._pool, "submit", lambda *args: submitted.append(args))
    monkeypatch.setattr(jobs, "time", Clock(1.0))
    spec = workers.SearchSpec("a.py", "Correct", None)
    for left in (5.0, None, 7.0):
        processes.submit(spec, [Unit("dfs")], 0.05, left)
    processes.close()
    assert [args[-2:] for args in submitted] == [(None, 5.0), (None, None), (None, 8.0)]


@contextmanager
def exploring(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """`softsgx explore` with a group of processes of its own, none of which is left at the end."""
    command = [sys.executable, "-m", "softsgx.cli.main", "explore", *argv]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
            until(lambda: not members(process.pid), "the end of the last process")
        finally:
            for pid in members(process.pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("more", [[], ["--jobs", "2"], ["--cluster", "--jobs", "2"]], ids=" ".join)
def test_an_interrupt_shows_what_was_done_and_leaves_nothing(
    tmp_path: Path, more: list[str]
) -> None:
    """As from a terminal, where Ctrl-C goes to the whole group of processes."""
    path = written(tmp_path, CORRECT.replace("range(5)", "range(50)"))
    with exploring(path, "--progress", *more) as process:
        assert process.stderr is not None
        assert "executions" in process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert out.startswith("Correct: nothing found in ")
    assert err.splitlines()[-1] == "softsgx: explore: interrupted"
    assert not [line for line in err.splitlines() if not line.startswith(("Correct: ", "softsgx:"))]


def test_the_first_interrupt_is_noted_and_the_second_is_not_to_be_held_back() -> None:
    """After the search the handler is the one from before."""
    before = signal.getsignal(signal.SIGINT)
    with stopping.Stopping() as pressed:
        assert not pressed()
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert pressed()
        assert pressed.interrupted
        assert pressed.share(2).interrupted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("number", [1, 2])
def test_an_interrupt_while_workers_begin_is_ignored_by_them(tmp_path: Path, number: int) -> None:
    """A worker that did not ignore it yet printed a traceback."""
    path = written(tmp_path, CORRECT.replace("range(5)", "range(50)"))
    with exploring(path, "--jobs", "2") as process:
        until(lambda: len(members(process.pid)) > number, "a worker")
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert out.startswith("Correct: nothing found in ")
    assert err == "softsgx: explore: interrupted\n"


def test_workers_that_hang_die_with_their_parent(tmp_path: Path) -> None:
    """A parent that is killed cannot end them; one that hung ran for ever."""
    path = written(tmp_path, HANGING)
    with exploring(path, "--jobs", "2") as process:
        until(lambda: list(tmp_path.glob("hangs.*")), "a worker that hangs")
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [1, 2])
def test_workers_that_begin_die_with_their_parent(tmp_path: Path, number: int) -> None:
    """Before they have asked the kernel to tell them of its death, they must ask whether it lives:
    on a loaded machine a worker went on for ever, waiting for work."""
    path = written(tmp_path, HANGING)
    with exploring(path, "--jobs", "2") as process:
        until(lambda: len(members(process.pid)) > number, "a worker")
        process.kill()
        process.wait()


def test_a_worker_that_hangs_does_not_keep_the_rest(tmp_path: Path) -> None:
    with exploring(written(tmp_path, HANGING), "--jobs", "2", "--budget", "1s") as process:
        out, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert out.startswith("Correct: nothing found in 0 executions")


@pytest.mark.parametrize("size", [1, 4, 20])
def test_schedules_are_executed_again_as_often_whatever_the_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Once more at executions 1, 2, 4, 8, 16 of a worker, not of each unit."""
    (scenario,) = find(written(tmp_path, CORRECT))
    started, start = [], scenario.start

    def counting(execution: Execution) -> None:
        started.append(execution)
        start(execution)

    monkeypatch.setattr(scenario, "start", counting)
    monkeypatch.setattr(workers, "find", lambda *_target, **_how: [scenario])
    spec = workers.SearchSpec(f"{size}.py", "Correct", None)
    units = [Unit("random", seed=1, first=first, number=size) for first in range(0, 20, size)]
    parts = workers.work_on(spec, units, 3600.0)
    assert sum(part.executions for part in parts) == 20
    assert len(started) == 20 + 5


def members(group: int) -> list[int]:
    """The processes of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] != "Z":
                    found.append(int(entry.name))
    return found
