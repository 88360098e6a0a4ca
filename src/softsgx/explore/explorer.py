"""Exploring a scenario: strategies, one after the other, until a failure or the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from softsgx.explore.attempt import advance
from softsgx.explore.failure import Failure, Kind
from softsgx.explore.minimise import measured, minimise
from softsgx.explore.record import deterministic
from softsgx.explore.scenario import Scenario
from softsgx.explore.strategies import Bounded, Dpor, Pct, Strategy, Walk
from softsgx.sim import Choice, Rng

WALKS: Final = 64
"""Walks from which the number of schedules is estimated when not all were seen."""

STRATEGIES: Final = ("deepening", "exhaustive", "dfs", "pct", "random")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to explore.

    strategy     one of STRATEGIES
    seed         of everything random
    executions   how many at most
    preemptions  bound of "dfs", highest bound of "deepening"; None: no bound
    depth        of PCT: how many ordering constraints a fault may need
    minimise     make a failing schedule small
    """

    strategy: str = "deepening"
    seed: int = 0
    executions: int = 1_000_000
    preemptions: int | None = None
    depth: int = 3
    minimise: bool = True

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise ValueError(f"strategy {self.strategy!r}: known are {known}")


@dataclass(slots=True)
class Outcome:
    """What an exploration came to.

    complete     nothing is left: every schedule, or one of each equivalence class, was executed
    bound        all schedules with at most so many preemptions were executed; -1: none is sure
    redundant    executions among them that partial-order reduction cut as equivalent to others
    found_after  executions until the failure, minimising not included
    schedules    estimated number of all schedules, 0 if it was not needed or not estimated; the
                 walks for it are not counted among the executions
    fraction     part of the tree of the last bound that was covered
    """

    scenario: str
    strategy: str
    executions: int = 0
    points: int = 0
    redundant: int = 0
    complete: bool = False
    bound: int = -1
    fraction: float = 0.0
    schedules: float = 0.0
    found_after: int = 0
    failure: Failure | None = None
    stopped: bool = field(default=False, repr=False)

    @property
    def covered(self) -> str:
        """What was covered and what was not, in words."""
        return coverage(self)


Deadline = Callable[[], bool]
Progress = Callable[[Outcome], None]


def never() -> bool:
    """The deadline that is always in the future."""
    return False


def explore(
    scenario: Scenario,
    plan: Plan | None = None,
    *,
    deadline: Deadline = never,
    progress: Progress | None = None,
) -> Outcome:
    """Search a scenario for a failure.

    `deadline` says whether the time is over; `progress` is called after each execution.
    """
    plan = plan or Plan()
    outcome = Outcome(scenario.name, plan.strategy)
    for bound, strategy in strategies(scenario, plan):
        drive(scenario, strategy, outcome, plan.executions, deadline, progress)
        outcome.fraction = strategy.fraction
        if outcome.failure is not None or outcome.stopped:
            break
        if strategy.exhausted:
            outcome.complete = True
            break
        outcome.bound = max(outcome.bound, bound)
    return concluded(scenario, outcome, plan)


def concluded(scenario: Scenario, outcome: Outcome, plan: Plan) -> Outcome:
    """Judge the failure of a search that is over; without one, estimate what is left."""
    if outcome.failure is not None:
        outcome.found_after = outcome.executions
        outcome.failure = judged(scenario, outcome.failure, plan, outcome.bound + 1)
    elif not outcome.complete and plan.strategy != "random":
        walk = Walk(Rng(plan.seed).stream("estimate"), WALKS)
        estimate = Outcome(scenario.name, "random")
        drive(scenario, walk, estimate, WALKS, never, None)
        outcome.schedules = walk.schedules
        if estimate.failure is not None:
            outcome.found_after = outcome.executions + estimate.executions
            outcome.failure = judged(scenario, estimate.failure, plan, outcome.bound + 1)
    return outcome


