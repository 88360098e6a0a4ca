"""The mutex of Intel's SDK: a thread that does not get it sleeps outside the enclave.

sgx_thread_mutex (linux-sgx 2.24, sdk/tlibthread/sethread_mutex.cpp): waiters queue, and take the
mutex in their order. To sleep a thread calls out and waits for a futex. To wake the first waiter
the owner calls out as well, so every hand-over pays two calls and a wake-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softsgx.sim import Steps, WaitFlag

if TYPE_CHECKING:
    from softsgx.lab.measured import MeasuredThread


class Event:
    """What a thread sleeps on outside (se_event): a wake that comes first is remembered."""

    def __init__(self, name: str) -> None:
        self.waiting = False
        self._set = WaitFlag(name)

    def wait(self, _host: Any) -> Steps[None]:
        """se_event_wait: no system call if the wake came first."""
        if not self._set.is_set:
            self.waiting = True
            yield ("syscall", "futex", False)
            if not self._set.is_set:
                yield from self._set.wait()
                yield ("wakeup", self, False)
            self.waiting = False
        self._set.clear()

    def wake(self, _host: Any) -> Steps[None]:
        """se_event_wake: no system call if nobody waits."""
        if self.waiting:
            yield ("syscall", "futex", False)
        self._set.set()


class SleepingMutex:
    """sgx_thread_mutex. Not recursive."""

    def __init__(self, events: dict[int, Event]) -> None:
        # By the number of a thread's seat; the mutexes of an enclave share them.
        self.events = events
        self.owner: int | None = None
        self.queue: list[int] = []

    def lock(self, t: MeasuredThread) -> Steps[None]:
        """Take it, or sleep until the owner wakes this thread."""
        me = t.seat.number
        while True:
            yield ("spin", self, True)
            first = self.queue[0] if self.queue else me
            if self.owner is None and first == me:
                self.owner = me
                del self.queue[:1]
                return
            if me not in self.queue:
                self.queue.append(me)
            yield from t.ocall(self.events[me].wait)

    def unlock(self, t: MeasuredThread) -> Steps[None]:
        """Release it, and wake the first waiter, who is to take it himself."""
        yield ("spin", self, True)
        assert self.owner == t.seat.number, "only the owner unlocks"
        self.owner = None
        if self.queue:
            yield from t.ocall(self.events[self.queue[0]].wake)
