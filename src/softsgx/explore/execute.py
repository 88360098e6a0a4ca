"""One execution of a scenario."""

from __future__ import annotations

from typing import NamedTuple

from softsgx.explore.cut import Cut
from softsgx.explore.failure import Failure, classify
from softsgx.explore.scenario import Scenario
from softsgx.explore.strategies.strategy import Strategy
from softsgx.sim import Deadlock, Execution, Scheduler, Task
from softsgx.sim.touch import TOUCHES


class Executed(NamedTuple):
    """An execution that is over; `left` are the tasks that it left unfinished."""

    execution: Execution
    failure: Failure | None
    left: tuple[Task, ...]


def execute(scenario: Scenario, scheduler: Scheduler) -> Executed:
    """Run a scenario once by a scheduler that has begun.

    Cut, and whatever is no Exception, passes through; SystemExit is one, of the scenario.
    """
    execution = Execution(scheduler, max_steps=scenario.max_steps, log=scenario.log)
    left: tuple[Task, ...] = ()
    try:
        scenario.start(execution)
        if execution.spawned == sum(task.daemon for task in execution.tasks):
            raise ValueError(
                f"{type(scenario).__name__}: no task was spawned, there is no schedule"
            )
        try:
            execution.run()
        finally:
            # What is done from here on belongs to no step, and to no checker that looks on.
            TOUCHES.noted = TOUCHES.taken = None
        if execution.tasks:
            left = execution.tasks
            execution.close()
        scenario.check(execution)
    except Cut:
        raise
    except (Exception, SystemExit) as exception:
        if execution.tasks:
            execution.close()
        if isinstance(exception, Deadlock):
            left = tuple([line.task for line in exception.blocked])
        failure = classify(scenario, exception, execution.choices, execution.steps)
        return Executed(execution, failure, left)
    return Executed(execution, None, left)


def execute_next(scenario: Scenario, strategy: Strategy) -> Executed | None:
    """The next execution of a strategy that has begun it; None if the strategy cut it."""
    try:
        found = execute(scenario, strategy)
    except Cut as cut:
        strategy.end(cut.blocked)
        return None
    strategy.end(found.left)
    return found
