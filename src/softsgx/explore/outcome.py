"""The result of a search, and which part of the schedules it decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from softsgx.explore.failure import Failure, Kind, preemptions_text
from softsgx.explore.orders import Orders
from softsgx.explore.plan import BOUNDED, DFS, EXHAUSTIVE, SAMPLED, STATES
from softsgx.explore.scenario import Granularity, Scenario


class LeftOut(StrEnum):
    """Why there may be executions that a search has not decided, in words for the result."""

    FAILURE = "the search ended at the failure"
    STEP_BOUND = "an execution was cut at max_steps"
    TIME = "the time was up"
    EXECUTIONS = "the limit of executions was reached"
    SAMPLED = "schedules and draws were sampled"
    PREEMPTIONS = "schedules with more preemptions were left out"
    GRANULARITY = "other tasks can get in between these points, too"


@dataclass(slots=True)
class Outcome:
    """The result of an exploration.

    executions   schedules that were searched
    redundant    those of them that partial-order reduction cut as equivalent to others
    points       steps of all executions; `longest`: of the longest one
    exhausted    the strategy has nothing left to execute
    left_out     why the search is not complete, besides what `reasons` derives
    bound        all schedules with at most this many preemptions were executed; -1: none yet
    stopped      a limit ended the search
    granularity  where the scenario has its points
    states       distinct states that were decided, by a strategy that counts them, and `depth`,
                 the most steps to one of them; 0 by others
    found_after  executions until the failure, without minimising
    orders       of conflicting steps that were seen, by SAMPLED strategies
    walks        random walks that estimated the number of schedules; they are no executions
    schedules    number of all schedules, or 0: exact if STATES is complete, else an estimate
    fraction     share of the tree of the last bound that was covered
    confirmed    the failure was executed a second time; `minimised`: until nothing was smaller
    """

    scenario: str
    strategy: str
    executions: int = 0
    points: int = 0
    redundant: int = 0
    exhausted: bool = False
    bound: int = -1
    fraction: float = 0.0
    schedules: float = 0.0
    found_after: int = 0
    failure: Failure | None = None
    stopped: bool = field(default=False, repr=False)
    longest: int = 0
    states: int = 0
    depth: int = 0
    walks: int = 0
    confirmed: bool = True
    minimised: bool = True
    left_out: set[LeftOut] = field(default_factory=set)
    granularity: Granularity = Scenario.granularity
    orders: Orders | None = field(default=None, repr=False)

    @property
    def reasons(self) -> tuple[LeftOut, ...]:
        """Everything that keeps the search from being complete, in the order of LeftOut."""
        found = set(self.left_out)
        if self.failure is not None:
            bound = self.failure.kind is Kind.STEP_BOUND
            found.add(LeftOut.STEP_BOUND if bound else LeftOut.FAILURE)
        if self.strategy in SAMPLED:
            found.add(LeftOut.SAMPLED)
        if self.stopped and not found & {LeftOut.TIME, LeftOut.EXECUTIONS}:
            found.add(LeftOut.TIME)
        if not self.granularity.whole:
            found.add(LeftOut.GRANULARITY)
        return tuple([reason for reason in LeftOut if reason in found])

    @property
    def complete(self) -> bool:
        """Whether every execution was decided: nothing is left, and nothing was left out."""
        return self.exhausted and not self.reasons

    @property
    def found_in(self) -> str:
        """What was executed until the failure was found, as text."""
        text = f"{self.found_after} executions"
        return f"{text} and {_walks(self)}" if self.walks else text

    @property
    def covered(self) -> str:
        """What was decided, at which granularity, and what was not, as text."""
        return coverage(self)


def coverage(outcome: Outcome) -> str:
    """What was decided, at which granularity, and what was not; "complete" if that is nothing."""
    reasons = outcome.reasons
    parts = [_decided(outcome)]
    if outcome.complete:
        return f"complete: {parts[0]}"
    if outcome.stopped and outcome.fraction and outcome.strategy in BOUNDED:
        share = f"{outcome.fraction:.1%}" if outcome.fraction >= 0.001 else "less than 0.1%"
        bound = f"the schedules with up to {preemptions_text(outcome.bound + 1)}"
        parts.append(f"{share} of {'the tree' if outcome.strategy == DFS else bound}")
    if outcome.states:
        parts.append(f"{outcome.states} states so far, at most {outcome.depth} steps deep")
    if outcome.orders is not None and outcome.executions:
        pairs = outcome.orders.pairs
        what = f"pair{'s' * (pairs != 1)} of conflicting steps"
        parts.append(f"{outcome.orders.both} of {pairs} {what} seen in both orders")
    nothing = f"nothing {'else ' if outcome.failure is not None else ''}was decided"
    hidden = {LeftOut.FAILURE, LeftOut.STEP_BOUND}  # the failure itself stands before this text
    parts += [reason for reason in reasons if reason not in hidden]
    if outcome.walks and outcome.schedules > outcome.executions:
        number = f"roughly {outcome.schedules:.1g} schedules with any number of preemptions"
        parts.append(f"{number}, by {_walks(outcome)}")
    return "; ".join(part for part in parts if part) or nothing


def _walks(outcome: Outcome) -> str:
    return f"{outcome.walks} random walk" + "s" * (outcome.walks != 1)


def _decided(outcome: Outcome) -> str:
    """The set of schedules that was decided; "" if there is no such set."""
    if outcome.exhausted and LeftOut.PREEMPTIONS not in outcome.left_out:
        each = "every schedule"
        if outcome.strategy == EXHAUSTIVE:
            each = "one schedule of each equivalence class"
        if outcome.strategy == STATES:
            each = (
                f"every step from each of {outcome.states} states, at most {outcome.depth} steps "
                f"deep, which covers {schedules_text(outcome.schedules)} schedules"
            )
    elif outcome.bound >= 0:
        each = f"every schedule with up to {preemptions_text(outcome.bound)}"
    else:
        return ""
    points = f"{outcome.longest} point" + "s" * (outcome.longest != 1)
    comma = "" if each == "every schedule" else ","
    return f"{each}{comma} of {outcome.granularity.text(points)}"


def schedules_text(number: float) -> str:
    """A number of schedules, as text: exact if it is short."""
    return str(int(number)) if number < 1e6 else f"{number:.1e}"
