"""A loaded driver object: its code, its data, its stacks and its heap, at their fixed address.

Every machine has an arena of its own, and all of them have the same addresses; so one is *resident*
and the others are kept aside. A task of the driver runs on a stack in the arena, from `resume` to
its next request; no frame of Python is on that stack.

Faults of a task come back to `resume` as the request CRASHED: there are handlers of SIGSEGV,
SIGBUS, SIGILL and SIGFPE, which leave faults of all other code to the handlers that were there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from softsgx.cdriver.elf import Elf, load
from softsgx.cdriver.errors import DriverError
from softsgx.cdriver.operations import OPERATIONS, Operation
from softsgx.cdriver.own_state import OwnState
from softsgx.linux.process import SIGBUS, SIGFPE, SIGILL, SIGSEGV
from softsgx.linux.uapi import (
    MAP_ANONYMOUS,
    MAP_FIXED_NOREPLACE,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SIZE

TASKS: Final = 64
STACK_SIZE: Final = 0x5000
HEAP_SIZE: Final = 0x2_0000_0000

_SIGNALS: Final = (SIGILL, SIGBUS, SIGFPE, SIGSEGV)
_HANDLER_FLAGS: Final = 0x4800_0004  # SA_SIGINFO, SA_ONSTACK, SA_NODEFER
_SS_DISABLE: Final = 2
_ALTERNATE_STACK: Final = 0x1_0000

# The first words of a task; c/runtime.h.
SP, OPERATION, ARGUMENTS, ANSWER, SECOND, FRAME, WORDS = 0, 1, 2, 8, 9, 10, 11

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),
)  # fmt: skip
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class _Sigaction(ctypes.Structure):
    _fields_: ClassVar = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


class _Stack(ctypes.Structure):
    _fields_: ClassVar = [
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    ]


class State(NamedTuple):
    """Everything that a machine has in the arena."""

    data: bytes
    heap: bytes
    stacks: tuple[tuple[int, bytes], ...]
    free: tuple[int, ...]


class _Process:
    """What this process has at the addresses of the arena."""

    resident: Arena | None = None
    image: Elf | None = None
    # The handlers that were there, by signal.
    handlers: ClassVar[dict[int, int]] = {}


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
        self._views = [_words(self._task(n), WORDS) for n in range(TASKS)]
        self._brk = _words(self._symbols["k_brk"].address, 1)
        self._resume: Callable[[int], int] | None = None

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
        _words(self._symbols[name].address, 1)[0] = value

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
    ) -> None:
        """Let a task begin with a function at the first `resume`.

        `thread` is the task_struct that `current` is; 0 for the task's own, which has `mm` and
        `personality`.
        """
        self.activate()
        address = self._task(number)
        self._function("k_prepare", 5)(address, self.symbol(function), thread, mm, personality)
        words = _words(address + 8 * (WORDS + 1), 5)
        for n, argument in enumerate(arguments):
            words[n] = argument & MASK64

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
        if _Process.image is not self.elf:
            _map(self.elf)
        _Process.resident = self
        if self._state is None:
            self._fresh()
        else:
            self._put(self._state)
            self._state = None
        _guard(self)

    def _fresh(self) -> None:
        elf = self.elf
        size = elf.end - elf.data
        ctypes.memmove(elf.data, elf.initial.ljust(size, b"\0"), size)


class WildPointer(Exception):
    """The driver passed an address that is not its own."""

    def __init__(self, address: int, size: int) -> None:
        super().__init__(f"{size} bytes at {address:#x}")


def _words(address: int, count: int) -> Any:
    return (ctypes.c_uint64 * count).from_address(address)


@cache
def _function_type(arguments: int) -> Any:
    # With the lock of the interpreter held: nothing in the object calls back, or waits.
    return ctypes.PYFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * arguments)


def _map(elf: Elf) -> None:
    """Put an object at its addresses, in the place of another one."""
    areas = [
        (elf.start, _pages(elf.end - elf.start)),
        (elf.stacks, TASKS * STACK_SIZE),
        (elf.heap, HEAP_SIZE),
    ]
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    if _Process.image is not None:
        former = _Process.image
        _libc.munmap(former.start, _pages(former.end - former.start))
        areas = areas[:1]
    for start, size in areas:
        prot = PROT_READ | PROT_WRITE
        got = _libc.mmap(start, size, prot, flags | MAP_FIXED_NOREPLACE, -1, 0)
        if got != start:
            raise DriverError(f"driver: no room at {start:#x} in this process")
    for number in range(TASKS):
        # The lowest page of each stack: what runs over its end faults.
        _libc.mprotect(elf.stacks + number * STACK_SIZE, PAGE_SIZE, 0)
    for address, data in elf.segments:
        ctypes.memmove(address, data, len(data))
    if _libc.mprotect(elf.start, elf.data - elf.start, PROT_READ | PROT_EXEC):
        raise DriverError("driver: this system forbids executable memory")
    _Process.image = elf


def _pages(size: int) -> int:
    return (size + PAGE_MASK) & ~PAGE_MASK


def _guard(arena: Arena) -> None:
    """Handle faults of the resident object's tasks."""
    stack = _Stack()
    _libc.sigaltstack(None, ctypes.byref(stack))
    if stack.flags & _SS_DISABLE:
        size = _ALTERNATE_STACK
        prot, flags = PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
        stack = _Stack(_libc.mmap(None, size, prot, flags, -1, 0), 0, size)
        _libc.sigaltstack(ctypes.byref(stack), None)
    handler = arena.symbol("k_on_signal")
    new = _Sigaction(handler=handler, flags=_HANDLER_FLAGS)
    old_handlers = _words(arena.symbol("k_old_handler"), 32)
    for number in _SIGNALS:
        old = _Sigaction()
        _libc.sigaction(number, ctypes.byref(new), ctypes.byref(old))
        former = int(old.handler or 0)
        # What is there since the object before this one is ours as well.
        if former not in _OURS:
            _Process.handlers[number] = former
        old_handlers[number] = _Process.handlers[number]
    _OURS[handler] = None


_OURS: Final[dict[int, None]] = {}
