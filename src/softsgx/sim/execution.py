"""Executions: tasks, a scheduler, and everything that was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from softsgx.sim.errors import Blocked, Deadlock, StepBound, TaskExit, blocked
from softsgx.sim.events import Drawn, Log, Stepped, TaskEnded, TaskSpawned
from softsgx.sim.live import LIVE
from softsgx.sim.point import BLOCKING, RETRY, Point, Steps
from softsgx.sim.schedule import Choice, encode
from softsgx.sim.scheduler import Scheduler
from softsgx.sim.schedulers.cooperative import Cooperative
from softsgx.sim.schedulers.run_to_completion import RunToCompletion
from softsgx.sim.schedulers.virtual_time import VirtualTime
from softsgx.sim.task import Task
from softsgx.sim.timed import Timed
from softsgx.sim.touch import ENABLE, SPAWN, TOUCHES, touch

MAX_STEPS: Final = 1_000_000
_NOTE_LENGTH_MAX: Final = 2_000


class Execution:
    """One run of some tasks, in the order that a scheduler chooses.

    scheduler  which makes the choices
    max_steps  how many steps run() may take in all before it raises StepBound
    log        where events go
    record     keep the choices; without it a long run costs no memory (Cooperative, VirtualTime)
    choices    every choice made so far, as in the schedule string
    steps      how many steps were taken so far
    current    the task that is running: inside a step, or inside its code before the first point
    """

    __slots__ = (
        "scheduler", "max_steps", "log", "record", "choices", "steps", "current",
        "_spawned", "_live", "_foreground", "_restricted", "_handlers", "_running",
        "_numbers",
    )  # fmt: skip

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        max_steps: int = MAX_STEPS,
        log: Log | None = None,
        record: bool = True,
    ) -> None:
        assert record or type(scheduler) in (Cooperative, VirtualTime), (
            "only Cooperative and VirtualTime run unrecorded"
        )
        self.scheduler = scheduler
        self.record = record
        self.max_steps = max_steps
        self.log = Log() if log is None else log
        self.choices: list[Choice] = []
        self.steps = 0
        self.current: Task | None = None
        self._spawned = 0
        # Tasks that have not ended, by index. Ended ones go: every interrupt spawns a handler.
        self._live: list[Task] = []
        # How many of them are not daemons.
        self._foreground = 0
        # Tasks at blocking points plus handlers in progress. 0: all live tasks are enabled.
        self._restricted = 0
        # By processor, the interrupt handler in progress, which keeps all other tasks off it.
        self._handlers: dict[int, Task] = {}
        self._running = False
        # The numbers of the steps that are left, for unrecorded steps: one iterator over all runs.
        self._numbers: Iterator[int] = iter(() if record else range(1, max_steps + 1))

    @property
    def schedule(self) -> str:
        """The string by which Follow repeats this execution as far as it got."""
        return encode(self.choices)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that have not ended, by index."""
        return tuple(self._live)

    @property
    def spawned(self) -> int:
        """How many tasks there have been, daemons and those that have ended included."""
        return self._spawned

    @property
    def handlers(self) -> Mapping[int, Task]:
        """The interrupt handlers in progress, by processor."""
        return self._handlers

    def spawn(
        self,
        body: Steps[Any],
        name: str,
        cpu: int | None = None,
        *,
        daemon: bool = False,
        interrupt: bool = False,
    ) -> Task:
        """Make a task of a body; its code before the first point runs at once.

        So every task's next point is known to the scheduler from the beginning, and a body of n
        points takes n steps. That code belongs to the step of the spawner; it should touch
        nothing shared. A running task may spawn, too.
        """
        task = Task(self, self._spawned, body, name, cpu, daemon, interrupt)
        self._spawned += 1
        self._live.append(task)
        if not daemon:
            self._foreground += 1
        if self.log.on:
            self.log.emit(TaskSpawned(task))
        if TOUCHES.noted is not None:
            touch(task, SPAWN)
        spawner, self.current = self.current, task
        outer = LIVE.execution
        if outer is not self:
            LIVE.execution = None
        try:
            point = next(body)
        except BaseException as ending:
            if not self._over(task, ending):
                raise
        else:
            self._arrive(task, point)
        finally:
            self.current = spawner
            LIVE.execution = outer
        return task

    def run(self) -> None:
        """Step until every task that is not a daemon has ended.

        May be called again after further spawns; daemons go on where they were. An exception out
        of a task, Deadlock, StepBound and whatever a scheduler raises end the execution: all other
        tasks are unwound as by close(), and the exception carries the schedule as a note.
        """
        assert not self._running, "run() of an execution that is running"
        self._running = True
        timed = self.scheduler if isinstance(self.scheduler, VirtualTime) else None
        live = not self.record and timed is None
        outer, LIVE.execution = LIVE.execution, self if live else None
        try:
            if live:
                self._loop_unrecorded()
            elif self.record or self.log.on:
                self._loop(self._drive_alone())  # Timed emits no Stepped
            elif timed:
                Timed(self, timed).run()
        except BaseException as exception:
            exception.add_note(self._schedule_note())
            try:
                self.close()
            except Exception as trouble:
                exception.add_note(f"unwinding the other tasks failed, too: {trouble!r}")
            raise
        finally:
            self.current = None
            self._running = False
            LIVE.execution = outer

    def close(self) -> None:
        """Unwind the tasks that have not ended, the latest first: they release what they hold.

        Without it their `finally` clauses would run whenever the garbage collector gets to them.
        Needed only when daemons are left and something they touch is used again. A body that
        yields while it cleans up cannot be unwound: RuntimeError, after all others were unwound.
        """
        trouble: Exception | None = None
        outer, LIVE.execution = LIVE.execution, None
        while self._live:
            # Current, because a lock is released only by a holder that runs.
            task = self.current = self._live.pop()
            try:
                task.body.close()
            except Exception as exception:
                exception.add_note(f"unwinding task {task}")
                trouble = trouble or exception
        self.current = None
        LIVE.execution = outer
        self._foreground = self._restricted = 0
        self._handlers.clear()
        if trouble is not None:
            raise trouble

    def draw(self, n: int, what: str) -> int:
        """A number in [0, n) that the scheduler decides; part of the schedule unless n is 1."""
        assert n > 0, f"draw of {what!r} below {n}"
        if n == 1:
            return 0
        value = self.scheduler.draw(n, what)
        assert 0 <= value < n, f"the scheduler drew {value} for {what!r}, which is below {n}"
        self.choices.append(~value)
        if self.log.on:
            self.log.emit(Drawn(self.current, what, n, value))
        return value

    def enter_interrupt(self, handler: Task) -> None:
        """Keep every other task off the handler's processor until leave_interrupt()."""
        assert handler.cpu is not None, f"{handler} has no processor to handle an interrupt on"
        assert handler.cpu not in self._handlers, f"cpu {handler.cpu} is in a handler already"
        touch(("cpu", handler.cpu))
        self._handlers[handler.cpu] = handler
        self._restricted += 1

    def leave_interrupt(self, handler: Task) -> None:
        """Let the handler's processor go on with what was interrupted."""
        assert handler.cpu is not None, f"{handler} has no processor to handle an interrupt on"
        touch(("cpu", handler.cpu))
        del self._handlers[handler.cpu]
        self._restricted -= 1

    def _loop(self, current: Task | None) -> None:
        # Only locals: the whole package is as fast as this loop.
        choose = self.scheduler.choose
        choices = self.choices
        live = self._live
        log = self.log
        max_steps = self.max_steps
        while self._foreground:
            enabled: Sequence[Task] = live
            if self._restricted:
                enabled = self._enabled()
                if not enabled:
                    raise Deadlock(self._blocked(), self.schedule)
                if current not in enabled:
                    current = None
            if self.steps >= max_steps:
                raise StepBound(max_steps, self.schedule, self.current)
            task = choose(enabled, current)
            assert task in enabled, f"the scheduler chose {task}, which is not enabled"
            if len(enabled) > 1:
                choices.append(task.index)
            self.steps += 1
            if log.on:
                log.emit(Stepped(task, task.point))
            self.current = current = task
            try:
                point = task.send(task)
            except BaseException as ending:
                if not self._over(task, ending):
                    raise
                current = None
            else:
                if task.gate is None and point[0] not in BLOCKING:
                    task.point = point
                else:
                    self._arrive(task, point)

    def _loop_unrecorded(self) -> None:
        """As `_loop` under Cooperative, but no choice is recorded.

        The current task is stepped, without asking the scheduler, until it blocks, ends, is about
        to retry, or has taken the last step that is allowed. The steps are the same whether or not
        the log has a listener.
        """
        current: Task | None = None
        log = self.log
        numbers = self._numbers
        while self._foreground:
            enabled = self._enabled()
            if not enabled:
                raise Deadlock(self._blocked(), self.schedule)
            if self.steps >= self.max_steps:
                raise StepBound(self.max_steps, self.schedule, self.current)
            if current not in enabled:
                current = None
            task = self.current = current = self.scheduler.choose(enabled, current)
            send = task.send
            try:
                for self.steps in numbers:
                    if log.on:
                        log.emit(Stepped(task, task.point))
                    point = send(task)
                    kind = point[0]
                    if kind in BLOCKING:
                        self._arrive(task, point)
                        if not task.gate(task):  # type: ignore[misc]
                            break
                    elif task.gate is not None:
                        self._arrive(task, point)
                    else:
                        task.point = point
                    if kind == RETRY or self._handlers or not self._foreground:
                        break
            except BaseException as ending:
                if not self._over(task, ending):
                    raise
                current = None

    def _drive_alone(self) -> Task | None:
        """Step the only task while it is alone and unblocked; return it, unless it has ended.

        There is nothing to choose, so RunToCompletion is not asked. So running one body for its
        value costs little more than a loop of send().
        """
        live = self._live
        if type(self.scheduler) is not RunToCompletion or self.log.on:
            return None
        if len(live) != 1 or not self._foreground or live[0].gate is not None:
            return None
        task = self.current = live[0]
        send = task.send
        blocking = BLOCKING
        point = task.point
        steps = 0
        try:
            for steps in range(1, self.max_steps - self.steps + 1):  # noqa: B007 - kept for finally
                point = send(task)
                if point[0] in blocking or len(live) > 1:
                    break
        except BaseException as ending:
            task.point = point
            if not self._over(task, ending):
                raise
            return None
        finally:
            self.steps += steps
        self._arrive(task, point)
        return task

    def _arrive(self, task: Task, point: Point) -> None:
        task.point = point
        if point[0] in BLOCKING:
            if task.gate is None:
                self._restricted += 1
            blocker: Any = point[1]
            task.gate = blocker.ready
        elif task.gate is not None:
            task.gate = None
            self._restricted -= 1

    def _enabled(self) -> list[Task]:
        enabled = [task for task in self._live if task.gate is None or task.gate(task)]
        if self._handlers:
            handlers = self._handlers
            return [t for t in enabled if t.cpu is None or handlers.get(t.cpu, t) is t]
        return enabled

    def _over(self, task: Task, ending: BaseException) -> bool:
        """End a task by what left its body. False if that is an error, which the caller raises."""
        if isinstance(ending, StopIteration):
            self._end(task, ending.value)
            return True
        self._fail(task, ending)
        return isinstance(ending, TaskExit)

    def _end(self, task: Task, result: Any) -> None:
        if task.held:
            held = ", ".join(lock.name for lock in task.held)
            broken = AssertionError(f"the task ended holding {held}")
            self._fail(task, broken)
            raise broken
        self._leave(task)
        task.result = result
        if self.log.on:
            self.log.emit(TaskEnded(task))

    def _fail(self, task: Task, exception: BaseException) -> None:
        self._leave(task)
        task.exception = exception
        point: Point | None = getattr(task, "point", None)
        exception.add_note(
            f"in task {task}, " + (f"point {point}" if point else "before any point")
        )
        if self.log.on:
            self.log.emit(TaskEnded(task))

    def _leave(self, task: Task) -> None:
        task.done = True
        self._live.remove(task)
        if not task.daemon:
            self._foreground -= 1
        if task.gate is not None:
            task.gate = None
            self._restricted -= 1
        if TOUCHES.noted is not None:
            touch(task, ENABLE)

    def _blocked(self) -> list[Blocked]:
        return blocked(self._live, self._handlers)

    def _schedule_note(self) -> str:
        schedule = self.schedule
        if len(schedule) > _NOTE_LENGTH_MAX:
            return f"schedule {schedule[:_NOTE_LENGTH_MAX]}... ({len(self.choices)} choices)"
        return f"schedule {schedule}"
