"""Historical faults of the driver are found, and soon, by checkers that do not know them."""

from __future__ import annotations

import pytest

from softsgx.explore import Kind, Plan, explore, record
from softsgx.explore.record import replay_difference
from softsgx.system.scenarios.catalogue import KNOWN_RACES, KnownRace

each_race = pytest.mark.parametrize("race", KNOWN_RACES, ids=lambda race: race.number)

# By race: the rule that it breaks, and limits of executions and of steps.
EXPECTED = {
    "K1": ("spurious fault", 20, 15),
    "K2": ("stale mapping", 20, 30),
    "K3": ("mapped while its type changes", 20, 35),
    "K5": ("kernel bug", 20, 65),
    "K6": ("spurious fault", 20, 20),
    "K9": ("lost page", 20, 25),
    "K10": ("lost page", 60, 25),
    "L4": ("caller misinformed", 20, 40),
    "L7": ("spurious fault", 40, 25),
}


@each_race
def test_race_is_found_and_shrunk(race: KnownRace) -> None:
    rule, executions, steps = EXPECTED[race.number]
    scenario = race.alone(True)
    outcome = explore(scenario, Plan(preemptions=2))
    failure = outcome.failure
    assert failure is not None
    assert (failure.kind, failure.rule) == (Kind.VIOLATION, rule)
    assert outcome.found_after <= executions
    assert failure.steps <= steps
    assert failure.preemptions <= 1
    # The schedule shows it again, and also in a freshly built machine.
    assert replay_difference(scenario, failure.choices) == ("", "")
    assert failure.same_as(record(race.alone(True), failure.choices).executed.failure)


@each_race
def test_nothing_is_found_with_the_fix(race: KnownRace) -> None:
    outcome = explore(race.alone(False), Plan(preemptions=1, executions=300))
    assert outcome.failure is None
    assert outcome.bound == 1 or outcome.executions == 300
    assert outcome.executions > 10
