"""capstone's `cs_disasm`, called directly: which bytes are instructions, and where control goes.

The package's own Python module takes 50 ms to import, for the constants of all architectures, and
makes an object for every instruction. A search that finds the boundaries of ten functions needs
neither, so this file loads the library of the (pinned) package and reads its array of results.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from softsgx.runner.errors import RunnerError

_CS_ARCH_X86: Final = 3
_CS_MODE_64: Final = 1 << 3
_CHUNK: Final = 4096  # instructions decoded at a time


class _Insn(ctypes.Structure):
    """cs_insn of capstone 5."""

    _fields_ = (
        ("id", ctypes.c_uint),
        ("address", ctypes.c_uint64),
        ("size", ctypes.c_uint16),
        ("bytes", ctypes.c_uint8 * 24),
        ("mnemonic", ctypes.c_char * 32),
        ("op_str", ctypes.c_char * 160),
        ("detail", ctypes.c_void_p),
    )


class Instruction(NamedTuple):
    """One decoded instruction; `operands` as capstone prints them."""

    address: int
    size: int
    mnemonic: str
    operands: str


@cache
def load() -> tuple[ctypes.PyDLL, ctypes.c_size_t]:
    """The library and a handle for 64-bit code. Raises RunnerError."""
    spec = find_spec("capstone")
    places = spec.submodule_search_locations if spec is not None else None
    if not places:
        raise RunnerError("capstone", "not installed: install softsgx with its dependencies")
    try:
        library = ctypes.PyDLL(str(Path(places[0]) / "lib" / "libcapstone.so"))
    except OSError as error:
        raise RunnerError("capstone", f"cannot be loaded: {error}") from None
    handle = ctypes.c_size_t()
    pointer = ctypes.POINTER(_Insn)
    library.cs_disasm.restype = ctypes.c_size_t
    library.cs_disasm.argtypes = (
        *(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64, ctypes.c_size_t),
        ctypes.POINTER(pointer),
    )
    library.cs_free.argtypes = (pointer, ctypes.c_size_t)
    if library.cs_open(_CS_ARCH_X86, _CS_MODE_64, ctypes.byref(handle)):
        raise RunnerError("capstone", "the library does not know x86-64")
    return library, handle


class Code:
    """The bytes of an executable segment, at their address, as instructions."""

    def __init__(self, content: bytes, vaddr: int) -> None:
        self.vaddr = vaddr
        self.end = vaddr + len(content)
        self.content = content  # keeps the memory that _base points to
        self._base = ctypes.cast(ctypes.c_char_p(content), ctypes.c_void_p).value or 0

    def __contains__(self, vaddr: int) -> bool:
        return self.vaddr <= vaddr < self.end

    def at(self, vaddr: int, size: int) -> bytes:
        """Bytes at an address."""
        return self.content[vaddr - self.vaddr : vaddr - self.vaddr + size]

    @contextmanager
    def _decoded(self, start: int, end: int, count: int) -> Iterator[tuple[int, Any]]:
        library, handle = load()
        found = ctypes.POINTER(_Insn)()
        size = min(end, self.end) - start
        where = self._base + start - self.vaddr
        number = library.cs_disasm(handle, where, size, start, count, ctypes.byref(found))
        try:
            yield number, found
        finally:
            if number:
                library.cs_free(found, number)

    def covering(self, start: int, target: int) -> Instruction | int:
        """Decode from `start` in a straight line to the instruction that has the byte `target`.

        If bytes on the way are not an instruction, returns their address.
        """
        # No instruction is longer than 15 bytes.
        while True:
            with self._decoded(start, target + 15, _CHUNK) as (number, found):
                if not number:
                    return start
                last = found[number - 1]
                if last.address + last.size <= target:
                    start = last.address + last.size
                    continue
                low, high = 0, number - 1
                while low < high:
                    middle = (low + high + 1) // 2
                    if found[middle].address <= target:
                        low = middle
                    else:
                        high = middle - 1
                return _instruction(found[low])

    def first(self) -> Instruction | None:
        """The instruction at the beginning; None if it is not complete."""
        with self._decoded(self.vaddr, self.end, 1) as (number, found):
            return _instruction(found[0]) if number else None

    def run(self, start: int, end: int) -> list[Instruction]:
        """The next few instructions in a straight line from `start`."""
        with self._decoded(start, min(end, start + 256), 32) as (number, found):
            return [_instruction(found[i]) for i in range(number)]


def _instruction(raw: Any) -> Instruction:
    return Instruction(raw.address, raw.size, raw.mnemonic.decode(), raw.op_str.decode())


_EXIT_NUMBERS: Final = ("0x3c", "0xe7")  # exit, exit_group
_ENDS: Final = frozenset("ret retf retfq iretq hlt ud2 ud1 ud0 sysret sysretq sysexit int3".split())
_BUDGET: Final = 200_000  # instructions; programs without any function bounds are small


def reach(code: Code, starts: list[int], low: int, high: int) -> dict[int, Instruction]:
    """Instructions in [low, high) that control reaches from `starts` by direct jumps and calls.

    Code after a call or system call that may never return is accepted only if it leads to a jump, a
    return or another call without meeting bytes that are not an instruction: hand-written programs
    put data after their exit.
    """
    reached: dict[int, Instruction] = {}
    pending = [start for start in starts if start in code and low <= start < high]
    while pending and len(reached) < _BUDGET:
        pending += _straight(code, pending.pop(), low, high, reached)
    return _without_overlaps(reached)


def _straight(
    code: Code, at: int, low: int, high: int, reached: dict[int, Instruction]
) -> list[int]:
    """Follow one path until it ends or joins another; returns the direct targets on it."""
    targets: list[int] = []
    doubtful: dict[int, Instruction] = {}  # since the last point known to be passed
    eax = ""
    while low <= at < high and at not in reached:
        decoded = code.run(at, high)
        if not decoded:
            return targets  # no instruction here: doubtful ones are not accepted
        for instruction in decoded:
            address, size, mnemonic, operands = instruction
            if address in reached:
                break
            doubtful[address] = instruction
            at = address + size
            if mnemonic == "syscall" and eax in _EXIT_NUMBERS:
                reached.update(doubtful)
                return targets
            if mnemonic in _ENDS or mnemonic.startswith(("j", "loop", "call", "xbegin")):
                reached.update(doubtful)
                doubtful = {}
                if operands.startswith("0x") and low <= int(operands, 16) < high:
                    targets.append(int(operands, 16))
                if mnemonic in _ENDS or mnemonic in ("jmp", "ljmp"):
                    return targets
            elif mnemonic == "syscall":
                reached.update(doubtful)
                doubtful = {}
            eax = _eax_after(instruction, eax)
    if low <= at < high:
        reached.update(doubtful)  # the path joined one that is accepted
    return targets


def _eax_after(instruction: Instruction, before: str) -> str:
    """The constant that MOV has put in EAX, after an instruction; "" if not known."""
    target, _, source = instruction.operands.partition(", ")
    if instruction.mnemonic in ("mov", "movabs") and target in ("eax", "rax"):
        return source
    return "" if target in ("eax", "rax", "al", "ax") else before


def _without_overlaps(reached: dict[int, Instruction]) -> dict[int, Instruction]:
    """Drop both of two instructions that overlap: one of them is not real."""
    spoiled: set[int] = set()
    end, owner = 0, 0
    for address in sorted(reached):
        if address < end:
            spoiled |= {address, owner}
        if address + reached[address].size > end:
            end, owner = address + reached[address].size, address
    return {a: i for a, i in reached.items() if a not in spoiled} if spoiled else reached
