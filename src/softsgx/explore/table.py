"""A schedule as a table: a column for each task, a row for each step, the state on the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from softsgx.explore.limits import Deadline, no_deadline
from softsgx.explore.record import record
from softsgx.explore.scenario import Scenario
from softsgx.sim import Choice

WIDTH_MAX: Final = 44
_NUMBER: Final = 4


def table(scenario: Scenario, choices: Sequence[Choice], deadline: Deadline = no_deadline) -> str:
    """Execute a schedule and format it; LimitReached at the deadline.

    A task has a column if it takes a step; "*" marks a step that preempts another task. Draws are
    below their step. The state is the one after the step; it is omitted if it has not changed.
    """
    recorder = record(scenario, choices, states=True, deadline=deadline).recorder
    steps = recorder.steps
    # Tasks of one name, such as the interrupts of one processor, share a column.
    columns: dict[str, int] = {}
    for step in steps:
        cell = max(len(text) for text in (step.text, *step.drawn)) + 2
        columns[step.name] = max(columns.get(step.name, 0), min(cell, WIDTH_MAX), len(step.name))
    known = recorder.states[0] if recorder.states else ""
    head = "  ".join(name.ljust(width) for name, width in columns.items())
    lines = [f"{'':{_NUMBER}}  {head}  {known}"]
    lines += [f"{'':{_NUMBER}}  drawn: {text}" for text in recorder.drawn]
    for number, step in enumerate(steps, 1):
        state = recorder.states[number]
        mark = "*" if step.preempts else " "
        shown = state if state != known else ""
        known = state
        lines.append(f"{number:>{_NUMBER}}  {_row(columns, step.name, mark + step.text)}  {shown}")
        lines += [f"{'':{_NUMBER}}  {_row(columns, step.name, f' [{d}]')}" for d in step.drawn]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _row(columns: dict[str, int], name: str, text: str) -> str:
    cells = [
        text[:width].ljust(width) if name == column else " " * width
        for column, width in columns.items()
    ]
    return "  ".join(cells)
