"""Interprocessor interrupts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol, TypeVar

from softsgx.sim.events import IpiSent, IpiTaken
from softsgx.sim.live import LIVE
from softsgx.sim.point import IPI, IRQ, WAIT, Steps
from softsgx.sim.task import Task

if TYPE_CHECKING:
    from softsgx.sim.execution import Execution


class Target(Protocol):
    """A processor that can be interrupted."""

    @property
    def cpu(self) -> int:
        """Its number."""

    def interruptible(self) -> bool:
        """Whether it would take an interrupt now."""


P = TypeVar("P", bound=Target)


_cpu = attrgetter("cpu")


def ipi(targets: Iterable[P], handler: Callable[[P], Steps[None] | None]) -> Steps[None]:
    """Have every target run the handler, and wait until all have.

    Sending is one point. Then each target takes the interrupt on its own: a task on its processor,
    whose first point (IRQ) is enabled while the target is interruptible, so they arrive in any
    order. The sender's own processor runs the handler at once. The sender waits, at one more
    point, if there was another target; without any target nothing happens, not even a point.

    A handler is a function, which runs to completion, or a generator function; its points keep the
    interrupted task off the processor until it has ended.
    """
    # In the order of the numbers, so that a caller may pass a set.
    ordered = tuple(targets)
    if not ordered:
        return
    if len(ordered) > 1:
        ordered = tuple(sorted(ordered, key=_cpu))
    live = LIVE.execution
    if live is not None and all(target.interruptible() for target in ordered):
        # No other task could run in between: every target takes it at once.
        log = live.log
        for target in ordered:
            if log.on:
                _tell(live, target, ordered)
            assert handler(target) is None, "a handler with points needs a recorded execution"
        return
    cpus = tuple(target.cpu for target in ordered)
    me = yield (IPI, cpus, True)
    execution = me.execution
    if execution.log.on:
        execution.log.emit(IpiSent(me, cpus))

    sent: list[Task] = []
    own: list[P] = []
    for target in ordered:
        if target.cpu == me.cpu:
            own.append(target)
            continue
        name = f"ipi to cpu {target.cpu} by {me.name}"
        # A daemon's interrupts are no reason for run() to go on, either.
        body = _take(target, handler)
        sent.append(execution.spawn(body, name, target.cpu, daemon=me.daemon, interrupt=True))
    for target in own:
        yield from _handle(me, target, handler)
    if sent:
        yield (WAIT, Acknowledgements(tuple(sent)), False)


def _tell(live: Execution, target: Target, ordered: Sequence[Target]) -> None:
    """The events of an interrupt that is taken as soon as it is sent."""
    me = live.current
    assert me is not None
    if target is ordered[0]:
        live.log.emit(IpiSent(me, tuple([target.cpu for target in ordered])))
    live.log.emit(IpiTaken(me, target.cpu))


class Interrupt:
    """An interrupt on its way; equal to all others to its processor, since their order matters."""

    __slots__ = ("target",)

    def __init__(self, target: Target) -> None:
        self.target = target

    @property
    def name(self) -> str:
        """What is waited for."""
        return f"cpu {self.target.cpu} to be interruptible"

    def __repr__(self) -> str:
        return f"Interrupt(cpu={self.target.cpu})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Interrupt) and other.target.cpu == self.target.cpu

    def __hash__(self) -> int:
        return hash((IRQ, self.target.cpu))

    def ready(self, task: Task, /) -> bool:
        """Whether the target would take it now."""
        return self.target.interruptible()

    def holders(self) -> tuple[Task, ...]:
        """No task: whether it is ready depends on the state of the target alone."""
        return ()


class Acknowledgements:
    """The wait of the sender of an interrupt for the end of all handlers."""

    __slots__ = ("handlers", "_ended")

    def __init__(self, handlers: tuple[Task, ...]) -> None:
        self.handlers = handlers
        # How many handlers, from the first, are known to have ended.
        self._ended = 0

    def __repr__(self) -> str:
        return f"Acknowledgements({self.name!r})"

    @property
    def name(self) -> str:
        """The processors that were interrupted."""
        return "acknowledgement by cpu " + ", ".join(str(task.cpu) for task in self.handlers)

    def ready(self, task: Task, /) -> bool:
        """Whether all have acknowledged."""
        handlers, at = self.handlers, self._ended
        while at < len(handlers) and handlers[at].done:
            at += 1
        self._ended = at
        return at == len(handlers)

    @property
    def depends(self) -> tuple[Task, ...]:
        """Their ends make it ready."""
        return self.handlers

    def holders(self) -> tuple[Task, ...]:
        """The handlers that have not ended."""
        return tuple(handler for handler in self.handlers if not handler.done)


def _take(target: P, handler: Callable[[P], Steps[None] | None]) -> Steps[None]:
    me = yield (IRQ, Interrupt(target), True)
    yield from _handle(me, target, handler)


def _handle(me: Task, target: P, handler: Callable[[P], Steps[None] | None]) -> Steps[None]:
    log = me.execution.log
    if log.on:
        log.emit(IpiTaken(me, target.cpu))
    steps = handler(target)
    if steps is None:
        return
    me.execution.enter_interrupt(me)
    try:
        yield from steps
    finally:
        me.execution.leave_interrupt(me)
