"""One execution of a scenario."""

from __future__ import annotations

from typing import NamedTuple

from softsgx.explore.cut import Cut
from softsgx.explore.failure import Failure, classify
from softsgx.explore.limits import Deadline, LimitReached, Watched, no_deadline
from softsgx.explore.scenario import Scenario
from softsgx.explore.strategies.strategy import Strategy
from softsgx.sim import Deadlock, Execution, Scheduler, Task
from softsgx.sim.touch import TOUCHES


class Executed(NamedTuple):
    """A finished execution; `left` are the tasks that have not ended."""

    execution: Execution
    failure: Failure | None
    left: tuple[Task, ...]


def execute(scenario: Scenario, scheduler: Scheduler, deadline: Deadline = no_deadline) -> Executed:
    """Execute a scenario once, after `scheduler.begin()`.

    Cut and LimitReached are passed on, and so is any BaseException that is not an Exception, except
    SystemExit, which counts as an error of the scenario. LimitReached comes before a step, when
    `deadline` says so.
    """
    if deadline is not no_deadline:
        scheduler = Watched(scheduler, deadline)
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
            # No step is running any more, so nothing is noted.
            TOUCHES.noted = TOUCHES.taken = None
        if execution.tasks:
            left = execution.tasks
            execution.close()
        scenario.check(execution)
    except (Cut, LimitReached):
        raise
    except (Exception, SystemExit) as exception:
        if execution.tasks:
            execution.close()
        if isinstance(exception, Deadlock):
            left = tuple([line.task for line in exception.blocked])
        failure = classify(scenario, exception, execution.choices, execution.steps)
        return Executed(execution, failure, left)
    return Executed(execution, None, left)


def execute_next(
    scenario: Scenario,
    strategy: Strategy,
    deadline: Deadline = no_deadline,
    recorder: Scheduler | None = None,
) -> Executed | None:
    """Carry out the execution that a strategy has begun; None if the strategy cut it.

    `recorder` passes the choices of the strategy on. After LimitReached the strategy is in the
    middle of an execution and cannot go on.
    """
    try:
        found = execute(scenario, recorder or strategy, deadline)
    except Cut as cut:
        strategy.end(cut.blocked)
        return None
    strategy.end(found.left)
    return found
