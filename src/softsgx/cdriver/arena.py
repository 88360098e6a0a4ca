"""A loaded driver object: its code, its data, its stacks and its heap, at their fixed address.

Every machine has an arena of its own, and all of them have the same addresses; so one is *resident*
and the others are kept aside. A task of the driver runs on a stack in the arena, from `resume` to
its next request; no frame of Python is on that stack.

Faults of a task come back to `resume` as the request CRASHED: there are handlers of SIGSEGV,
SIGBUS, SIGILL and SIGFPE, which leave faults of all other code to the handlers that were there.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

from softsgx.cdriver.elf import load
from softsgx.cdriver.errors import DriverError
from softsgx.cdriver.mapping import (
    NOTE_SIZE,
    NOTES_MAX,
    STACK_SIZE,
    TASKS,
    guard,
    map_object,
    words_at,
)
from softsgx.cdriver.operations import OPERATIONS, Operation
from softsgx.cdriver.own_state import OwnState
from softsgx.spec.bits import MASK64

NOTE: Final = struct.Struct("<QQIHH")

# The first words of a task; c/runtime.h.
SP, OPERATION, ARGUMENTS, ANSWER, SECOND, FRAME, WORDS = 0, 1, 2, 8, 9, 10, 11


class State(NamedTuple):
    """Everything that a machine has in the arena."""

    data: bytes
    heap: bytes
    stacks: tuple[tuple[int, bytes], ...]
    free: tuple[int, ...]


class _Process:
    """Which arena is at the addresses."""

    resident: Arena | None = None


class Arena(OwnState):
    """One machine's copy of a driver object, and the tasks that run in it."""

    def __init__(self, path: Path) -> None:
        found = path.stat()
        self.elf = load(path, found.st_mtime_ns, found.st_size)
        self._symbols = self.elf.symbols
        self._state: State | None = None
        # Numbers of tasks that are not in use, the next one last.
        self.free = list(range(TASKS - 1, -1, -1))
        self._functions: dict[str, Callable[..., int]] = {}
        self._task_size = self._symbols["k_tasks"].size // TASKS
        self._tasks = self._symbols["k_tasks"].address
        self._views = [words_at(self._task(n), WORDS) for n in range(TASKS)]
        self._brk = words_at(self._symbols["k_brk"].address, 1)
        self._resume: Callable[[int], int] | None = None
        self.noting = False

    # Memory

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the arena. DriverError if they are not in it."""
        self._check(address, size)
        return ctypes.string_at(address, size)

    def write(self, address: int, data: bytes | bytearray) -> None:
        """Change bytes of the arena. DriverError if they are not in it."""
        self._check(address, len(data))
        ctypes.memmove(address, bytes(data), len(data))

    def text(self, address: int) -> str:
        """A string that ends with a zero byte."""
        self._check(address, 1)
        return ctypes.string_at(address).decode("ascii", "replace")

    def contains(self, address: int, size: int = 1) -> bool:
        """Whether a range lies in data, stacks or heap, or in the constants of the object."""
        elf = self.elf
        if address >= elf.heap:
            return bool(address + size <= self._brk[0])
        if address >= elf.stacks:
            return address + size <= elf.stacks + TASKS * STACK_SIZE
        return address >= elf.start and address + size <= elf.end

    def _check(self, address: int, size: int) -> None:
        if _Process.resident is not self:
            self.activate()
        if not self.contains(address, size):
            raise WildPointer(address, size)

    def symbol(self, name: str) -> int:
        """The address of a function or variable of the object."""
        return self._symbols[name].address

    def set_word(self, name: str, value: int) -> None:
        """Assign to a variable of 8 bytes."""
        self.activate()
        words_at(self._symbols[name].address, 1)[0] = value

    def call(self, name: str, *arguments: int) -> int:
        """Call a function that makes no request, on the stack of the caller."""
        self.activate()
        return self._function(name, len(arguments))(*arguments)

    # Tasks

    def take(self) -> int:
        """Take a task; its number."""
        if not self.free:
            raise DriverError(f"driver: more than {TASKS} calls at a time")
        return self.free.pop()

    def prepare(
        self,
        number: int,
        function: str,
        arguments: Sequence[int],
        *,
        thread: int = 0,
        mm: int = 0,
        personality: int = 0,
        who: int = 0,
    ) -> None:
        """Let a task begin with a function at the first `resume`.

        `thread` is the task_struct that `current` is; 0 for the task's own, which has `mm` and
        `personality`. `who` is the number that notes have.
        """
        self.activate()
        address = self._task(number)
        self._function("k_prepare", 5)(address, self.symbol(function), thread, mm, personality)
        words = words_at(address + 8 * WORDS, 7)
        words[0] = who
        for n, argument in enumerate(arguments):
            words[2 + n] = argument & MASK64

    def caller_area(self, number: int) -> int:
        """Where a task's caller puts the area that it passes."""
        return self.call("k_caller_area", self._task(number))

    def resume(self, number: int, answer: int = 0) -> Operation:
        """Run a task until its next request, whose arguments are then in `words(number)`."""
        if _Process.resident is not self or self._resume is None:
            self.activate()
            self._resume = self._function("k_resume", 1)
        view = self._views[number]
        view[ANSWER] = answer & MASK64
        return OPERATIONS[self._resume(self._task(number))]

    def words(self, number: int) -> Any:
        """The words of a task, to be indexed by SP to FRAME."""
        return self._views[number]

    def arguments(self, number: int) -> list[int]:
        """What a task asks for; or in the first place, what its function has returned."""
        found: list[int] = self._views[number][ARGUMENTS:ANSWER]
        return found

    def set_second(self, number: int, value: int) -> None:
        """The second word of the answer to the next `resume`."""
        self._views[number][SECOND] = value & MASK64

    def end(self, number: int) -> None:
        """Give a task back, wherever it stands."""
        self.free.append(number)

    def _task(self, number: int) -> int:
        return self._tasks + number * self._task_size

    def _function(self, name: str, arguments: int) -> Callable[..., int]:
        found = self._functions.get(name)
        if found is None:
            kind = _function_type(arguments)
            found = self._functions[name] = kind(self._symbols[name].address)
        return found

    # What the compiler has the driver tell: c/notes.c

    def take_notes(self, on: bool) -> None:
        """Begin with no notes, or take no more."""
        self.activate()
        self.noting = on
        words = words_at(self.symbol("k_notes"), 2)
        words[0], words[1] = int(on), 0

    def note(self, kind: int, address: int, who: int) -> None:
        """Add a note without an instruction."""
        self.activate()
        words = words_at(self.symbol("k_notes"), 2)
        if words[0]:
            at = self.symbol("k_notes") + 16 + NOTE_SIZE * int(words[1])
            data = NOTE.pack(0, address, 0, kind, who)
            if words[1] < NOTES_MAX:
                ctypes.memmove(at, data, NOTE_SIZE)
            words[1] += 1

    def notes(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Instruction, address, size, kind, thread of each note. DriverError if some are lost."""
        start = self.symbol("k_notes")
        count = int(words_at(start, 2)[1])
        if count > NOTES_MAX:
            raise DriverError(f"driver: more than {NOTES_MAX} accesses to memory in an execution")
        return NOTE.iter_unpack(ctypes.string_at(start + 16, NOTE_SIZE * count))

    # Snapshots

    def save(self) -> State:
        """A copy of everything."""
        self.activate()
        elf, brk = self.elf, int(self._brk[0])
        stacks = []
        for number in range(TASKS):
            if number not in self.free:
                low, high = self._stack(number)
                stacks.append((low, ctypes.string_at(low, high - low)))
        data = ctypes.string_at(elf.data, elf.end - elf.data)
        heap = ctypes.string_at(elf.heap, brk - elf.heap)
        return State(data, heap, tuple(stacks), tuple(self.free))

    def state_key(self) -> tuple[object, Sequence[object], Sequence[object]]:
        """For `explore.states`: all that a step could read. Tasks not in use are left out."""
        self.activate()
        elf, size = self.elf, self._task_size
        total = blake2b(digest_size=16)
        after = self._tasks + TASKS * size
        for start, end in ((elf.data, self._tasks), (after, elf.end), (elf.heap, self._brk[0])):
            total.update(ctypes.string_at(start, end - start))
        for number in range(TASKS):
            if number not in self.free:
                low, high = self._stack(number)
                total.update(ctypes.string_at(self._task(number), size))
                total.update(ctypes.string_at(low, high - low))
        return (total.digest(), tuple(self.free)), (), ()

    def _stack(self, number: int) -> tuple[int, int]:
        """The part of a task's stack that is in use."""
        return int(self._views[number][SP]), self.elf.stacks + (number + 1) * STACK_SIZE

    def restore(self, state: State) -> None:
        """Go back to a copy, any number of times."""
        self.activate()
        self._put(state)
        self.free[:] = state.free

    def _put(self, state: State) -> None:
        elf = self.elf
        ctypes.memmove(elf.data, state.data, len(state.data))
        ctypes.memmove(elf.heap, state.heap, len(state.heap))
        for address, stack in state.stacks:
            ctypes.memmove(address, stack, len(stack))

    def activate(self) -> None:
        """Make this arena the one that is at the addresses."""
        resident = _Process.resident
        if resident is self:
            return
        if resident is not None:
            resident._state = resident.save()
        map_object(self.elf)
        _Process.resident = self
        if self._state is None:
            self._fresh()
        else:
            self._put(self._state)
            self._state = None
        guard(self.symbol("k_on_signal"), self.symbol("k_old_handler"))

    def _fresh(self) -> None:
        elf = self.elf
        size = elf.end - elf.data
        ctypes.memmove(elf.data, elf.initial.ljust(size, b"\0"), size)


class WildPointer(Exception):
    """The driver passed an address that is not its own."""

    def __init__(self, address: int, size: int) -> None:
        super().__init__(f"{size} bytes at {address:#x}")


@cache
def _function_type(arguments: int) -> Any:
    # With the lock of the interpreter held: nothing in the object calls back, or waits.
    return ctypes.PYFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * arguments)
