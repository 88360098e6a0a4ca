"""The races of the kernel's own code: found in it, and gone from a copy that has a fix of ours."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from softsgx import Machine
from softsgx.explore import Outcome, Plan, explore
from softsgx.sim import Unmodelled
from softsgx.system.scenarios.catalogue import SCENARIOS
from softsgx.system.scenarios.first_touch import FirstTouch
from softsgx.system.scenarios.remove_touch import RemoveTouch
from softsgx.system.scenarios.restrict_report import RestrictReport
from softsgx.system.scenarios.scenario import MachineScenario
from softsgx.system.scenarios.tcs_touch import TcsTouch
from softsgx.system.scenarios.va_shortage import VaShortage
from tests.cdriver import sources
from tests.cdriver.patches import K1_FIXED, patched_object
from tools.documents import all_blocks

RACES: dict[str, tuple[type[MachineScenario], str]] = {
    "K1": (FirstTouch, "spurious fault"),
    "K2": (RemoveTouch, "stale mapping"),
    "K3": (TcsTouch, "mapped while its type changes"),
    "L4": (RestrictReport, "caller misinformed"),
}


def rule(outcome: Outcome) -> str:
    """What was found."""
    assert outcome.failure is not None, f"nothing in {outcome.executions} executions"
    return outcome.failure.rule


@pytest.mark.parametrize("version", sources.VERSIONS)
@pytest.mark.parametrize("race", RACES)
def test_a_race_is_found_in_the_c_code(
    race: str, version: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind, expected = RACES[race]
    driver = sources.driver_object(version, tmp_path_factory)
    assert rule(explore(kind(version).on(driver), Plan(executions=50))) == expected


def test_an_execution_is_repeated_exactly(tmp_path_factory: pytest.TempPathFactory) -> None:
    driver = sources.driver_object("6.12", tmp_path_factory)
    first, second = (explore(FirstTouch().on(driver)) for _ in range(2))
    assert first.failure is not None
    assert first.failure == second.failure
    assert first.executions == second.executions


def test_a_patch_that_fixes_a_race_makes_it_go_away(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tree = sources.kernel_or_skip("6.12")
    place = tmp_path_factory.mktemp("fixed") / "linux"
    outcome = explore(FirstTouch().on(patched_object(tree, place, K1_FIXED)), Plan(executions=300))
    assert outcome.failure is None


@pytest.mark.parametrize("kind", [kind for kind in SCENARIOS if kind is not VaShortage])
def test_every_shipped_scenario_runs_on_the_c_code(
    kind: type[MachineScenario], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A few executions: what is found is found in ours as well."""
    driver = sources.driver_object("6.12", tmp_path_factory)
    found = explore(kind().on(driver), Plan(executions=4)).failure
    ours = explore(kind(), Plan(executions=4)).failure
    assert found is None or (ours is not None and found.rule == ours.rule)


def test_the_example_of_the_document(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copyfile(sources.driver_object("6.12", tmp_path_factory), tmp_path / "sgx.drv")
    monkeypatch.chdir(tmp_path)
    (block,) = (b for b in all_blocks() if b.path == "docs/driver.md" and "Machine" in b.text)
    space: dict[str, Any] = {}
    exec(block.text.removeprefix("```python\n").removesuffix("```"), space)
    assert rule(space["outcome"]) == "spurious fault"


class Own(FirstTouch):
    """Makes its machine itself, as if there were no driver object."""

    def machine(self) -> Machine:
        return Machine(cpus=self.cpus, epc=self.epc)


def test_a_machine_of_its_own_without_the_object_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    scenario = Own().on(sources.driver_object("6.12", tmp_path_factory))
    with pytest.raises(Unmodelled, match=r"Own.*: its machine is made without the driver object"):
        _ = scenario.scene


def test_a_scenario_that_sets_watermarks_does_not_run_on_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the watermarks of a driver object are constants"):
        VaShortage().on(tmp_path / "sgx.drv")
