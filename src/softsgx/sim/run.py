"""Driving one body to its end, where only its value matters."""

from __future__ import annotations

from typing import TypeVar

from softsgx.sim.events import Log
from softsgx.sim.execution import MAX_STEPS, Execution
from softsgx.sim.point import Steps
from softsgx.sim.schedulers.run_to_completion import RunToCompletion

T = TypeVar("T")


def run(
    body: Steps[T],
    name: str = "main",
    cpu: int | None = None,
    *,
    max_steps: int = MAX_STEPS,
    log: Log | None = None,
) -> T:
    """Drive one body, and all that it spawns, to the end without preemption; return its value."""
    execution = Execution(RunToCompletion(), max_steps=max_steps, log=log)
    task = execution.spawn(body, name, cpu)
    execution.run()
    if task.exception is not None:
        raise task.exception
    result: T = task.result
    return result