def strategies(scenario: Scenario, plan: Plan) -> Iterator[tuple[int, Strategy]]:
    """The strategies of a plan, each with the bound that is done when it has ended."""
    rng = Rng(plan.seed)
    if plan.strategy == "exhaustive":
        yield -1, Dpor(scenario)
    elif plan.strategy == "dfs":
        bound = plan.preemptions
        yield (-1 if bound is None else bound), Bounded(bound)
    elif plan.strategy == "random":
        yield -1, Walk(rng, plan.executions)
    elif plan.strategy == "pct":
        yield -1, Pct(rng, plan.executions, plan.depth, steps_of(scenario))
    else:
        bound = 0
        while plan.preemptions is None or bound <= plan.preemptions:
            yield bound, Bounded(bound)
            bound += 1


def steps_of(scenario: Scenario) -> int:
    """The length of the execution without preemption: what PCT takes for the length of all."""
    strategy = Bounded(0)
    strategy.begin()
    found = advance(scenario, strategy)
    return found.execution.steps if found is not None else 1


def drive(
    scenario: Scenario,
    strategy: Strategy,
    outcome: Outcome,
    limit: int,
    deadline: Deadline,
    progress: Progress | None,
) -> None:
    """Execute what a strategy says, until it ends, the limit, the deadline or a failure."""
    while outcome.failure is None:
        if not strategy.begin():
            break
        if outcome.executions >= limit or deadline():
            outcome.stopped = True
            return
        once(scenario, strategy, outcome)
        if progress is not None:
            outcome.fraction = strategy.fraction
            progress(outcome)
    if isinstance(strategy, Dpor):
        outcome.redundant = strategy.redundant


def once(scenario: Scenario, strategy: Strategy, outcome: Outcome, before: int = 0) -> None:
    """One execution of a strategy that has begun it, added to the outcome.

    `before`: executions that do not count there.
    """
    found = advance(scenario, strategy)
    outcome.executions += 1
    if found is None:
        return
    execution = found.execution
    outcome.points += execution.steps
    outcome.failure = found.failure
    # Now and then a schedule is executed twice.
    if found.failure is None and (before + outcome.executions).bit_count() == 1:
        outcome.failure = unsteady(scenario, execution.choices, execution.steps)


def unsteady(scenario: Scenario, choices: list[Choice], steps: int) -> Failure | None:
    """The failure that one schedule leads to two executions; None if it does not."""
    why, where = deterministic(scenario, choices)
    if not why:
        return None
    kind = Kind.NONDETERMINISM
    return Failure(kind, "nondeterminism", why, where or scenario.file, "", tuple(choices), steps)


def judged(scenario: Scenario, failure: Failure, plan: Plan, least: int) -> Failure:
    """A failure that was repeated, counted, and made small."""
    if failure.kind is Kind.NONDETERMINISM or not failure.steps:
        return failure
    again = unsteady(scenario, list(failure.choices), failure.steps)
    if again is not None:
        return again
    if not plan.minimise or failure.kind in (Kind.STEP_BOUND, Kind.SCENARIO):
        return measured(scenario, failure)
    return minimise(scenario, failure, least=max(0, least))


def coverage(outcome: Outcome) -> str:
    """What was covered and what was not."""
    if outcome.complete and outcome.strategy == "exhaustive":
        return "complete: one schedule of each equivalence class was executed"
    if outcome.complete:
        return "complete: every schedule was executed"
    parts = [
        f"complete up to {preemptions(outcome.bound)}" if outcome.bound >= 0 else "not complete"
    ]
    if outcome.stopped and outcome.fraction and outcome.strategy in ("deepening", "dfs"):
        share = f"{outcome.fraction:.1%}" if outcome.fraction >= 0.001 else "less than 0.1%"
        parts.append(f"{share} of the tree of {preemptions(outcome.bound + 1)}")
    if outcome.schedules > outcome.executions:
        parts.append(f"of roughly {outcome.schedules:.1g} schedules in all")
    return ", ".join(parts)


def preemptions(number: int) -> str:
    """So many, in words."""
    return f"{number} preemption" if number == 1 else f"{number} preemptions"
