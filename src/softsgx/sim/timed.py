"""The loop of an unrecorded execution under VirtualTime: the same order, found by a heap.

`VirtualTime.choose` asks every task before every step. Here a task is looked at when something
changes for it: its finish time is in a heap, and tasks at equal blocking points form a group whose
`ready` is called once a step. The tests of VirtualTime compare the two on random programs.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from softsgx.sim.errors import Deadlock, StepBound
from softsgx.sim.point import BLOCKING, IRQ, Point

if TYPE_CHECKING:
    from softsgx.sim.execution import Execution
    from softsgx.sim.schedulers.virtual_time import VirtualTime
    from softsgx.sim.task import Task


class _Group:
    """Tasks at equal blocking points, which are ready together or not at all."""

    __slots__ = ("begun", "point", "ready", "tasks")

    def __init__(self, point: Point) -> None:
        self.point = point
        self.ready = False
        self.tasks: list[Task] = []
        # How many of `tasks`, from the front, have been begun since it became ready.
        self.begun = 0


class Timed:
    """One run() of an execution, built from the points at which its tasks are.

    Part of Execution, in a file of its own: it uses the private state.
    """

    def __init__(self, execution: Execution, time: VirtualTime) -> None:
        self.execution = execution
        self.time = time
        # When the pending point of each begun task started; the clock's own record.
        self._started = time.started
        self._prices = time.prices
        self._heap: list[tuple[int, int, int, Task]] = []
        # The number of a task's valid entry in the heap: older ones are skipped.
        self._entry: dict[Task, int] = {}
        self._entries = 0
        # Tasks whose entry in the heap is too early, since they were delayed.
        self._moved: dict[Task, None] = {}
        self._groups: dict[Point, _Group] = {}
        self._group_of: dict[Task, _Group] = {}
        # Begun tasks by processor.
        self._on_cpu: dict[int, list[Task]] = {}
        # Begun interrupt handlers by processor, and the tasks that have to wait for them.
        self._interrupts: dict[int, int] = {}
        self._held_back: dict[int, list[Task]] = {}
        # Tasks that may begin only when the handler in progress on their processor has ended.
        self._deferred: dict[int, list[Task]] = {}
        for task in execution.tasks:
            self._arrived(task)
        self._seen = execution._spawned
        self._poll()

    def run(self) -> None:
        """Step until no foreground task is left, as `Execution.run`."""
        execution = self.execution
        handlers, delays = execution._handlers, self.time.delays
        while execution._foreground:
            if execution.steps >= execution.max_steps:
                raise StepBound(execution.max_steps, execution.schedule, execution.current)
            task = self._next()
            if task.gate is not None or task.interrupt:
                self._leave(task)
            in_progress = bool(handlers)
            goes_on = self._step(task)
            if delays:
                self._delay()
            if goes_on:
                if task.gate is None:
                    self._begin(task)
                else:
                    self._arrived(task)
            if execution._spawned != self._seen:
                self._add_spawned()
            if self._groups:
                self._poll()
            if in_progress or handlers:
                self._release()

    def _next(self) -> Task:
        """The task whose point is finished first; advance the clocks to there."""
        heap, entry = self._heap, self._entry
        interrupts, handlers = self._interrupts, self.execution._handlers
        started, moved = self._started, self._moved
        while True:
            if not heap:
                raise Deadlock(self.execution._blocked(), self.execution.schedule)
            finish, _, number, task = heappop(heap)
            if entry.get(task) != number:
                continue
            if task in moved:
                # It was delayed after this entry was made.
                del moved[task]
                due = started[task] + self._price(task)
                if due > finish:
                    heappush(heap, (due, task.index, number, task))
                    continue
            cpu = task.cpu
            if cpu is None or not (
                (cpu in interrupts and not task.interrupt)
                or (handlers and handlers.get(cpu, task) is not task)
            ):
                break
            self._held_back.setdefault(cpu, []).append(task)
        del entry[task]
        start = started.pop(task)
        time = self.time
        counts, kind = time.counts, task.point[0]
        counts[kind] = counts.get(kind, 0) + 1
        time.elapsed = finish
        if cpu is not None:
            time.clocks[cpu] = finish
            others = self._on_cpu[cpu]
            others.remove(task)
            if others:
                self._shift(others, start, finish)
        return task

    def _shift(self, others: list[Task], start: int, finish: int) -> None:
        """Points begun on the same processor are delayed by this time, and keep the work done."""
        started = self._started
        for other in others:
            started[other] += finish - max(started[other], start)
            self._moved[other] = None

    def _delay(self) -> None:
        """A charge on a processor delays all points begun there."""
        for cpu, cycles in self.time.delays:
            for task in self._on_cpu.get(cpu, ()):
                self._started[task] += cycles
                self._moved[task] = None
        self.time.delays.clear()

    def _step(self, task: Task) -> bool:
        """Take the step; False if the task has ended."""
        execution = self.execution
        execution.steps += 1
        execution.current = task
        try:
            point = task.send(task)
        except BaseException as ending:
            if not execution._over(task, ending):
                raise
            return False
        if task.gate is None and point[0] not in BLOCKING:
            task.point = point
        else:
            execution._arrive(task, point)
        return True

    def _leave(self, task: Task) -> None:
        """The task leaves its point: its group, and its place among the interrupts."""
        group = self._group_of.pop(task, None)
        if group is not None:
            at = group.tasks.index(task)
            del group.tasks[at]
            group.begun -= at < group.begun
            if not group.tasks:
                del self._groups[group.point]
        if task.interrupt:
            self._interrupt_ended(task)

    def _interrupt_ended(self, task: Task) -> None:
        cpu = task.cpu
        assert cpu is not None
        left = self._interrupts[cpu] - 1
        if left:
            self._interrupts[cpu] = left
            return
        del self._interrupts[cpu]
        for held in self._held_back.pop(cpu, ()):
            if held in self._entry:
                self._push(held)

    def _add_spawned(self) -> None:
        """Take in the tasks that the last step spawned."""
        for new in self.execution.tasks[-(self.execution._spawned - self._seen) :]:
            if new.index >= self._seen:
                self._arrived(new)
        self._seen = self.execution._spawned

    def _arrived(self, task: Task) -> None:
        """Begin the new point of a task, or put it into its group."""
        gate, point = task.gate, task.point
        if gate is None or (point[0] == IRQ and gate(task)):
            # An interrupt that can be taken will be: nothing else runs there before it.
            self._begin(task)
            return
        group = self._groups.get(point)
        if group is None:
            group = self._groups[point] = _Group(point)
        group.tasks.append(task)
        self._group_of[task] = group

    def _poll(self) -> None:
        """Test every group: begin the tasks of ready groups, forget those of groups not ready."""
        for group in self._groups.values():
            first = group.tasks[0]
            assert first.gate is not None
            if first.gate(first):
                group.ready = True
                while group.begun < len(group.tasks):
                    group.begun += 1
                    self._begin(group.tasks[group.begun - 1])
            elif group.ready:
                group.ready = False
                for task in group.tasks[: group.begun]:
                    self._forget(task)
                group.begun = 0

    def _begin(self, task: Task) -> None:
        cpu = task.cpu
        if cpu is not None:
            handlers = self.execution._handlers
            if handlers and handlers.get(cpu, task) is not task:
                self._deferred.setdefault(cpu, []).append(task)
                return
            begun = self._on_cpu.get(cpu)
            if begun is None:
                self._on_cpu[cpu] = [task]
            else:
                begun.append(task)
            if task.interrupt:
                self._interrupts[cpu] = self._interrupts.get(cpu, 0) + 1
        if task not in self._started:
            # Else it was at this point when an earlier run() ended, and keeps the work done.
            time = self.time
            self._started[task] = time.begins(task) if time.busy else time.elapsed
        self._push(task)

    def _forget(self, task: Task) -> None:
        """A task that lost the race for what it waits for starts over when that is free again."""
        if task not in self._entry:
            for waiting in self._deferred.values():
                if task in waiting:
                    waiting.remove(task)
            return
        del self._entry[task], self._started[task]
        if task.cpu is not None:
            self._on_cpu[task.cpu].remove(task)
            if task.interrupt:
                self._interrupt_ended(task)

    def _push(self, task: Task) -> None:
        number = self._entries = self._entries + 1
        self._entry[task] = number
        self._moved.pop(task, None)
        finish = self._started[task] + self._price(task)
        heappush(self._heap, (finish, task.index, number, task))

    def _price(self, task: Task) -> int:
        price = self._prices.get(task.point[0])
        if type(price) is int:
            return price
        return price(task) if callable(price) else self.time.price(task)

    def _release(self) -> None:
        """A handler with several points began or ended: queue the tasks that may go on now."""
        handlers = self.execution._handlers
        for cpu in [*self._deferred]:
            for task in self._deferred.pop(cpu):
                self._begin(task)
        for cpu in [*self._held_back]:
            if cpu not in handlers:
                for task in self._held_back.pop(cpu):
                    if task in self._entry:
                        self._push(task)
