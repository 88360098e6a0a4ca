"""Data races of the driver: two accesses of two threads that nothing orders.

At least one of them writes, and at least one is plain: neither READ_ONCE, WRITE_ONCE nor atomic.
The accesses and the operations that order them are the notes of one execution (c/notes.c), in the
order of its schedule. Each thread has a vector clock; a release gives it to an address, an acquire
takes it from there. Locks, SRCU, arrays and wait queues do so; and a marked or atomic write
releases its address, a marked or atomic read acquires it, because pointers are published and
references dropped in this way.

Not seen: accesses in functions of the kernel, such as memcpy, and operands of ENCLS; and what a
lock orders that a system call takes outside of the driver, but for mmap_lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.cdriver.notes import (
    ACQUIRE,
    ALLOCATED,
    ATOMIC,
    FREED,
    READ,
    READ_ONCE,
    RELEASE,
    WRITE,
    WRITE_ONCE,
)

if TYPE_CHECKING:
    from softsgx.cdriver.driver import CDriver

_WORDS: Final = {
    READ: "plain read",
    WRITE: "plain write",
    READ_ONCE: "marked read",
    WRITE_ONCE: "marked write",
    ATOMIC: "atomic change",
    FREED: "kfree",
}
_WRITES: Final = frozenset((WRITE, WRITE_ONCE, ATOMIC, FREED))
_PLAIN: Final = frozenset((READ, WRITE, FREED))
_ACQUIRES: Final = frozenset((READ_ONCE, ATOMIC, ACQUIRE))
_RELEASES: Final = frozenset((WRITE_ONCE, ATOMIC, RELEASE))
_GRANULE: Final = 8

Note = tuple[int, int, int, int, int]
Clock = dict[int, int]


class Access(NamedTuple):
    """An access: its instruction, size in bytes, kind, thread; and the thread's own clock then."""

    pc: int
    size: int
    kind: int
    who: int
    time: int


class Race(NamedTuple):
    """Two accesses that nothing orders, each as `place: what by whom`."""

    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.first}; {self.second}"


def unordered(notes: Iterable[Note]) -> Iterator[tuple[Access, Access]]:
    """The pairs of accesses of an execution that race, each pair of instructions once."""
    clocks: dict[int, Clock] = {}
    released: dict[int, Clock] = {}
    # By granule and thread: the last read and the last write, with the bytes that they touch.
    memory: dict[int, dict[tuple[int, bool], tuple[int, Access]]] = {}
    seen: set[tuple[int, int]] = set()
    for pc, address, size, kind, who in notes:
        clock = clocks.setdefault(who, {who: 1})
        if kind in _ACQUIRES:
            _join(clock, released.get(address, {}))
        if kind == ALLOCATED:
            for granule in _granules(address, size):
                memory.pop(granule, None)
        elif kind not in (ACQUIRE, RELEASE):
            access = Access(pc, size, kind, who, clock[who])
            for granule in _granules(address, size):
                touched = _bytes(address, size, granule)
                others = memory.setdefault(granule, {})
                for _, (mask, other) in others.items():
                    if mask & touched and _races(access, other, clock):
                        pair = (other.pc, pc)
                        if pair not in seen and pair[::-1] not in seen:
                            seen.add(pair)
                            yield other, access
                others[who, kind in _WRITES] = (touched, access)
        if kind in _RELEASES:
            _join(released.setdefault(address, {}), clock)
            clock[who] += 1


def _races(access: Access, other: Access, clock: Clock) -> bool:
    return (
        other.who != access.who
        and (access.kind in _WRITES or other.kind in _WRITES)
        and (access.kind in _PLAIN or other.kind in _PLAIN)
        and other.time > clock.get(other.who, 0)
    )


def _join(clock: Clock, other: Clock) -> None:
    for who, time in other.items():
        if time > clock.get(who, 0):
            clock[who] = time


def _granules(address: int, size: int) -> range:
    return range(address // _GRANULE, (address + max(size, 1) - 1) // _GRANULE + 1)


def _bytes(address: int, size: int, granule: int) -> int:
    """Which bytes of a granule an access touches, as bits."""
    start = max(address - granule * _GRANULE, 0)
    end = min(address + size - granule * _GRANULE, _GRANULE)
    return (1 << end) - (1 << start)


class DataRaces:
    """The races of all executions of a scenario, each pair of lines once, in the order found."""

    def __init__(self) -> None:
        self.found: dict[Race, None] = {}
        self._begun = False

    def begin(self, driver: CDriver) -> None:
        """An execution begins."""
        driver.arena.take_notes(on=True)
        self._begun = True

    def end(self, driver: CDriver) -> None:
        """It is over; if none was begun, the notes are another scenario's."""
        if not self._begun:
            return
        self._begun = False
        for pair in unordered(driver.arena.notes()):
            self.found[Race(*sorted(_text(driver, access) for access in pair))] = None
        driver.arena.take_notes(on=False)


def _text(driver: CDriver, access: Access) -> str:
    place = driver.arena.elf.place(access.pc - 1) or "the driver"
    size = "" if access.kind == FREED else f" of {access.size} bytes"
    return f"{place}: {_WORDS[access.kind]}{size} by {driver.thread_name(access.who)}"
