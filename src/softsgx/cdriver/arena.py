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
    COPY_HEAP,
    LINE,
    LINE_SIZE,
    NOTE_SIZE,
    NOTES_MAX,
    STACK_SIZE,
    TASKS,
    guard,
    map_object,
    words_at,
)
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
        self._arguments = [
            words_at(self._task(n) + 8 * ARGUMENTS, ANSWER - ARGUMENTS) for n in range(TASKS)
        ]
        self._resume = self._function("k_resume", 2)
        # The state that was restored last; and the one whose copy is there, with its digest.
        self._restored: State | None = None
        self._copied: tuple[State, bytes] | None = None
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
        live: bool = False,
    ) -> None:
        """Let a task begin with a function at the first `resume`.

        `thread` is the task_struct that `current` is; 0 for the task's own, which has `mm` and
        `personality`. `who` is the number that notes have. `live`: as for `set_live`.
        """
        self.activate()
        address = self._task(number)
        self._function("k_prepare", 5)(address, self.symbol(function), thread, mm, personality)
        words = words_at(address + 8 * WORDS, 8)
        words[0], words[1] = who, int(live)
        for n, argument in enumerate(arguments):
            words[3 + n] = argument & MASK64

    def caller_area(self, number: int) -> int:
        """Where a task's caller puts the area that it passes."""
        return self.call("k_caller_area", self._task(number))

    def resume(self, number: int, answer: int = 0) -> int:
        """Run a task until its next request: the number of the operation."""
        if _Process.resident is not self:
            self.activate()
        return self._resume(self._tasks + number * self._task_size, answer & MASK64)

    def words(self, number: int) -> Any:
        """The words of a task, to be indexed by SP to FRAME."""
        return self._views[number]

    def arguments(self, number: int) -> list[int]:
        """What a task asks for; or in the first place, what its function has returned."""
        found: list[int] = self._arguments[number][:]
        return found

    def set_second(self, number: int, value: int) -> None:
        """The second word of the answer to the next `resume`."""
        self._views[number][SECOND] = value & MASK64

    def set_live(self, number: int, live: bool) -> None:
        """Whether no other task gets in at a point, so that spinlocks need none."""
        words_at(self._task(number) + 8 * (WORDS + 1), 1)[0] = int(live)

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
        size = self._task_size
        total = blake2b(self._base_digest(), digest_size=16)
        for start, length in self._changed():
            total.update(ctypes.string_at(start, length))
        for number in range(TASKS):
            if number not in self.free:
                low, high = self._stack(number)
                total.update(ctypes.string_at(self._task(number), size))
                total.update(ctypes.string_at(low, high - low))
        return (total.digest(), tuple(self.free)), (), ()

    def _base_digest(self) -> bytes:
        """Copy the state that was restored last, with which states are compared; its digest."""
        state = self._restored
        if state is None:
            return b""
        if self._copied is None or self._copied[0] is not state:
            copy = self.symbol("k_copy")
            ctypes.memmove(copy, state.data, len(state.data))
            ctypes.memmove(copy + COPY_HEAP, state.heap, len(state.heap))
            self._copied = state, blake2b(state.data + state.heap, digest_size=16).digest()
        return self._copied[1]

    def _changed(self) -> list[tuple[int, int]]:
        """Where all that differs from the state restored last is now: addresses and sizes."""
        elf, brk, state = self.elf, int(self._brk[0]), self._restored
        after = self._tasks + TASKS * self._task_size
        data = [(elf.data, self._tasks), (after, elf.end)]
        if state is None:
            return [(start, end - start) for start, end in (*data, (elf.heap, brk))]
        copy, found = self.symbol("k_copy"), 0
        changed = self._function("k_changed", 4)
        for start, end in data:
            found = changed(start, copy + start - elf.data, (end - start) // LINE, found)
        lines = min(len(state.heap), brk - elf.heap) // LINE
        found = changed(elf.heap, copy + COPY_HEAP, lines, found)
        rest = elf.heap + lines * LINE
        return [(self.symbol("k_lines"), found * LINE_SIZE), (rest, brk - rest)]

    def _stack(self, number: int) -> tuple[int, int]:
        """The part of a task's stack that is in use."""
        return int(self._views[number][SP]), self.elf.stacks + (number + 1) * STACK_SIZE

    def restore(self, state: State) -> None:
        """Go back to a copy, any number of times."""
        self.activate()
        self._put(state)
        self._restored = state
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
        self._copied = None
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
