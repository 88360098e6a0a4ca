"""The explorer: executions and points a second, known races, reduction, two processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from math import comb
from pathlib import Path
from statistics import median
from subprocess import DEVNULL, Popen

from bench.classes import classes
from bench.measure import Figure, per_call, table
from softsgx.cli.scenarios import find
from softsgx.explore import Plan, Scenario, explore
from softsgx.explore.plan import GUIDED, PCT
from softsgx.linux.version import Races
from softsgx.sim import Execution, Point, Steps
from softsgx.system.scenarios.catalogue import KNOWN_RACES, SCENARIOS, KnownRace
from softsgx.system.scenarios.names import scenario_named

ROOT = Path(__file__).parents[1]
_FLAGS = (
    *("-std=gnu11", "-O2", "-nostdlib", "-static-pie", "-fpie", "-fno-stack-protector"),
    *("-fcf-protection=none", "-Wl,-z,max-page-size=4096,-z,noexecstack"),
)
REDUCTION_MAX = 500
SEEDS = range(1000, 1100)
FOUND_MAX = 1000
"""Executions after which a race counts as not found."""
EXECUTIONS = comb(12, 6)
POINTS = 12


class Twelve(Scenario):
    """Two tasks of six points each that are all in conflict: 924 schedules."""

    point: Point = ("write", "x", True)

    def start(self, execution: Execution) -> None:
        """Two tasks."""
        execution.spawn(self.body(), "A")
        execution.spawn(self.body(), "B")

    def body(self) -> Steps[None]:
        """Six points."""
        point = self.point
        for _ in range(6):
            yield point


class Own(Twelve):
    """As many points, half of them on objects that only one task uses."""

    def start(self, execution: Execution) -> None:
        """Two tasks."""
        for name in "AB":
            execution.spawn(self.other(name), name)

    def other(self, name: str) -> Steps[None]:
        """Three points that conflict, three that do not."""
        for _ in range(3):
            yield ("write", "x", True)
            yield ("write", name, True)


def figures() -> list[Figure]:
    """All figures of this module."""
    return [*_speed(), *_reduction(), *_states(), *_races(), *_binary(), _two_processes()]


def _speed() -> list[Figure]:
    found = []
    for strategy, target in (("dfs", 66.7), ("exhaustive", 66.7), ("random", 66.7)):
        plan = Plan(strategy=strategy, executions=EXECUTIONS)

        def run(plan: Plan = plan) -> None:
            outcome = explore(Twelve(), plan)
            assert outcome.failure is None
            assert outcome.executions == EXECUTIONS

        what = f"execution of 2 tasks, 12 points, {strategy}"
        one = per_call(what, run, number=1, rounds=9, divide=EXECUTIONS, target=target)
        rate = 1e6 / one.median
        remark = f"{rate:,.0f} executions/s (target 15,000), {rate * POINTS:,.0f} points/s"
        found.append(one._replace(remark=remark))
    return found


def _reduction() -> list[Figure]:
    found = []
    for scenario in (Twelve(), Own()):
        every = explore(scenario, Plan(strategy="dfs")).executions
        some = explore(scenario, Plan(strategy="exhaustive")).executions
        what = f"executions of {scenario.name} with reduction"
        saved = f"{every - some} of {every} saved"
        found.append(Figure(what, some, some, "", 0, saved))
    return found


def _states() -> list[Figure]:
    """Scenarios decided by their states, beside plain depth first search of the same machine."""
    found = []
    for name in ("ForkShare", "TwoProtects", "LazyStack"):
        scenario = scenario_named(name)
        start = time.perf_counter()
        plainly = explore(scenario, Plan(strategy="dfs", executions=100))
        rate = plainly.executions / (time.perf_counter() - start)
        start = time.perf_counter()
        outcome = explore(scenario, Plan(strategy="states"))
        seconds = time.perf_counter() - start
        assert outcome.complete
        executions = f"{outcome.executions} executions for {outcome.schedules:.1e} schedules"
        remark = (
            f"{outcome.states / seconds:,.0f} of {outcome.states} states/s, {executions}; "
            f"plain depth first {rate:,.0f} executions/s"
        )
        found.append(Figure(f"{name} decided by states", seconds, seconds, "s", 0, remark))
    return found


def _races() -> list[Figure]:
    found = []
    for race in KNOWN_RACES:
        scenario = race.alone(True)
        start = time.perf_counter()
        outcome = explore(scenario, Plan(preemptions=2))
        seconds = time.perf_counter() - start
        assert outcome.failure is not None, race.number
        remark = f"{outcome.found_after} executions, then minimised"
        what = f"race {race.number} found, machine built"
        found.append(Figure(what, seconds, seconds, "s", 5, remark))
    return found


def _binary() -> list[Figure]:
    """The enclave of examples/explored, executing its real code; no figure without gcc."""
    if shutil.which("gcc") is None:
        return []
    source = ROOT / "examples" / "explored"
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(source / "scenarios.py", directory)
        output = str(Path(directory) / "enclave")
        subprocess.run(["gcc", *_FLAGS, "-o", output, str(source / "enclave.c")], check=True)
        once = find(str(Path(directory) / "scenarios.py"))[0]
        explore(once, Plan(executions=1))
        start = time.perf_counter()
        outcome = explore(once, Plan(executions=1000))
        each = (time.perf_counter() - start) / outcome.executions * 1000
    points = outcome.points / outcome.executions
    remark = f"{points:.0f} points each, {points / each * 1000:,.0f} points/s"
    return [Figure("execution of a real enclave, two threads", each, each, "ms", 0, remark)]


def _two_processes() -> Figure:
    """Against two independent searches at once: what two cores are worth at that moment."""
    command = [sys.executable, "-m", "softsgx.cli.main", "explore", "LazyStack", "--preemptions"]
    environment = {**os.environ, "PYTHONPATH": "src"}

    def seconds(*commands: list[str]) -> float:
        start = time.perf_counter()
        running = [Popen(each, env=environment, stdout=DEVNULL) for each in commands]
        assert all(process.wait() == 0 for process in running)
        return time.perf_counter() - start

    seconds([*command, "1"])
    gains, alone, both, divided = [], 0.0, 0.0, 0.0
    for _ in range(2):
        alone = seconds([*command, "3"])
        both = seconds([*command, "3"], [*command, "3"])
        divided = seconds([*command, "3", "--jobs", "2"])
        gains.append(both / 2 / divided)
    remark = f"one search {alone:.1f} s, two at once {both:.1f} s, one by two {divided:.1f} s"
    remark += " (target 0.9)"
    return Figure("two processes, of two cores' worth", median(gains), max(gains), "", 0, remark)


def _saved() -> str:
    """What reduction saves on each shipped scenario."""
    rows = []
    for kind in SCENARIOS:
        scenario = kind(races=dict.fromkeys(Races.__dataclass_fields__, False))
        every, different, complete = classes(scenario, REDUCTION_MAX)
        if complete:
            some = explore(scenario, Plan(strategy="exhaustive")).executions
            text = f"all {every} | {different} | {some}"
        else:
            text = f"the first {every} | {different} |  "
        rows.append(f"| {kind.__name__} | {text} | {1 - different / every:.0%} |")
    head = "| scenario, races repaired | dfs | different | exhaustive | saved |\n"
    return "\n".join([head + "| --- | --- | --- | --- | --- |", *rows, ""])


def until_found(races: Sequence[KnownRace] = KNOWN_RACES) -> str:
    """Executions until PCT and the guided strategy find each race, over SEEDS: median and mean.

    A search that has not found the race in FOUND_MAX executions counts as so many in the mean.
    """
    rows = []
    for race in races:
        scenario = race.alone(True)
        cells = [race.number, race.scenario.__name__]
        for strategy in (PCT, GUIDED):
            found = []
            for seed in SEEDS:
                plan = Plan(strategy=strategy, seed=seed, executions=FOUND_MAX, minimise=False)
                outcome = explore(scenario, plan)
                found.append(outcome.found_after if outcome.failure else FOUND_MAX + 1)
            middle, each = median(found), sum(min(n, FOUND_MAX) for n in found) / len(found)
            cells.append(
                f"more than {FOUND_MAX}" if middle > FOUND_MAX else f"{middle:g} ({each:.1f})"
            )
        rows.append("| " + " | ".join(cells) + " |")
    head = "| race | scenario | `pct` | `guided` |\n| --- | --- | --- | --- |"
    return "\n".join([head, *rows, ""])


def main(show: Callable[[str], None]) -> None:
    """Print the section."""
    show(table("Explorer", figures()))
    show(f"Executions until a race is found, median (mean) of {len(SEEDS)} seeds:\n")
    show(until_found())
    show(
        "Plain depth first, and how many of its executions are not equivalent to an earlier one:\n"
    )
    show(_saved())
