"""What this process has at the addresses of a driver object: memory, and handlers of faults."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from softsgx.cdriver.elf import Elf
from softsgx.cdriver.errors import DriverError
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
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE

TASKS: Final = 64
STACK_SIZE: Final = 0x5000
HEAP_SIZE: Final = 0x2_0000_0000
_COUNTS_SIZE: Final = 0x400_0000
NOTES_MAX: Final = 0x10_0000
NOTE_SIZE: Final = 24
LINES_MAX: Final = 0x8_0000
LINE_SIZE: Final = 72
LINE: Final = 64
COPY_HEAP: Final = 0x1000_0000
"""Where the copy of the heap begins, behind that of the data."""

_SIGNALS: Final = (SIGILL, SIGBUS, SIGFPE, SIGSEGV)
_HANDLER_FLAGS: Final = 0x4800_0004  # SA_SIGINFO, SA_ONSTACK, SA_NODEFER
_SS_DISABLE: Final = 2
_ALTERNATE_STACK: Final = 0x1_0000

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


class _Process:
    """The object that is mapped; the handlers that were there, by signal."""

    image: Elf | None = None
    handlers: ClassVar[dict[int, int]] = {}


def words_at(address: int, count: int) -> Any:
    """Words of 8 bytes of memory, to be indexed."""
    return (ctypes.c_uint64 * count).from_address(address)


def counts(elf: Elf) -> Sequence[int]:
    """How often each instruction of an object was the first of a basic block, in this process."""
    size = elf.data - elf.start
    if _Process.image is not elf:
        return [0] * size
    found: list[int] = (ctypes.c_uint32 * size).from_address(elf.symbols["k_counts"].address)[:]
    return found


def map_object(elf: Elf) -> None:
    """Put an object at its addresses, in the place of another one."""
    if _Process.image is elf:
        return
    areas = [
        (elf.start, _pages(elf.end - elf.start)),
        (elf.stacks, TASKS * STACK_SIZE),
        (elf.heap, HEAP_SIZE),
        (elf.symbols["k_counts"].address, _COUNTS_SIZE),
        (elf.symbols["k_lines"].address, _pages(LINES_MAX * LINE_SIZE)),
        (elf.symbols["k_notes"].address, _pages(16 + NOTES_MAX * NOTE_SIZE)),
        (elf.symbols["k_copy"].address, COPY_HEAP + HEAP_SIZE),
    ]
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    if _Process.image is not None:
        former = _Process.image
        _libc.munmap(former.start, _pages(former.end - former.start))
        areas = areas[:1]
        counts = former.symbols["k_counts"].address
        ctypes.memset(counts, 0, 4 * (former.data - former.start))
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


def guard(handler: int, former_handlers: int) -> None:
    """Handle faults of the object's tasks; what was there before is put at `former_handlers`."""
    stack = _Stack()
    _libc.sigaltstack(None, ctypes.byref(stack))
    if stack.flags & _SS_DISABLE:
        size = _ALTERNATE_STACK
        prot, flags = PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
        stack = _Stack(_libc.mmap(None, size, prot, flags, -1, 0), 0, size)
        _libc.sigaltstack(ctypes.byref(stack), None)
    new = _Sigaction(handler=handler, flags=_HANDLER_FLAGS)
    old_handlers = words_at(former_handlers, 32)
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
