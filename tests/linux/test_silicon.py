"""tests/silicon.py through a kernel: the signal that a program gets, and what the vDSO returns."""

import pytest

from softsgx.cpu import Part
from softsgx.linux.process import SEGV_ACCERR, SEGV_MAPERR, SIGSEGV
from softsgx.linux.uapi import (
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    SgxEnclaveRun,
)
from softsgx.linux.vdso import VDSO_ENCLU
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.leaves import EENTER
from softsgx.system import HostThread, Machine
from softsgx.system.enclave import EnclaveThread
from softsgx.system.host import EnclaveEntry, SignalRaised
from tests.linux.world import world
from tests.silicon import ENTRIES, OTHER_LEAVES, PF, ROWS, Row

RW = PROT_READ | PROT_WRITE
KERNEL = 0xFFFF_8000_0000_0000
NON_CANONICAL = 1 << 47
SI_CODES = {"SI_KERNEL": 0x80, "SEGV_ACCERR": SEGV_ACCERR, "SEGV_MAPERR": SEGV_MAPERR}
BOTH = pytest.mark.parametrize("leaf", ENTRIES.values(), ids=ENTRIES)


def page(machine: Machine, host: HostThread, prot: int) -> int:
    """A page of anonymous memory, touched and then given these rights."""
    address = machine.run(host.alloc(PAGE_SIZE))
    machine.run(host.store(address, b"\1"))
    assert machine.run(host.mprotect(address, PAGE_SIZE, prot)) == 0
    return address


def operands(machine: Machine, host: HostThread, row: Row) -> tuple[int, int]:
    """RBX and RCX of a row, and the memory that it names."""
    rights = {
        "RBX read-only": PROT_READ,
        "RBX read and execute": PROT_READ | PROT_EXEC,
        "RBX write-only": PROT_WRITE,
        "RBX PROT_NONE": PROT_NONE,
    }
    rbx = page(machine, host, rights.get(row.operands, RW))
    if "never touched" in row.operands:
        rbx = machine.run(host.alloc(PAGE_SIZE))
    if row.operands == "RBX read-only, never touched":
        assert machine.run(host.mprotect(rbx, PAGE_SIZE, PROT_READ)) == 0
    if "unmapped" in row.operands:
        assert machine.run(host.munmap(rbx, PAGE_SIZE)) == 0
    fixed = {
        "RBX not canonical": NON_CANONICAL,
        "RBX a misaligned kernel address": KERNEL + 8,
        "RBX a kernel address, page-aligned": KERNEL,
        "RBX past the last user page": NON_CANONICAL - PAGE_SIZE,
        "RBX 0": 0,
    }
    rbx = fixed.get(row.operands, rbx) + (8 if "not page-aligned" in row.operands else 0)
    return rbx, NON_CANONICAL if "AEP" in row.operands else VDSO_ENCLU


def signal(machine: Machine, host: HostThread, leaf: int, rbx: int, rcx: int) -> tuple[int, ...]:
    """ENCLU outside the vDSO: signal, si_code, address, vector and error code of its frame."""
    lp = machine.kernel.lp(host.thread)
    with pytest.raises(SignalRaised) as caught:
        machine.run(host._access(lambda: lp.enclu(leaf, rbx, rcx)))
    found = caught.value.signal
    return found.number, found.code, found.address, found.vector, found.error_code


@BOTH
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.operands)
def test_entries_end_in_the_signal_of_silicon(leaf: int, row: Row) -> None:
    machine = Machine(epc="1M")
    host = machine.thread()
    rbx, rcx = operands(machine, host, row)
    address = rbx + 0xFFF if row.vector == PF else 0
    expected = (SIGSEGV, SI_CODES[row.si_code], address, row.vector, row.code)
    assert signal(machine, host, leaf, rbx, rcx) == expected


@pytest.mark.parametrize("leaf", OTHER_LEAVES)
def test_other_leaves_end_in_sigsegv(leaf: int) -> None:
    machine = Machine(epc="1M", part=Part(absent_leaves_fault=True))
    host = machine.thread()
    assert signal(machine, host, leaf, 0, 0) == (SIGSEGV, 0x80, 0, 13, 0)


def _program(_thread: EnclaveThread) -> Steps[None]:
    yield from ()


@BOTH
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.operands)
def test_the_vdso_returns_vector_code_and_address(leaf: int, row: Row) -> None:
    """RDI, RSI, RDX of the fix-up; the code is the one that a signal would have, sanitised."""
    machine = Machine(epc="1M")
    host = machine.thread()
    rbx, rcx = operands(machine, host, row)
    if rcx != VDSO_ENCLU:
        return  # the vDSO passes an AEP of its own
    run = SgxEnclaveRun(tcs=rbx)
    entry = EnclaveEntry(_program, lambda tcs: tcs)
    assert machine.run(host.enter(entry, run, leaf)) == 0
    address = rbx + 0xFFF if row.vector == PF else 0
    got = (run.exception_vector, run.exception_error_code, run.exception_addr)
    assert (run.function, *got) == (leaf, row.vector, row.code, address)


# Enclave areas: the kernel tests the rights of the area before it calls the driver.


@pytest.mark.parametrize("prot", [PROT_NONE, PROT_READ])
@pytest.mark.parametrize("touched", [False, True])
def test_a_tcs_mapped_without_write_is_refused_by_the_area(prot: int, touched: bool) -> None:
    """SEGV_ACCERR, and P only where the page was mapped already; rights given back, it enters."""
    w = world()
    (tcs, *_) = w.enclave.tcs
    if touched:
        assert w.call(_program) is None
    assert w.protect(tcs, prot) == 0
    present = 1 if touched and prot else 0
    expected = (SIGSEGV, SEGV_ACCERR, tcs + 0xFFF, PF, 6 | present)
    assert signal(w.machine, w.host, EENTER, tcs, VDSO_ENCLU) == expected
    assert w.protect(tcs, RW) == 0
    assert w.call(_program) is None
