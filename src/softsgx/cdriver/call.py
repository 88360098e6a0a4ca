"""One call of the driver: a task of the arena, and the generator that serves its requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

from softsgx.cdriver.arena import ARGUMENTS, FRAME, OPERATION, SP, WildPointer
from softsgx.cdriver.notes import ACQUIRE, RELEASE
from softsgx.cdriver.operations import OPERATIONS
from softsgx.cdriver.requests import HANDLERS
from softsgx.linux.bug import KernelBug
from softsgx.sim import Task
from softsgx.sim.live import LIVE

if TYPE_CHECKING:
    from softsgx.cdriver.driver import CDriver
    from softsgx.linux.process import Thread
    from softsgx.sim import Steps

RETURNED: Final = OPERATIONS.index("RETURNED")
ENCLS: Final = OPERATIONS.index("ENCLS")
# What says nothing about why a task takes a mutex again.
_UNTRACED: Final = frozenset(map(OPERATIONS.index, ("ACCESS_POINT", "SPIN_WAIT")))


def _unserved(call: Call, *_: int) -> int:
    raise AssertionError(f"a request that nothing serves: {call.backtrace()}")


SERVE: Final[Sequence[Callable[..., Any]]] = [HANDLERS.get(name, _unserved) for name in OPERATIONS]
"""What serves a request, by its number."""
_ENCLS_AT: Final = 4  # the argument that says where it is
_SIGN: Final = 1 << 63
_FRAMES_MAX: Final = 32


class Call:
    """A call that is under way.

    held      what the task has taken, and how to release it: undone if the task is unwound
    me        the task of the execution, once it is known
    label     the name of the enclave that is being opened
    inserted  whether it has inserted a PTE
    fails_again  whether a leaf that a test has let fail will do so when it is repeated
    trail     the numbers of its last four requests, 8 bits each
    unlocked  the mutex that it has unlocked last
    """

    def __init__(self, driver: CDriver, current: Thread, label: str = "") -> None:
        self.driver = driver
        self.kernel = driver.kernel
        self.arena = driver.arena
        self.current = current
        self.label = label
        self.number = self.arena.take()
        self.held: dict[object, Callable[[], object]] = {}
        self.me: Task | None = None
        self.inserted = False
        self.fails_again = False
        self.trail = 0
        self.unlocked = 0

    def run(self, function: str, *arguments: int, thread: int = 0, mm: int = 0) -> Steps[int]:
        """Call a function of the driver; its return value, signed. KernelBug, Unmodelled."""
        process = self.current.process
        implies = process is not None and process.mm.read_implies_exec
        self.arena.prepare(
            self.number,
            function,
            arguments,
            thread=thread,
            mm=mm,
            personality=_READ_IMPLIES_EXEC if implies else 0,
            who=self.driver.number_of(self.current),
            live=LIVE.execution is not None,
        )
        if self.arena.noting:
            self._note_mmap_lock(ACQUIRE)
        # No local is the memory of the arena: a frame is part of a state that is compared.
        done = False
        try:
            arena, number = self.arena, self.number
            operation = arena.resume(number)
            while operation != RETURNED:
                answer = SERVE[operation](self, *arena.arguments(number))
                if type(answer) is GeneratorType:
                    answer = yield from answer
                if operation not in _UNTRACED:
                    self.trail = (self.trail << 8 | operation) & 0xFFFF_FFFF
                operation = arena.resume(number, answer)
            done = True
            value = arena.arguments(number)[0]
        except WildPointer as wild:
            what = f"{OPERATIONS[operation]} of {wild}, which is not its memory"
            raise self.bug(what) from None
        finally:
            if not done:
                self._unwind()
            if self.arena.noting:
                self._note_mmap_lock(RELEASE)
            self.arena.end(self.number)
        if self.held:
            raise self.bug(f"{function} returns with {_names(self.held)} held")
        return value - 2 * _SIGN if value & _SIGN else value

    def _note_mmap_lock(self, kind: int) -> None:
        """A caller that holds mmap_lock has acquired it before the call, and releases it after."""
        if self.current.process is None:
            return
        driver, mm = self.driver, self.current.mm
        lock, address, who = mm.mmap_lock, driver.mm_address(mm), driver.number_of(self.current)
        if not any(holder is holder.execution.current for holder in lock.holders()):
            return
        if kind == ACQUIRE or lock.writer is not None:
            self.arena.note(kind, address, who)
        # A writer comes after all readers; what a reader releases is the second address.
        if (kind == ACQUIRE) == (lock.writer is not None):
            self.arena.note(kind, address + 1, who)

    def _unwind(self) -> None:
        """Release what the task holds, the latest first; its stack is given up."""
        while self.held:
            _, release = self.held.popitem()
            release()

    def hold(self, key: object, release: Callable[[], object]) -> None:
        """Note that the task has taken something."""
        self.held[key] = release

    def drop(self, key: object) -> None:
        """Release what the task has taken. KernelBug if it has not."""
        release = self.held.pop(key, None)
        if release is None:
            raise self.bug(f"release of {key!r}, which it does not hold")
        release()

    # Findings

    def bug(self, what: str, first: int = 0) -> KernelBug:
        """The exception for a bug of the driver, with its backtrace; the driver is then broken."""
        self.driver.broken = what
        return KernelBug("\n  ".join([what, *self.backtrace(first)]))

    def backtrace(self, first: int = 0) -> list[str]:
        """File, line and function of each frame of the task, the innermost first.

        `first` is the instruction at which it stands, if that made no request.
        """
        elf = self.arena.elf
        lines = []
        for address in [first, *self._frames()] if first else self._frames():
            place = elf.line(address)
            function = elf.function(address)
            if place is not None and function is not None and function not in _OURS:
                lines.append(f"{place[0]}:{place[1]} {function}")
        return lines

    def _frames(self) -> Iterator[int]:
        """The instruction that each frame of the task is in, the innermost first."""
        arena, words = self.arena, self.arena.words(self.number)
        frame = int(words[FRAME])
        if words[OPERATION] == ENCLS:
            # The code that stands for ENCLS keeps no frame of its caller's.
            yield int(words[ARGUMENTS + _ENCLS_AT])
        for _ in range(_FRAMES_MAX):
            if not arena.contains(frame, 16) or frame < words[SP]:
                return
            raw = arena.read(frame, 16)
            frame = int.from_bytes(raw[:8], "little")
            yield int.from_bytes(raw[8:], "little") - 1

    @property
    def place(self) -> str:
        """Where the task stands in the driver: `file:line function`."""
        places = map(self.arena.elf.place, self._frames())
        return next(filter(None, places), "")


def place_of(task: Task) -> str:
    """Where a suspended task of an execution stands in the driver; "" if it is not in it."""
    body: Any = task.body
    found: Call | None = None
    while isinstance(body, GeneratorType) and body.gi_frame is not None:
        if body.gi_code is Call.run.__code__:
            found = body.gi_frame.f_locals["self"]
        body = body.gi_yieldfrom
    return "" if found is None else found.place


_READ_IMPLIES_EXEC: Final = 0x0400000
_OURS: Final = frozenset(
    "k_main k_request k_serve_encls k_bug k_warn k_unmodelled __sanitizer_cov_trace_pc".split()
)


def _names(held: dict[object, Any]) -> str:
    return ", ".join(str(key) for key in held)
