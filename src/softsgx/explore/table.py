"""A schedule as a table: a column for each task, a row for each step, the state on the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from softsgx.explore.limits import Deadline, no_deadline
from softsgx.explore.record import INTERRUPT, Recording, record

if TYPE_CHECKING:
    from softsgx.explore.record import Step
    from softsgx.explore.scenario import Scenario
    from softsgx.explore.watch import Moment
    from softsgx.sim import Choice

WIDTH_MAX: Final = 48
_NUMBER: Final = 4
_BELOW: Final = " " * _NUMBER
AT: Final = "at "
"""Before the place in code at which a step begins."""
OUTCOME: Final = "= "
"""Before what a step led to."""


def table(scenario: Scenario, choices: Sequence[Choice], deadline: Deadline = no_deadline) -> str:
    """Execute a schedule and format it, as `formatted`. LimitReached at the deadline."""
    return formatted(record(scenario, choices, watched=True, deadline=deadline))


def formatted(recording: Recording) -> str:
    """An execution that was watched, as a table.

    A task has a column if it takes a step; "*" marks a step that preempts another task, and a line
    above it says which, where it is, and what locks it holds. Below a step are its place in code,
    its draws and its outcomes. The state
    is the one after the step; it is omitted if it has not changed. The last lines are the failure
    and the locks that are held then.
    """
    recorder = recording.recorder
    assert recorder.watch is not None, "an execution that was not watched"
    steps, moments = recorder.steps, recorder.watch.moments
    # Tasks of one name, such as the interrupts of one processor, share a column.
    columns: dict[str, int] = {}
    for step, moment in zip(steps, moments[1:], strict=True):
        texts = (
            step.text,
            AT + step.place,
            *step.drawn,
            *(OUTCOME + text for text in moment.outcomes),
        )
        cell = max(len(text) for text in texts) + 2
        columns[step.name] = max(columns.get(step.name, 0), min(cell, WIDTH_MAX), len(step.name))
    known = moments[0].text if moments else ""
    head = "  ".join(name.ljust(width) for name, width in columns.items())
    lines = [f"{_BELOW}  {head}  {known}"]
    lines += [f"{_BELOW}  drawn: {text}" for text in recorder.drawn]
    for number, step in enumerate(steps, 1):
        before, moment = moments[number - 1 : number + 1]
        if step.preempted:
            lines.append(f"{_BELOW}  -- {preemption_text(step, before)}")
        shown = moment.text if moment.text != known else ""
        known = moment.text
        mark = "*" if step.preempted else " "
        lines.append(f"{number:>{_NUMBER}}  {_row(columns, step.name, mark + step.text)}  {shown}")
        if step.place:
            lines.append(f"{_BELOW}  {_row(columns, step.name, f' {AT}{step.place}')}")
        lines += [f"{_BELOW}  {_row(columns, step.name, f' [{text}]')}" for text in step.drawn]
        lines += [
            f"{_BELOW}  {_row(columns, step.name, f' {OUTCOME}{text}')}" for text in moment.outcomes
        ]
    failure = recording.failure
    if failure is not None:
        lines += [f"{_BELOW}  ! {line}" for line in failure.headline.splitlines()]
        if moments and (held := held_text(moments[-1].held)):
            lines.append(f"{_BELOW}    then {held}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def preemption_text(step: Step, before: Moment) -> str:
    """What a step preempts, and the locks that are held by what it preempts."""
    if step.preempted == INTERRUPT:
        return f"{INTERRUPT} waits"
    locks = before.held.get(step.preempted, ())
    holding = f", holding {', '.join(locks)}" if locks else ""
    at = f" at {step.left_at}" if step.left_at else ""
    return f"{step.preempted} is preempted{at}{holding}"


def held_text(held: Mapping[str, Sequence[str]]) -> str:
    """Who holds which locks; "" if nobody holds one."""
    return "; ".join(f"{name} holds {', '.join(locks)}" for name, locks in held.items())


def _row(columns: Mapping[str, int], name: str, text: str) -> str:
    cells = [
        text[:width].ljust(width) if name == column else " " * width
        for column, width in columns.items()
    ]
    return "  ".join(cells)
