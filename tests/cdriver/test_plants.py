"""Bugs planted in Linux's driver are found; all of them: make driver-plants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from softsgx.explore import Plan, explore
from softsgx.system.scenarios.pcmd_sharing import PcmdSharing
from softsgx.system.scenarios.scenario import MachineScenario
from softsgx.system.scenarios.secs_eviction import SecsEviction
from tests.cdriver import sources
from tests.cdriver.patches import UNFIXED, patched, patched_object
from tests.cdriver.plants import PLANTS, explored, told

FOUND: dict[str, tuple[Callable[[Path], str], str]] = {
    "RESTRICT does not ETRACK": (explored, "spurious abort"),
    "the reclaimer leaves PTEs": (explored, "stale mapping"),
    "an area may have any right": (told, "rights_of_areas: told otherwise"),
}


@pytest.mark.parametrize("plant", FOUND)
def test_a_plant_is_found(plant: str, tmp_path: Path) -> None:
    tree = sources.kernel_or_skip("6.12")
    find, expected = FOUND[plant]
    assert expected in find(patched_object(tree, tmp_path / "linux", PLANTS[plant]))


def test_every_plant_has_its_place(tmp_path: Path) -> None:
    """In Linux 6.12: otherwise a patch would find nothing to change."""

    tree = sources.kernel_or_skip("6.12")
    for number, patch in enumerate(PLANTS.values()):
        patched(tree, tmp_path / str(number), patch)
    assert len(PLANTS) >= 10


FOUND_AGAIN: dict[str, tuple[type[MachineScenario], str]] = {
    "K5": (SecsEviction, "kernel bug"),
    "K9": (PcmdSharing, "lost page"),
    "K10": (PcmdSharing, "lost page"),
}


@pytest.mark.parametrize("race", FOUND_AGAIN)
def test_a_race_comes_back_without_its_fix(race: str, tmp_path: Path) -> None:
    """In Linux 6.12 it is fixed. K11 is no race: tests/differential/plants.py."""

    tree = sources.kernel_or_skip("6.12")
    scenario, rule = FOUND_AGAIN[race]
    driver = patched_object(tree, tmp_path / "linux", *UNFIXED[race])
    failure = explore(scenario().on(driver), Plan(executions=60)).failure
    assert failure is not None
    assert failure.rule == rule
