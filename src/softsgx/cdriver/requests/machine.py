"""The machine: CPUID, MSRs, hashes, and ENCLS with its operands."""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from softsgx.cdriver.requests.memory import flush, refresh, window_address, window_of
from softsgx.cpu.fault import Fault
from softsgx.linux.sgx.encls import ENCLS_FAULT_FLAG
from softsgx.mem.pagetable import direct
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.paging import PAGEINFO, PCMD, SECINFO
from softsgx.spec.registers import RBX, RFLAGS
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_PREV_TRK_INCMPL

if TYPE_CHECKING:
    from softsgx.cdriver.call import Call
    from softsgx.cdriver.requests.handlers import Handlers
    from softsgx.linux.kernel import Operands
    from softsgx.sim import Steps

# An answer with this bit is an exception; see k_serve_encls.
_EXCEPTION: Final = 1 << 63
_PAGEINFO_LEAVES: Final = frozenset(
    {leaves.ECREATE, leaves.EADD, leaves.EAUG, leaves.EWB, leaves.ELDU, leaves.ELDB}
)
_PCMD_LEAVES: Final = frozenset({leaves.EWB, leaves.ELDU, leaves.ELDB})
_SECINFO_LEAVES: Final = frozenset({leaves.EMODPR, leaves.EMODT})
_WITH_OPERANDS: Final = _PAGEINFO_LEAVES | _SECINFO_LEAVES | {leaves.EINIT}
# Leaves that a test can make fail as if another leaf were in its way.
_FAILING: Final = {
    leaves.EMODPR: ("EMODPR", SGX_EPC_PAGE_CONFLICT),
    leaves.ETRACK: ("ETRACK", SGX_PREV_TRK_INCMPL),
}


def _cpuid(call: Call, leaf: int, subleaf: int, out: int, *_: int) -> int:
    processor = call.kernel.processor
    sections = [(base, pages * PAGE_SIZE) for base, pages in processor.epc.sections]
    call.arena.write(out, struct.pack("<4I", *processor.part.cpuid(leaf, subleaf, sections)))
    return 0


def _wrmsr(call: Call, msr: int, value: int, *_: int) -> int:
    call.kernel.lp(call.current).wrmsr(msr, value)
    return 0


def _sha256(call: Call, data: int, size: int, out: int, *_: int) -> int:
    call.arena.write(out, sha256(call.arena.read(data, size)).digest())
    return 0


class Operand:
    """The memory operands of one ENCLS, copied from the arena to where the processor can read them.

    A copy has the alignment of the original. Memory in a window is the frame that it shows, and
    other memory of the kernel is what it is.
    """

    def __init__(self, call: Call) -> None:
        self.driver = call.driver
        self.arena = call.arena
        self.kernel = call.kernel
        self.windows: list[int] = []
        self.blocks: list[Operands] = []
        self.frames: list[int] = []
        # What the leaf may write: copy, original, size.
        self.outputs: list[tuple[int, int, int]] = []

    def structure(self, address: int, size: int, align: int, *, output: bool = False) -> int:
        """The address to pass for a structure."""
        known = self._known(address)
        if known is not None:
            return known
        return self._copy(address, self.arena.read(address, size), align, output)

    def page(self, address: int, *, output: bool = False) -> int:
        """The address to pass for a page."""
        known = self._known(address)
        if known is not None:
            return known
        pfn = self.kernel.alloc_page()
        self.frames.append(pfn)
        base = address & ~PAGE_MASK
        self.kernel.processor.memory.write_page(pfn, self.arena.read(base, PAGE_SIZE))
        copy = direct(pfn << PAGE_SHIFT)
        if output:
            self.outputs.append((pfn << PAGE_SHIFT, base, PAGE_SIZE))
        return copy + address - base

    def pageinfo(self, address: int, leaf: int) -> int:
        """The address to pass for a PAGEINFO, whose own pointers are replaced alike."""
        raw = self.arena.read(address, PAGEINFO.SIZE)
        linaddr, contents, metadata, secs = PAGEINFO.S.unpack(raw)
        output = leaf == leaves.EWB
        kind = PCMD if leaf in _PCMD_LEAVES else SECINFO
        contents = self.page(contents, output=output)
        metadata = self.structure(metadata, kind.SIZE, kind.ALIGN, output=output)
        return self._copy(
            address, PAGEINFO.S.pack(linaddr, contents, metadata, secs), PAGEINFO.ALIGN, False
        )

    def done(self) -> None:
        """Bring what the leaf has written to the arena, and give the copies back."""
        memory = self.kernel.processor.memory
        for physical, original, size in self.outputs:
            self.arena.write(original, memory.read(physical, size))
        for window in self.windows:
            refresh(self.driver, window)
        for block in self.blocks:
            self.kernel.put_operands(block)
        for pfn in self.frames:
            self.kernel.free_page(pfn)

    def _known(self, address: int) -> int | None:
        """The address to pass if nothing has to be copied."""
        window = window_of(self.driver, address)
        if window is not None:
            flush(self.driver, window)
            self.windows.append(window)
            return window_address(self.driver, address, window)
        return None if self.arena.contains(address) else address

    def _copy(self, address: int, data: bytes, align: int, output: bool) -> int:
        block = self.kernel.get_operands()
        self.blocks.append(block)
        offset = address & (align - 1)
        self.kernel.processor.memory.write(block.physical + offset, data)
        if output:
            self.outputs.append((block.physical + offset, address, len(data)))
        return block.address + offset


def _fails(call: Call, leaf: int) -> bool:
    """Whether a test lets the leaf fail; ETRACK then fails when it is repeated, too."""
    again, call.fails_again = call.fails_again, False
    if again and leaf == leaves.ETRACK:
        return True
    failed = call.kernel.fail(_FAILING[leaf][0])
    call.fails_again = failed and leaf == leaves.ETRACK
    return failed


def _encls(call: Call, leaf: int, rbx: int, rcx: int, rdx: int, at: int, _: int) -> Steps[int]:
    """Execute one leaf on the processor of the call's thread, and restore its registers."""
    kernel = call.kernel
    call.arena.set_second(call.number, rbx)
    if leaf in _FAILING and _fails(call, leaf):
        return _FAILING[leaf][1]
    operand: Operand | None = None
    if leaf in _WITH_OPERANDS:
        operand = Operand(call)
        if leaf in _PAGEINFO_LEAVES:
            rbx = operand.pageinfo(rbx, leaf)
        elif leaf in _SECINFO_LEAVES:
            rbx = operand.structure(rbx, SECINFO.SIZE, SECINFO.ALIGN)
        else:
            rbx, rdx = operand.page(rbx), operand.page(rdx)
    lp = kernel.lp(call.current)
    assert not lp.enclave_mode, f"{call.current.name}: ENCLS while a thread is inside an enclave"
    regs = lp.regs
    saved = regs[:4], regs[RFLAGS]
    try:
        status = yield from lp.encls_steps(leaf, rbx, rcx, rdx)
        if leaf == leaves.EDBGRD:
            call.arena.set_second(call.number, regs[RBX])
    except Fault as fault:
        return _EXCEPTION | ENCLS_FAULT_FLAG | fault.vector
    finally:
        regs[:4], regs[RFLAGS] = saved
        if operand is not None:
            operand.done()
    return 0 if status is None else int(status)


HANDLERS: Final[Handlers] = {
    "CPUID": _cpuid,
    "WRMSR": _wrmsr,
    "SHA256": _sha256,
    "ENCLS": _encls,
}
