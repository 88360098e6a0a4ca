"""A small part of the campaign; `make fuzz-explore` is the long one."""

from __future__ import annotations

from math import comb

import pytest

from softsgx.explore.strategies import Bounded, Dpor
from softsgx.sim import Rng
from tests.explore.brute import DEADLOCK, ENDED, LIVELOCK, endings
from tests.explore.operations import OPERATIONS, Ops
from tests.explore.oracle import Campaign, machine, main, program
from tests.explore.programs import Program, Run, any_program

PROGRAMS = 1_000
MACHINES = 8


@pytest.mark.parametrize("block", range(10))
def test_every_strategy_is_right_about_random_programs(block: int) -> None:
    campaign = Campaign()
    for number in range(block * PROGRAMS, (block + 1) * PROGRAMS):
        campaign.add(f"program {number}", program(1, number))
    assert not campaign.wrong, "\n".join(campaign.wrong)
    counts = campaign.counts
    assert counts["compared"] > 0.9 * PROGRAMS
    assert min(counts[how] for how in (ENDED, DEADLOCK, LIVELOCK)) > 20, counts


@pytest.mark.parametrize("block", range(4))
def test_every_strategy_is_right_about_random_machines(block: int) -> None:
    campaign = Campaign()
    for number in range(block * MACHINES, (block + 1) * MACHINES):
        campaign.add(f"machine {number}", machine(1, number))
    assert not campaign.wrong, "\n".join(campaign.wrong)
    assert campaign.counts["compared"] > 1


# The oracle itself


def test_brute_force_counts_what_can_be_counted() -> None:
    for a, b in ((1, 1), (2, 3), (4, 4)):
        found = endings(Run(Program(((("write", 0),) * a, (("write", 1),) * b))), 1_000)
        assert found is not None
        assert len({each.choices for each in found}) == len(found) == comb(a + b, a)
        assert sum(each.preemptions == 0 for each in found) == 2
        assert {each.how for each in found} == {ENDED}
        assert len({each.state for each in found}) == 1


@pytest.mark.parametrize(
    ("ops", "hows"),
    [
        ((("lock", 0), ("lock", 1)), {ENDED}),
        ((("wait", 0),), {DEADLOCK}),
        ((("retry", 0),), {LIVELOCK}),
        ((("lock twice", 0), ("lock twice", 0)), {"AssertionError "}),
        ((("write", 0), ("violate", 0)), {ENDED, "Violation two"}),
    ],
)
def test_brute_force_knows_how_a_program_ends(ops: Ops, hows: set[str]) -> None:
    found = endings(Run(Program((ops, ops))), 1_000)
    assert found is not None
    assert {each.how for each in found} == hows


def test_the_programs_have_every_operation() -> None:
    drawn = [any_program(Rng(number)) for number in range(2_000)]
    met = {op for each in drawn for ops in (*each.tasks, each.child, each.handler) for op, _ in ops}
    assert met == set(OPERATIONS)


def wrong_of_the_first(count: int) -> str:
    campaign = Campaign()
    for number in range(count):
        campaign.add(str(number), program(1, number))
    return "\n".join(campaign.wrong)


def test_a_reduction_that_misses_races_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dpor, "_reverse", lambda *_: True)
    assert "exhaustive: has not met all ends" in wrong_of_the_first(100)


def test_a_search_that_leaves_out_schedules_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    push = Bounded._push
    monkeypatch.setattr(Bounded, "_push", lambda self, first, rest: push(self, first, rest[:1]))
    wrong = wrong_of_the_first(100)
    assert "dfs up to None: other schedules" in wrong


def test_a_bound_that_forgets_what_it_cut_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounded, "exhausted", property(lambda self: self._over))
    assert "exhausted or not" in wrong_of_the_first(100)


def test_the_campaign_says_how_to_bring_a_program_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Bounded, "exhausted", property(lambda self: self._over))
    monkeypatch.setattr("sys.argv", ["oracle", "--seed", "2", "--first", "5", "--examples", "60"])
    assert main() == 1
    text = capsys.readouterr().out
    line = text.splitlines()[0]
    assert line.startswith("--seed 2 --first ")
    options, _ = line.split(": ", 1)
    monkeypatch.setattr("sys.argv", ["oracle", *options.split()])
    assert main() == 1
    assert capsys.readouterr().out.splitlines()[0] == line


def test_a_task_goes_from_one_retry_to_another_and_lets_others_look_again() -> None:
    """`states` counted every retry as one in vain."""
    judge = program(1, 8719, states=True)
    assert judge is not None
    assert not judge.wrong


@pytest.mark.parametrize("number", [331, 5218])
def test_what_the_campaign_itself_was_wrong_about(number: int) -> None:
    """It allowed deepening 2,000 executions for 498 schedules and a dozen bounds; and brute force
    did not see that a task had gone on within `nest`."""
    judge = program(16, number, 600)
    assert judge is not None
    assert not judge.wrong
