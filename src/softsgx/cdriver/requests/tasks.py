"""Signals, sleep, kernel threads, wait queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import ENOMEM
from softsgx.sim.live import LIVE
from softsgx.sim.waits import WaitQueue

if TYPE_CHECKING:
    from softsgx.cdriver.call import Call
    from softsgx.cdriver.requests.handlers import Handlers
    from softsgx.sim import Steps


def _signal_pending(call: Call, *_: int) -> int:
    return int(call.current.signal_pending())


def _force_sig(call: Call, signal: int, *_: int) -> int:
    call.current.pending_signals += 1
    return 0


def _sleep(call: Call, *_: int) -> Steps[int]:
    """msleep_interruptible: whether a signal ended it."""
    yield ("sleep", call.current.name, False)
    return int(call.current.signal_pending())


def _kthread(call: Call, thread: int, name: int, *_: int) -> int:
    if call.kernel.fail("kthread_run"):
        return -ENOMEM
    call.driver.kthreads[call.arena.text(name)] = thread
    return 0


def _queue(call: Call, queue: int, name: int) -> WaitQueue:
    found = call.driver.queues.get(queue)
    if found is None:
        text = call.arena.text(name)
        own = call.kernel.ksgxd_waitq
        found = call.driver.queues[queue] = own if text == own.name else WaitQueue(text)
    return found


def _wake_up(call: Call, queue: int, name: int, *_: int) -> int:
    _queue(call, queue, name).wake_up()
    return 0


def _wait(call: Call, queue: int, name: int, *_: int) -> Steps[int]:
    """Sleep until woken. The driver has tested its condition in this step, and tests it again."""
    kthread = call.current.process is None
    answers = iter((False, True))
    if kthread:
        call.kernel.ksgxd_running = False
    yield from _queue(call, queue, name).wait_event(lambda: next(answers))
    call.arena.set_live(call.number, LIVE.execution is not None)
    if kthread:
        call.kernel.ksgxd_running = True
    return 0


HANDLERS: Final[Handlers] = {
    "SIGNAL_PENDING": _signal_pending,
    "FORCE_SIG": _force_sig,
    "SLEEP": _sleep,
    "KTHREAD": _kthread,
    "WAKE_UP": _wake_up,
    "WAIT": _wait,
}
