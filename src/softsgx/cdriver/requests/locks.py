"""Locks, SRCU, preemption, and the points of accesses that race by design."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from softsgx.cdriver.operations import OPERATIONS
from softsgx.linux.smp import preempt_disabled
from softsgx.sim.locks import Mutex
from softsgx.sim.point import RETRY, WAIT
from softsgx.sim.srcu import Srcu

if TYPE_CHECKING:
    from softsgx.cdriver.arena import Arena
    from softsgx.cdriver.call import Call
    from softsgx.cdriver.requests.handlers import Handlers
    from softsgx.linux.mm import Mm
    from softsgx.sim import Steps, Task


def _in_vain(*between: str) -> tuple[int, int]:
    """The last requests of a task, as its trail has them, and which bits of the trail they are."""
    names = ("MUTEX_LOCK", *between, "MUTEX_UNLOCK")
    numbers = [OPERATIONS.index(name) for name in names]
    return int.from_bytes(bytes(numbers), "big"), (1 << 8 * len(names)) - 1


# What a task has done between two times that it takes a mutex, if it waits for another task.
_IN_VAIN: Final = (
    _in_vain(),  # somebody holds the page
    _in_vain("WAKE_UP"),  # no page of EPC is free, and ksgxd is woken
    _in_vain("SPIN_POINT", "WAKE_UP"),  # the same, where taking a spinlock is a point
)


def _name(call: Call, text: int) -> str:
    """What a lock is called: the expression that was initialised, and the enclave."""
    name = call.arena.text(text).removeprefix("&")
    return f"{name}({call.label})" if call.label else name


# Mutexes


def _mutex_init(call: Call, mutex: int, name: int, *_: int) -> int:
    call.driver.mutexes[mutex] = Mutex(_name(call, name))
    return 0


def _mutex(call: Call, mutex: int, name: int) -> Mutex:
    found = call.driver.mutexes.get(mutex)
    if found is None:  # DEFINE_MUTEX
        found = call.driver.mutexes[mutex] = Mutex(_name(call, name))
    return found


def _mutex_lock(call: Call, mutex: int, name: int, *_: int) -> Steps[int]:
    lock = _mutex(call, mutex, name)
    if lock in call.held:
        raise call.bug(f"{lock.name} is taken by a task that holds it")
    if call.unlocked == mutex and any(call.trail & mask == vain for vain, mask in _IN_VAIN):
        yield (RETRY, lock.name, False)  # a loop that waits for what another task does
    yield from lock.acquire()
    call.me = lock.owner
    call.hold(lock, lock.release)
    return 0


def _mutex_trylock(call: Call, mutex: int, name: int, *_: int) -> Steps[int]:
    lock = _mutex(call, mutex, name)
    taken = yield from lock.trylock()
    if taken:
        call.me = lock.owner
        call.hold(lock, lock.release)
    return int(taken)


def _mutex_unlock(call: Call, mutex: int, *_: int) -> int:
    call.drop(call.driver.mutexes[mutex])
    call.unlocked = mutex
    return 0


# Spinlocks are words of the arena; only who finds one taken waits here


class Spinning:
    """The wait for a spinlock: until the word that holds its owner is zero."""

    def __init__(self, arena: Arena, address: int, name: str) -> None:
        self.arena = arena
        self.address = address
        self.name = name

    def ready(self, _task: Task, /) -> bool:
        """Whether nobody holds it."""
        return not any(self.arena.read(self.address, 8))

    def holders(self) -> Sequence[Task]:
        """Unknown: the owner is a task of the arena."""
        return ()


def _spin_point(call: Call, lock: int, name: int, *_: int) -> Steps[int]:
    yield ("spin", (call.arena.text(name), lock), True)
    return 0


def _spin_wait(call: Call, lock: int, name: int, *_: int) -> Steps[int]:
    yield (WAIT, Spinning(call.arena, lock, call.arena.text(name)), True)
    return 0


def _bit_point(_call: Call, address: int, bit: int, *_: int) -> Steps[int]:
    yield ("bit", (address, bit), True)
    return 0


def _xa_point(_call: Call, array: int, index: int, *_: int) -> Steps[int]:
    yield ("xa_load", (array, index), False)
    return 0


def _access_point(_call: Call, address: int, write: int, *_: int) -> Steps[int]:
    yield ("memory", (address,), bool(write))
    return 0


# mmap_lock


def _read_key(mm: Mm) -> object:
    return ("mmap_lock for reading", mm.name)


def _write_key(mm: Mm) -> object:
    return ("mmap_lock for writing", mm.name)


def _refuse_own(call: Call, mm: Mm, writer: bool) -> None:
    """KernelBug if the task that asks would wait for itself; the caller may have taken it."""
    lock = mm.mmap_lock
    holders = lock.holders() if writer else (lock.writer,)
    if any(holder is not None and holder.execution.current is holder for holder in holders):
        raise call.bug(f"{lock.name} is taken by a task that holds it")


def _mmap_read_lock(call: Call, mm: int, *_: int) -> Steps[int]:
    found = call.driver.mm(mm)
    _refuse_own(call, found, writer=False)
    guard = yield from found.mmap_lock.acquire_read()
    call.hold(_read_key(found), guard.release)
    return 0


def _mmap_read_unlock(call: Call, mm: int, *_: int) -> int:
    call.drop(_read_key(call.driver.mm(mm)))
    return 0


def _mmap_write_lock(call: Call, mm: int, *_: int) -> Steps[int]:
    found = call.driver.mm(mm)
    _refuse_own(call, found, writer=True)
    guard = yield from found.mmap_lock.acquire_write()
    call.hold(_write_key(found), guard.release)
    return 0


def _mmap_write_unlock(call: Call, mm: int, *_: int) -> int:
    call.drop(_write_key(call.driver.mm(mm)))
    return 0


def _mmap_write_held(call: Call, mm: int, *_: int) -> int:
    return int(call.driver.mm(mm).mmap_lock.writer is not None)


# SRCU


def _srcu_init(call: Call, srcu: int, name: int, *_: int) -> int:
    if call.kernel.fail("init_srcu_struct"):
        return -12
    call.driver.srcus[srcu] = Srcu(_name(call, name))
    return 0


def _srcu_read_lock(call: Call, srcu: int, *_: int) -> Steps[int]:
    reader = yield from call.driver.srcus[srcu].read_lock()
    readers = call.driver.readers
    number = next(n for n in range(len(readers) + 1) if n not in readers)
    readers[number] = reader
    call.hold(("SRCU", number), lambda: readers.pop(number).release())
    return number


def _srcu_read_unlock(call: Call, srcu: int, number: int, *_: int) -> int:
    call.drop(("SRCU", number & 0xFFFF_FFFF))
    return 0


def _srcu_synchronize(call: Call, srcu: int, *_: int) -> Steps[int]:
    yield from call.driver.srcus[srcu].synchronize()
    return 0


def _srcu_cleanup(call: Call, srcu: int, *_: int) -> int:
    found = call.driver.srcus.pop(srcu)
    if not found.idle:
        call.kernel.warn(f"cleanup_srcu_struct of {found.name} with readers")
    return 0


# Preemption


def _preempt_disable(call: Call, *_: int) -> int:
    manager = preempt_disabled(call.me)
    manager.__enter__()
    call.hold("preemption", lambda: manager.__exit__(None, None, None))
    return 0


def _preempt_enable(call: Call, *_: int) -> int:
    call.drop("preemption")
    return 0


HANDLERS: Final[Handlers] = {
    "MUTEX_INIT": _mutex_init,
    "MUTEX_LOCK": _mutex_lock,
    "MUTEX_TRYLOCK": _mutex_trylock,
    "MUTEX_UNLOCK": _mutex_unlock,
    "SPIN_POINT": _spin_point,
    "SPIN_WAIT": _spin_wait,
    "BIT_POINT": _bit_point,
    "XA_POINT": _xa_point,
    "ACCESS_POINT": _access_point,
    "MMAP_READ_LOCK": _mmap_read_lock,
    "MMAP_READ_UNLOCK": _mmap_read_unlock,
    "MMAP_WRITE_LOCK": _mmap_write_lock,
    "MMAP_WRITE_UNLOCK": _mmap_write_unlock,
    "MMAP_WRITE_HELD": _mmap_write_held,
    "SRCU_INIT": _srcu_init,
    "SRCU_READ_LOCK": _srcu_read_lock,
    "SRCU_READ_UNLOCK": _srcu_read_unlock,
    "SRCU_SYNCHRONIZE": _srcu_synchronize,
    "SRCU_CLEANUP": _srcu_cleanup,
    "PREEMPT_DISABLE": _preempt_disable,
    "PREEMPT_ENABLE": _preempt_enable,
}
