"""What a thread does between two ENCLU, executed by the supervisor.

Memory managers accept, extend and replace pages in loops: EACCEPT, a dozen plain instructions, the
next EACCEPT. For each the thread would have to stop, and two processes to take turns. So after such
a leaf the supervisor goes on with the thread's registers, in the enclave's memory, as long as the
instructions are of `instructions.py` and touch nothing but the enclave, each access translated by
the model. Where it does not get to another ENCLU, the thread goes on by itself from there.

It stays within one turn: other threads and the tick wait no longer than for a long system call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.cpu.fault import Fault
from softsgx.mem.pagetable import PTE_PFN_MASK
from softsgx.mem.tlb import ABORT, FETCH, READ, WRITE
from softsgx.runner.code.encoding import LONGEST
from softsgx.runner.code.trapped import ENCLU
from softsgx.runner.native.instructions import Act, decode
from softsgx.spec import leaves
from softsgx.spec.bits import MASK32, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.msr import RFLAGS_AC, RFLAGS_TF
from softsgx.spec.registers import RAX, RFLAGS, RIP

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.cpu import LogicalProcessor
    from softsgx.runner.process.arena import ArenaMemory

ENCLUS: Final = 64  # in one turn
LEAVES: Final = frozenset({leaves.EACCEPT, leaves.EACCEPTCOPY, leaves.EMODPE})
_BLOCKS: Final = 12  # to the next ENCLU
_INSTRUCTIONS: Final = 32  # of a block
_MISSES: Final = 8  # in a row, after which a place is tried once in as many times
_REMEMBERED: Final = 256
_FS: Final = 0x64
_XMM_AT, _XMM_SIZE = 160, 16  # in the legacy region of XSAVE


class _UnableError(Exception):
    """The processor has to execute this instruction."""


class _Block(NamedTuple):
    """Instructions up to one that goes elsewhere, to an ENCLU (`reaches`), or to another."""

    code: bytes
    acts: tuple[tuple[int, Act], ...]
    end: int
    reaches: bool


class Ahead:
    """An `instructions.Machine`: the enclave in which a logical processor is."""

    def __init__(self, memory: ArenaMemory) -> None:
        self.memory = memory
        self.lp: LogicalProcessor
        self.regs: list[int] = []
        self._extended: Callable[[], None] | None = None
        self._blocks: dict[int, _Block] = {}
        self._misses: dict[int, int] = {}

    def to_enclu(self, lp: LogicalProcessor, extended: Callable[[], None]) -> bool:
        """Execute up to the next ENCLU; True if the processor is at one of LEAVES.

        `extended` loads the extended state into the logical processor.
        """
        start = lp.regs[RIP]
        if lp.log.on or lp.regs[RFLAGS] & (RFLAGS_TF | RFLAGS_AC):
            return False
        misses = self._misses.get(start, 0)
        if misses >= _MISSES and misses % _MISSES:
            self._misses[start] = misses + 1
            return False
        self.lp, self.regs, self._extended = lp, lp.regs, extended
        found = self._run()
        if len(self._misses) > _REMEMBERED:
            self._misses.clear()
        self._misses[start] = 0 if found else misses + 1
        return found

    def _run(self) -> bool:
        regs = self.regs
        try:
            for _ in range(_BLOCKS):
                block = self._block(regs[RIP])
                target: int | None = None
                for at, act in block.acts:
                    regs[RIP] = at
                    target = act(self)
                regs[RIP] = block.end if target is None else target
                if block.reaches:
                    return regs[RAX] & MASK32 in LEAVES
                if not block.acts:
                    return False
        except _UnableError:
            pass
        return False

    def _block(self, rip: int) -> _Block:
        """The block at `rip`; _UnableError if it cannot be fetched."""
        physical = self._place(rip, 1, FETCH)
        block = self._blocks.get(rip)
        memory = self.memory
        if block is not None and memory.read(physical, len(block.code)) == block.code:
            return block
        if len(self._blocks) > _REMEMBERED:
            self._blocks.clear()
        code = memory.read(physical, PAGE_SIZE - (rip & PAGE_MASK))
        block = self._blocks[rip] = _decoded(code[: LONGEST * (_INSTRUCTIONS + 1)], rip)
        return block

    # As instructions.Machine

    def _place(self, address: int, size: int, access: int) -> int:
        """The physical address for an access within one page of the enclave."""
        lp = self.lp
        if not lp.elrange_base <= address <= lp.elrange_end - size:
            raise _UnableError
        if address & PAGE_MASK > PAGE_SIZE - size:
            raise _UnableError
        entry = lp.tlb.entries.get(address >> PAGE_SHIFT, 0)
        if not entry & access:
            try:
                entry = lp.translate(address, access)
            except Fault:
                raise _UnableError from None  # it will fault by itself
        if entry & ABORT:
            raise _UnableError
        return entry & PTE_PFN_MASK | address & PAGE_MASK

    def load(self, address: int, size: int) -> int:
        """Read an integer."""
        return self.memory.read_int(self._place(address, size, READ), size)

    def store(self, address: int, data: bytes) -> None:
        """Write."""
        self.memory.write(self._place(address, len(data), WRITE), data)

    def base(self, segment: int) -> int:
        """The base of FS or GS."""
        return self.lp.fsbase if segment == _FS else self.lp.gsbase

    def xmm(self, number: int) -> bytes:
        """An XMM register."""
        if self._extended is not None:
            self._extended()
            self._extended = None
        at = _XMM_AT + number * _XMM_SIZE
        return bytes(self.lp.x.legacy[at : at + _XMM_SIZE])


def _decoded(code: bytes, rip: int) -> _Block:
    acts: list[tuple[int, Act]] = []
    at, reaches = 0, False
    while len(acts) < _INSTRUCTIONS:
        if code[at : at + len(ENCLU)] == ENCLU:
            reaches = True
            break
        found = decode(code[at : at + LONGEST], rip + at)
        if found is None:
            break
        acts.append((rip + at, found.act))
        at += found.size
        if found.ends:
            break
    return _Block(code[: at + len(ENCLU) * reaches], tuple(acts), rip + at, reaches)
