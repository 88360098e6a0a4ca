"""The kernel's own driver beside ours: per page, per execution of `explore`, per snapshot."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench import linux
from bench.measure import Figure, per_call, table
from softsgx.cdriver import debian
from softsgx.cdriver.build import build
from softsgx.cdriver.driver import CDriver
from softsgx.cdriver.errors import DriverError
from softsgx.cdriver.tree import Tree, find
from softsgx.explore import Plan, explore
from softsgx.system.scenarios.catalogue import KNOWN_RACES
from softsgx.system.scenarios.pcmd_sharing import PcmdSharing
from softsgx.system.scenarios.protect import ProtectAccess
from softsgx.system.scenarios.secs_eviction import SecsEviction

VERSION = "6.12"
EXECUTIONS = 300
# Half of what the driver in Python costs, in the same run.
SHARE = 0.5
# Schedules a second.
RATE = 20_000


def figures(tree: Tree, place: Path) -> list[Figure]:
    """All figures of this module."""
    start = time.perf_counter()
    data = build(tree).data
    took = time.perf_counter() - start
    driver = place / "sgx.drv"
    driver.write_bytes(data)
    return [
        Figure(f"`softsgx driver build` of Linux {tree.release}", took, took, "s", 5, "elapsed"),
        *_per_page(driver),
        *_explored(driver),
        *_decided(driver),
        *_snapshots(driver),
        *_races(driver),
    ]


def _per_page(driver: Path) -> list[Figure]:
    measured: list[Callable[[Path | None], Figure]] = [
        lambda driver: linux.restrict(1_000, driver),
        linux.augment,
        linux.evict,
    ]
    found = []
    for measure in measured:
        ours, theirs = measure(None), measure(driver)
        remark = f"in Python {ours.median:.3g} us"
        target = round(SHARE * ours.median, 1)
        what = f"C: {theirs.what}"
        found.append(theirs._replace(what=what, target=target, remark=remark))
    return found


def _explored(driver: Path) -> list[Figure]:
    found = []
    for name, scenario in (("Python", SecsEviction()), ("C", SecsEviction().on(driver))):
        explore(scenario, Plan(strategy="random", executions=10))
        times = []
        for seed in range(3):
            start = time.process_time()
            explore(scenario, Plan(strategy="random", executions=EXECUTIONS, seed=seed))
            times.append((time.process_time() - start) / EXECUTIONS * 1e6)
        rate = f"{1e6 / median(times):,.0f} a second"
        what = f"{name}: an execution of SecsEviction under `random`"
        target = 1e3 if name == "C" else 0.0
        found.append(Figure(what, median(times), min(times), "us", target, rate))
    return found


def _decided(driver: Path) -> list[Figure]:
    """Schedules that one process decides in a second, by states: more than it executes."""
    found = []
    for scenario in (PcmdSharing(), SecsEviction(), ProtectAccess()):
        start = time.process_time()
        outcome = explore(scenario.on(driver), Plan(strategy="states"))
        took = time.process_time() - start
        assert outcome.complete, scenario.name
        rate = outcome.schedules / took
        what = f"C: {type(scenario).__name__} decided by states"
        remark = f"{outcome.schedules:.2g} schedules, {rate:.2g} a second (target {RATE:,})"
        target = round(outcome.schedules / RATE, 1)
        found.append(Figure(what, took, took, "s", target, remark))
    return found


def _snapshots(driver: Path) -> list[Figure]:
    scenario = SecsEviction().on(driver)
    c_side = scenario.scene.kernel.driver
    assert isinstance(c_side, CDriver)
    arena = c_side.arena
    state = arena.save()
    arena.restore(state)
    size = f"{(len(state.data) + len(state.heap)) >> 10} KiB"
    return [
        per_call("C: save the arena", arena.save, number=300, target=20, remark=size),
        per_call("C: restore it", lambda: arena.restore(state), number=300, target=20),
        per_call("C: its part of a state, for `states`", arena.state_key, number=300),
    ]


def _races(driver: Path) -> list[Figure]:
    found = []
    for race in KNOWN_RACES:
        if race.rule:
            start = time.process_time()
            outcome = explore(race.on(driver), Plan(preemptions=2))
            took = time.process_time() - start
            assert outcome.failure is not None, race.number
            remark = f"after {outcome.found_after} executions"
            found.append(Figure(f"C: {race.number} found", took, took, "s", 1, remark))
    return found


def main(show: Callable[[str], None]) -> None:
    """Print the section."""
    try:
        tree = find(debian.source(VERSION))
    except DriverError as error:
        show(f"## The kernel's own driver\n\nNot measured: {error}.\n")
        return
    with tempfile.TemporaryDirectory() as place:
        show(table("The kernel's own driver", figures(tree, Path(place))))
