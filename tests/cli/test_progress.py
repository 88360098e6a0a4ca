"""The line of progress: what it says, where it is shown, and that its estimates can be used.

Estimates are tried on the times of real runs: no test waits.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import re
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from softsgx.cli import progress
from softsgx.cli.compare import costs
from softsgx.cli.errors import EXIT_INTERRUPTED, EXIT_OK
from softsgx.cli.explore import shipped
from softsgx.cli.explore.search_progress import SearchProgress
from softsgx.cli.explore.whole import search_whole
from softsgx.cli.main import main
from softsgx.cli.progress import Estimate, Line, duration
from softsgx.cli.stopping import Stopping
from softsgx.explore import Outcome, Plan
from softsgx.explore.plan import STATES
from softsgx.explore.unit import work
from softsgx.lab.compare import Cell, run_cell
from softsgx.lab.compare import Plan as Comparing
from softsgx.lab.designs import DESIGNS
from softsgx.lab.measurement import Measurement
from softsgx.lab.prices import PROFILES
from softsgx.lab.runtimes import RUNTIMES
from tests.cli.conftest import FILE, Small

if TYPE_CHECKING:
    from softsgx.cli.workers import Workers

SMALL = "compare --workloads stacks --n 2 --designs ioctl --runtimes gramine --jobs 1".split()
RECORDED = Path(__file__).with_name("recorded_times.json")


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def searching(names: list[str], plan: Plan, clock: Clock, seconds: float | None = None) -> Any:
    """The progress of searches; every text of it is printed as a line."""
    return SearchProgress(Line(True, False, clock), names, plan, Stopping(seconds))


# What the line says


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        (
            "deepening",
            "100 executions, 10/s; all with up to 1; "
            "25.0% of the schedules with up to 2 preemptions; of roughly 4e+02 there, 30 s left",
        ),
        ("dfs", "100 executions, 10/s; 25.0% of the tree; of roughly 4e+02 there, 30 s left"),
        (
            "exhaustive",
            "100 executions, 10/s; 25.0% of the tree as far as it is known; "
            "of at least 4e+02 there, 30 s left",
        ),
        ("random", "100 executions, 10/s; 10.0% of 1000; 90 s left"),
        ("states", "100 executions, 10/s; 7 states so far"),
    ],
)
def test_a_number_is_that_of_the_bound_in_progress(strategy: str, text: str) -> None:
    """The result said 2e7 schedules and the line 1.4e5: those of all bounds and those of one."""
    clock = Clock()
    told = searching(["s"], Plan(strategy=strategy, executions=1000), clock)
    outcome = Outcome("s", strategy, executions=100, fraction=0.25)
    if strategy == "deepening":
        outcome.bound = 1
    if strategy == STATES:
        outcome.states = 7
    assert told.text(outcome, clock() + 10.0) == text


def test_of_several_searches_it_says_when_all_will_be_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    plan = Plan(strategy="random", executions=100)
    told = searching(["a", "b"], plan, clock)
    clock.now += 10
    told(Outcome("a", "random", executions=50))
    clock.now += 10
    told.end()
    told.begin("b")
    clock.now += 10
    told(Outcome("b", "random", executions=50))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("0 of 2 done, 25%, about 30 s left; a: 50 executions, 5/s; ")
    assert second.startswith("1 of 2 done, 75%, about 10 s left; b: 50 executions, 5/s; ")


def test_no_more_time_is_left_than_the_budget() -> None:
    clock = Clock()
    estimate = Estimate(100.0, clock)
    assert estimate.left(0) is None
    assert estimate.text(0) == "0%"
    assert estimate.text(0, most=9) == "0%, about 9 s left"
    clock.now += 10
    assert estimate.left(10) == 90
    assert estimate.left(100) == 0
    assert estimate.text(10) == "10%, about 90 s left"
    assert estimate.text(10, most=60) == "10%, about 60 s left"
    assert [duration(s) for s in (119, 600, 9000)] == ["119 s left", "10 min left", "2.5 h left"]


# Where it is shown


class Terminal:
    """Standard error as a terminal of 40 columns, and what was written to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 25, 40, 0, 0))
        os.set_blocking(self._master, False)
        self._stream = open(slave, "w", encoding="utf-8")  # noqa: SIM115

    def main(self, argv: list[str], run: Callable[[list[str]], int] = main) -> tuple[int, str]:
        """Run a command; its exit code, and what it wrote to the terminal."""
        # In the test itself: capturing sets sys.stderr anew after the fixtures.
        self._monkeypatch.setattr(sys, "stderr", self._stream)
        code = run(argv)
        text = b""
        while True:
            try:
                text += os.read(self._master, 1 << 16)
            except BlockingIOError:
                return code, text.decode()

    def close(self) -> None:
        """Close both ends."""
        self._stream.close()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.delenv("TERM", raising=False)
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    found = Terminal(monkeypatch)
    yield found
    found.close()


