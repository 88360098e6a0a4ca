"""Units of exploration: plain data that any process can execute, and their results.

A unit may be interrupted after any execution. Its result then has what remains, as further units or
as open nodes. However often that happens, all units together have the executions of one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from softsgx.explore.explorer import execute_and_count
from softsgx.explore.failure import Failure
from softsgx.explore.footprint import Footprint
from softsgx.explore.limits import Deadline, LimitReached, no_deadline
from softsgx.explore.orders import Orders, SeenOrders
from softsgx.explore.outcome import Outcome
from softsgx.explore.plan import DFS, EXHAUSTIVE, SAMPLED, STATES, WHOLE
from softsgx.explore.scenario import Scenario
from softsgx.explore.strategies import Bounded, Dpor, Pct, States, Strategy, Walk
from softsgx.explore.strategies.sampled import sampled
from softsgx.explore.strategies.subtree import Draws, OpenNode, Request, Subtree
from softsgx.sim import Choice

Pause = Callable[[], bool]


class Unit(NamedTuple):
    """Executions to be carried out, and the strategy that does so.

    RANDOM, PCT   executions `first` to `first + number - 1` of the seed
    DFS           the tree below a prefix, within a bound; it is `share` of the whole tree
    EXHAUSTIVE    `subtree`
    WHOLE         the whole search, which is not divided: what is interrupted is over

    The unit is interrupted after `most` executions, unless `most` is 0.
    """

    strategy: str
    seed: int = 0
    first: int = 0
    number: int = 0
    depth: int = 0
    steps: int = 0
    bound: int | None = None
    prefix: tuple[Choice, ...] = ()
    share: float = 1.0
    subtree: Subtree = Subtree()
    most: int = 0

    def scheduler(self, scenario: Scenario) -> Strategy:
        """The strategy that executes the unit."""
        if self.strategy in SAMPLED:
            how = {"depth": self.depth, "steps": self.steps}
            return sampled(self.strategy, scenario, self.seed, self.number, self.first, **how)
        if self.strategy == STATES:
            return States(scenario)
        if self.strategy == EXHAUSTIVE:
            return Dpor(scenario, self.subtree)
        assert self.strategy == DFS, f"no units of strategy {self.strategy!r}"
        return Bounded(self.bound, self.prefix, self.share)


class UnitResult(NamedTuple):
    """The result of a unit, up to its first failure or its interruption.

    cut           something was left out: by the bound, or because WHOLE was interrupted
    states, depth, schedules  only for STATES, as in an Outcome
    fraction      share of the tree that was covered
    rest          units that remain, in order (not for EXHAUSTIVE)
    longest       points of the longest execution
    seen          the orders of steps, only for SAMPLED
    late          the deadline cut an execution: what remains is not known, so this counts at the
                  end of the search only

    Only for EXHAUSTIVE:

    requests      races with steps above the subtree
    wants_implicit  the whole search must begin anew
    union         footprint of the first step of the subtree, over all draws that were tried
    first, open   draws before any step, and open nodes; empty if nothing remains
    """

    executions: int = 0
    points: int = 0
    cut: bool = False
    failure: Failure | None = None
    fraction: float = 0.0
    rest: tuple[Unit, ...] = ()
    states: int = 0
    depth: int = 0
    schedules: float = 0.0
    redundant: int = 0
    requests: tuple[Request, ...] = ()
    wants_implicit: bool = False
    union: Footprint = ()
    first: Draws = ()
    open: tuple[OpenNode, ...] = ()
    longest: int = 0
    seen: SeenOrders | None = None
    late: bool = False

    def add_to(self, outcome: Outcome) -> None:
        """Add it to an outcome, except its fraction: the share of the tree depends on its place."""
        outcome.executions += self.executions
        outcome.points += self.points
        outcome.redundant += self.redundant
        outcome.longest = max(outcome.longest, self.longest)
        outcome.states += self.states
        outcome.depth = max(outcome.depth, self.depth)
        outcome.schedules += self.schedules
        if self.seen is not None:
            outcome.orders = outcome.orders or Orders()
            outcome.orders.add(self.seen)
        outcome.failure = self.failure


def work(
    scenario: Scenario,
    unit: Unit,
    pause: Pause = no_deadline,
    before: int = 0,
    deadline: Deadline = no_deadline,
) -> UnitResult:
    """Execute a unit until it ends, fails, or `pause` says to return what remains.

    `before`: earlier executions of this worker. `deadline` may also cut an execution.
    """
    strategy = unit.scheduler(scenario)
    outcome = Outcome(scenario.name, unit.strategy)
    paused = late = False
    while outcome.failure is None:
        if isinstance(strategy, Dpor) and strategy.wants_implicit:
            break
        if outcome.executions and (outcome.executions == unit.most or pause()):
            paused = True
            break
        if not strategy.begin():
            break
        try:
            execute_and_count(scenario, strategy, outcome, before, deadline)
        except LimitReached:
            late = True
            break
    result = UnitResult(
        outcome.executions,
        outcome.points,
        isinstance(strategy, Bounded) and strategy.cut,
        outcome.failure,
        strategy.fraction,
        longest=outcome.longest,
        late=late,
    )
    return _with_the_rest(result, unit, strategy, paused)


def _with_the_rest(result: UnitResult, unit: Unit, strategy: Strategy, paused: bool) -> UnitResult:
    """Add what only one strategy has, and what remains after a pause."""
    done = result.executions
    if isinstance(strategy, Dpor):
        result = result._replace(
            redundant=strategy.redundant,
            requests=tuple(strategy.requests),
            wants_implicit=strategy.wants_implicit,
            union=strategy.union if unit.subtree.task >= 0 and done else (),
        )
        if paused:
            first, opened = strategy.left()
            result = result._replace(first=first, open=tuple(opened))
    elif isinstance(strategy, States):
        result = result._replace(
            cut=paused,
            states=strategy.states,
            depth=strategy.depth,
            schedules=strategy.schedules,
        )
    elif isinstance(strategy, Walk | Pct):
        assert strategy.watch is not None
        result = result._replace(seen=strategy.watch.orders.seen())
        if unit.strategy in WHOLE:
            result = result._replace(cut=paused and done < unit.number)
        elif paused and done < unit.number:
            left = unit._replace(first=unit.first + done, number=unit.number - done, most=0)
            result = result._replace(rest=(left,))
    elif isinstance(strategy, Bounded) and paused:
        rest = [
            unit._replace(prefix=tuple(prefix), share=share, most=0)
            for prefix, share in strategy.alternatives()
        ]
        result = result._replace(rest=tuple(rest))
    return result
