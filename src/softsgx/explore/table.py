"""A schedule as a table: one column per task, one row per step, the state beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from softsgx.explore.record import record
from softsgx.explore.scenario import Scenario
from softsgx.sim import Choice

WIDTH_MAX: Final = 44
_NUMBER: Final = 4


def table(scenario: Scenario, choices: Sequence[Choice]) -> str:
    """Execute a schedule and print it.

    A task has a column if it takes a step; "*" marks a step that preempts another task. The state
    is what it is after the step, and is left out where it does not change.
    """
    recorder = record(scenario, choices, states=True).recorder
    steps = recorder.steps
    columns: dict[int, int] = {}
    for step in steps:
        cell = len(step.words) + 2
        columns[step.task] = max(columns.get(step.task, 0), min(cell, WIDTH_MAX), len(step.name))
    names = {step.task: step.name for step in steps}
    order = sorted(columns)
    head = "  ".join(names[index][: columns[index]].ljust(columns[index]) for index in order)
    lines = [f"{'':{_NUMBER}}  {head}  {recorder.states[0] if recorder.states else ''}"]
    known = recorder.states[0] if recorder.states else ""
    for number, step in enumerate(steps, 1):
        state = recorder.states[number]
        mark = "*" if step.preempts else " "
        cells = [
            f"{mark}{step.words}"[:width].ljust(width) if index == step.task else " " * width
            for index, width in ((index, columns[index]) for index in order)
        ]
        shown = state if state != known else ""
        known = state
        lines.append(f"{number:>{_NUMBER}}  {'  '.join(cells)}  {shown}".rstrip())
    return "\n".join(line.rstrip() for line in lines) + "\n"
