"""What can be wrong with an execution: a closed list, and how exceptions are classified."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from softsgx.explore.scenario import Scenario, Violation
from softsgx.sim import Choice, Deadlock, ScheduleMismatch, StepBound, encode


class Kind(StrEnum):
    """The kinds of failure; FINDINGS says which of them are findings."""

    VIOLATION = "violation"
    DEADLOCK = "deadlock"
    ASSERTION = "assertion in the model"
    SCENARIO = "scenario error"
    STEP_BOUND = "step bound"
    NONDETERMINISM = "nondeterminism"


FINDINGS: Final = frozenset({Kind.VIOLATION, Kind.DEADLOCK, Kind.ASSERTION})
"""The kinds that are findings: under this schedule the tested code did what it must never do.

A failed assertion in that code is a finding: the code reached a state that its author holds
impossible. The other kinds mean that the scenario itself is broken, and say nothing about the
code. Exit codes, JUnit, SARIF and the pytest plugin all use `Failure.finding`.
"""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failing execution.

    rule    what was violated: the rule of a Violation, the class of another exception
    where   "file:line"; for a scenario error the line in the scenario
    task    the task whose step failed; "" if it was the final check
    """

    kind: Kind
    rule: str
    text: str
    where: str
    task: str
    choices: tuple[Choice, ...]
    steps: int
    preemptions: int = 0

    @property
    def finding(self) -> bool:
        """Whether the tested code is at fault; otherwise the scenario is broken."""
        return self.kind in FINDINGS

    @property
    def headline(self) -> str:
        """Kind, rule and text in one line."""
        return f"{self.kind.value.upper()} {self.rule}: {self.text}"

    @property
    def size(self) -> str:
        """Preemptions and steps, as text."""
        return f"{preemptions_text(self.preemptions)}, {self.steps} steps"

    @property
    def schedule(self) -> str:
        """The schedule as a string for `sim.Follow`."""
        return encode(self.choices)

    def same_as(self, other: Failure | None) -> bool:
        """Whether another failure has the same kind and rule, whatever its schedule."""
        return other is not None and (self.kind, self.rule) == (other.kind, other.rule)


def preemptions_text(number: int) -> str:
    """A number of preemptions, as text."""
    return f"{number} preemption" if number == 1 else f"{number} preemptions"


def classify(
    scenario: Scenario, exception: BaseException, choices: Sequence[Choice], steps: int
) -> Failure:
    """The failure that corresponds to an exception that ended an execution."""
    frames, file = traceback.extract_tb(exception.__traceback__), scenario.file
    own = [frame for frame in frames if frame.filename == file]
    innermost = frames[-1] if frames else None
    place = own[-1] if own else _cause(scenario, exception) or innermost
    rule, text = type(exception).__name__, str(exception)
    if isinstance(exception, Violation):
        kind, rule, text = Kind.VIOLATION, exception.rule, exception.text
    elif isinstance(exception, AssertionError) and not (own and own[-1] is innermost):
        kind, place = Kind.ASSERTION, innermost
        rule = f"assertion at {_place(innermost)}"
    elif isinstance(exception, scenario.violations):
        kind = Kind.VIOLATION
    elif isinstance(exception, Deadlock):
        kind, rule = Kind.DEADLOCK, "deadlock"
    elif isinstance(exception, StepBound):
        kind, rule = Kind.STEP_BOUND, "step bound"
    elif isinstance(exception, ScheduleMismatch):
        kind, rule = Kind.NONDETERMINISM, "nondeterminism"
    else:
        kind = Kind.SCENARIO
    where = _place(place)
    if isinstance(exception, StepBound):
        where = innermost_line(scenario, exception.lines)
    return Failure(kind, rule, text, where, _task(exception), tuple(choices), steps)


def innermost_line(scenario: Scenario, lines: Sequence[tuple[str, int]]) -> str:
    """The innermost line of a task, as "file:line"; if possible one in the scenario's file."""
    here = scenario.file
    own = [line for line in lines if line[0] == here]
    return "".join(f"{Path(file).name}:{line}" for file, line in (own or lines)[-1:])


def _cause(scenario: Scenario, exception: BaseException) -> traceback.FrameSummary | None:
    """The line of the scenario whose exception a wrapper turned into another one."""
    cause = exception.__cause__
    frames, file = (
        traceback.extract_tb(cause.__traceback__) if cause is not None else [],
        scenario.file,
    )
    own = [frame for frame in frames if frame.filename == file]
    return own[-1] if own else None


def _place(frame: traceback.FrameSummary | None) -> str:
    return "" if frame is None else f"{Path(frame.filename).name}:{frame.lineno}"


def _task(exception: BaseException) -> str:
    for note in getattr(exception, "__notes__", ()):
        if note.startswith("in task "):
            return str(note).removeprefix("in task ").split(", ")[0]
    return ""