def left_on(text: str) -> list[str]:
    """What a terminal shows in the end: a character after a carriage return replaces one."""
    lines = []
    for line in text.split("\n"):
        shown: list[str] = []
        for part in line.split("\r"):
            shown[: len(part)] = part
        lines.append("".join(shown).rstrip())
    return lines


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (SMALL, "3 of 6 runs, 50%, about "),
        (["explore", FILE, "--executions", "9"], "0 of 2 done, 0%; Counter: 1 executions,"),
        (["explore", "--shipped"], "1 of 2 done, 50%, about 0 s left; "),
        (["explore", "--known-races"], "1 of 2 done, "),
    ],
    ids=["compare", "explore", "shipped", "known races"],
)
def test_a_terminal_shows_it_and_is_clear_at_the_end(
    argv: list[str], said: str, small: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = [Small("6.12", None), Small("6.1", None)]
    monkeypatch.setattr(shipped, "all_shipped", lambda linux, order: two)
    _code, shown = terminal.main(argv)
    assert said in shown
    assert left_on(shown) == [""]
    assert max(len(part) for part in shown.split("\r")) < 40, "a full line would be wrapped"
    assert "\x1b" not in shown, "no escape sequence: NO_COLOR needs no case"
    assert terminal.main([*argv, "--no-progress"])[1] == ""
    monkeypatch.setenv("TERM", "dumb")
    assert terminal.main(argv)[1] == ""


def test_results_of_workers_do_not_stand_behind_the_line(terminal: Terminal) -> None:
    """They are printed while other scenarios are searched, and come in any order."""

    late: list[tuple[Future[Any], Any]] = []

    class OneWaits:
        """Workers that are done at once, but with the second scenario when the third begins."""

        size, lost = 1, ()

        def submit(self, spec: Any, units: Any, seconds: float, left: Any = None) -> Any:
            future: Future[Any] = Future()
            late.append((future, [work(Small("6.12", None), units[0])]))
            while late and spec.name != "b":
                done, result = late.pop()
                done.set_result(result)
            return future

    def searched(argv: list[str]) -> int:
        targets = [(name, Small("6.12", None)) for name in "abcd"]
        for name, scenario in targets:
            scenario.name = name
        plan, stopping = Plan(strategy=STATES), Stopping()
        with SearchProgress(Line(True, True, Clock()), list("abcd"), plan, stopping) as told:
            show = lambda done: print("result", file=sys.stderr)  # noqa: E731
            search_whole(targets, plan, cast("Workers", OneWaits()), stopping, [], show, told)
        return 0

    _code, shown = terminal.main([], searched)
    assert "1 of 4 done, 25%, about 0 s left; b" in shown
    assert left_on(shown) == [*["result"] * 4, ""]


def test_json_is_not_disturbed(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = terminal.main([*SMALL, "--json"])
    assert code == EXIT_OK
    assert json.loads(capsys.readouterr().out)["runs"] == {"finished": 6, "wanted": 6}
    assert left_on(shown) == [""]


def test_an_interrupt_clears_the_line_before_it_is_told(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(cells: list[Cell], jobs: int) -> Iterator[Measurement]:
        yield run_cell(cells[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(costs, "_results", interrupted)
    code, shown = terminal.main(SMALL)
    assert code == EXIT_INTERRUPTED
    assert left_on(shown) == ["softsgx: compare: interrupted: 1 of 6 runs", ""]


def test_a_pipe_gets_lines_only_if_they_are_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_LINE_S", 0.0)
    assert main(SMALL) == EXIT_OK
    assert capsys.readouterr().err == ""
    assert main([*SMALL, "--progress"]) == EXIT_OK
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert all(re.match(r"\d of 6 runs, \d+%, about \d+ s left; stacks, 2 ", x) for x in lines)


# Whether the time left is right within a factor of two after 10 %


def spread(seconds: list[float], jobs: int) -> list[tuple[float, int]]:
    """When pieces of work end that `jobs` workers take in their order: (time, number)."""
    free = [0.0] * jobs
    ends = []
    for number, each in enumerate(seconds):
        began = heapq.heappop(free)
        heapq.heappush(free, began + each)
        ends.append((began + each, number))
    return sorted(ends)


def right(line: str, left: float) -> bool:
    """Whether the time that a line tells is right within a factor of two, but for rounding."""
    found = re.search(r"about ([\d.]+) (s|min) left", line)
    assert found is not None, line
    unit = {"s": 1, "min": 60}[found[2]]
    told = float(found[1]) * unit
    return told + unit / 2 >= left / 2 and told - unit / 2 <= left * 2


@pytest.mark.parametrize("jobs", [1, 2, 8])
@pytest.mark.parametrize("which", ["compare, all", "compare, some", "compare, others"])
def test_the_estimate_of_compare(
    which: str, jobs: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_LINE_S", 0.0)
    recorded = json.loads(RECORDED.read_text())[which]
    profiles = tuple(PROFILES.values())
    names, ns = tuple(recorded["workloads"]), tuple(recorded["ns"])
    plan = Comparing(tuple(DESIGNS), tuple(RUNTIMES), names, ns, profiles, 1)
    # The recording is by name, so that another order of the cells is another order of the times.
    by_name = sorted(plan.cells(), key=lambda cell: (cell.combination, cell.profile.name))
    times = dict(zip(map(id_of, by_name), recorded["ms"], strict=True))
    cells = plan.cells()
    ends = spread([times[id_of(cell)] / 1000 for cell in cells], jobs)
    clock = Clock()
    begun, end = clock.now, ends[-1][0]

    def results() -> Iterator[Any]:
        for at, number in ends:
            clock.now = begun + at
            yield Found(cells[number])

    watched = costs._watched(results(), cells, Line(True, False, clock))
    checked = 0
    for (at, _number), _m in zip(ends, watched, strict=True):
        told = capsys.readouterr().err
        if told and 0.1 * end <= at and end - at > 0.03 * end:
            checked += 1
            assert right(told, end - at), f"at {at / end:.0%}: {told}"
    assert checked >= 3


class Found:
    """What is asked of a measurement."""

    def __init__(self, cell: Cell) -> None:
        self.design, self.runtime, self.workload, self.n = cell.combination
        self.profile = cell.profile.name


def id_of(cell: Cell) -> tuple[object, ...]:
    return (*cell.combination, cell.profile.name)


@pytest.mark.parametrize("which", ["known races", "shipped"])
def test_the_estimate_of_many_searches(
    which: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded run lacks its last search, in which other work took most of the machine.

    It took 59 s instead of 20, which no estimate can foresee.
    """
    monkeypatch.setattr(progress, "EVERY_LINE_S", 0.0)
    recorded = json.loads(RECORDED.read_text())[which]
    names = [each["name"] for each in recorded]
    plan = Plan(preemptions=2)
    if which == "shipped":
        plan = Plan(strategy=STATES, executions=20_000)
    clock = Clock()
    begun, end = clock.now, sum(each["seconds"] for each in recorded)
    told = searching(names, plan, clock)
    checked = 0
    for each in recorded:
        told.begin(each["name"])
        at = clock.now
        for tenth in range(10):
            clock.now = at + each["seconds"] * tenth / 10
            done = clock.now - begun
            outcome = Outcome(each["name"], plan.strategy)
            outcome.executions = each["executions"] * tenth // 10
            outcome.states = int(plan.strategy == STATES)
            told(outcome)
            line = capsys.readouterr().err
            if line and 0.1 * end <= done and end - done > 2:
                checked += 1
                assert right(line, end - done), f"at {done / end:.0%}: {line}"
        clock.now = at + each["seconds"]
        told.end()
    assert checked >= 3
