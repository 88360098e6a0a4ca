"""The processor's part of tests/silicon.py, and the other side of each switch that it decides."""

import pytest

from softsgx.cpu import Bare, Fault, LogicalProcessor, Part, Readings
from softsgx.cpu.bare import AEP
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_P, PTE_U, PTE_W
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.leaves import ERESUME
from softsgx.spec.registers import RIP
from tests.cpu.thread import NON_CANONICAL, before, thread
from tests.silicon import ENTRIES, GP, OTHER_LEAVES, ROW, ROWS, Row

PAGE = 0x7000_0000
USED = PTE_P | PTE_U | PTE_A | PTE_D
KERNEL = 0xFFFF_8000_0000_0000
BOTH = pytest.mark.parametrize("leaf", ENTRIES.values(), ids=ENTRIES)
# What the kernel does before it sends a signal: it faults memory in, and hides its page tables.
KERNELS = (
    "RBX ordinary memory, never touched",
    "RBX a kernel address, page-aligned",
    "RBX past the last user page",
)


def machine(readings: Readings | None = None) -> LogicalProcessor:
    """A processor without enclaves, as a program finds it on a machine that hides SGX."""
    bare = Bare(4, part=Part(absent_leaves_fault=True), readings=readings or Readings())
    return bare.lp


def operands(lp: LogicalProcessor, row: Row) -> tuple[int, int]:
    """RBX and RCX, and the page tables of the row. There is no kernel."""
    space, ram = lp.space, lp.processor.memory.alloc()
    if "ordinary" in row.operands or row.operands.endswith((" mapped", "write-only")):
        space.map(PAGE, ram)
    if row.operands == "RBX read-only":
        space.map(PAGE, ram, write=False)
    if row.operands == "RBX read and execute":
        space.map(PAGE, ram, write=False, execute=True)
    rbx = {
        "RBX not canonical": NON_CANONICAL,
        "RBX a misaligned kernel address": KERNEL + 8,
        "RBX a kernel address, page-aligned": KERNEL,
        "RBX past the last user page": NON_CANONICAL - PAGE_SIZE,
        "RBX 0": 0,
    }.get(row.operands, PAGE)
    if "not page-aligned" in row.operands:
        rbx += 8
    return rbx, NON_CANONICAL if "AEP" in row.operands else AEP


def refused(lp: LogicalProcessor, leaf: int, rbx: int, rcx: int) -> Fault:
    """The fault of an ENCLU, which leaves all registers but its operands alone."""
    lp.regs[RIP] = 0x40_0000
    with pytest.raises(Fault) as caught:
        lp.enclu(leaf, rbx, rcx)
    assert lp.regs[RIP] == 0x40_0000
    return caught.value


@BOTH
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.operands)
@pytest.mark.parametrize("high", [0, 0xFFFF_FFFF << 32], ids=["", "bits 63:32 of RAX"])
def test_entries_fault_as_silicon(leaf: int, row: Row, high: int) -> None:
    lp = machine()
    rbx, rcx = operands(lp, row)
    fault = refused(lp, high | leaf, rbx, rcx)
    assert fault.vector == row.vector
    if row.operands not in KERNELS:
        assert fault.code == row.code
    if row.vector != GP:
        assert fault.address == rbx + 0xFFF


@pytest.mark.parametrize("leaf", OTHER_LEAVES)
@pytest.mark.parametrize("rbx", [0, PAGE, PAGE + 8, NON_CANONICAL, KERNEL])
def test_other_leaves_are_gp_whatever_the_operands(leaf: int, rbx: int) -> None:
    fault = refused(machine(), leaf, rbx, rbx)
    assert (fault.vector, fault.code) == (GP, 0)


# What cannot be seen without an enclave follows the rows that can.


@BOTH
def test_a_tcs_mapped_read_only_cannot_be_entered(leaf: int) -> None:
    """A program entered here that died on hardware."""
    t = before(leaf)
    t.enclave.map(t.rbx, t.tcs_page, write=False)
    fault = refused(t.lp, leaf, t.rbx, t.rcx)
    assert (fault.rule, fault.code, fault.address) == ("PAGING.03", 7, t.rbx + 0xFFF)
    t.enclave.map(t.rbx, t.tcs_page)
    t.lp.enclu(leaf, t.rbx, t.rcx)
    assert t.lp.enclave_mode


@BOTH
@pytest.mark.parametrize("written", [True, False])
def test_reading_tcs_written(leaf: int, written: bool) -> None:
    t = before(leaf, lambda: thread(readings=Readings(tcs_written=written)))
    t.enclave.map(t.rbx, t.tcs_page)
    t.lp.enclu(leaf, t.rbx, t.rcx)
    assert t.lp.space.lookup(t.rbx) & (PTE_A | PTE_D) == PTE_A | (PTE_D if written else 0)
    t.lp.interrupt()
    t.enclave.map(t.rbx, t.tcs_page, write=False)
    if written:
        assert refused(t.lp, ERESUME, t.rbx, t.rcx).code == 7
    else:
        t.lp.enclu(ERESUME, t.rbx, t.rcx)
    lp = machine(Readings(tcs_written=written))
    rbx, rcx = operands(lp, ROW["RBX ordinary memory, present and writable"])
    assert refused(lp, leaf, rbx, rcx).code == (0x8007 if written else 0x8005)
    lp.space.unmap(rbx)
    assert refused(lp, leaf, rbx, rcx).code == (6 if written else 4)


@BOTH
@pytest.mark.parametrize("last", [True, False])
def test_reading_tcs_last_byte(leaf: int, last: bool) -> None:
    lp = machine(Readings(tcs_last_byte=last))
    rbx, rcx = operands(lp, ROW["RBX ordinary memory, present and writable"])
    for _ in ("not EPC", "not mapped"):
        assert refused(lp, leaf, rbx, rcx).address == rbx + (0xFFF if last else 0)
        lp.space.unmap(rbx)


@BOTH
@pytest.mark.parametrize("last", [True, False])
def test_a_refusal_by_the_epcm_names_the_same_byte(leaf: int, last: bool) -> None:
    t = before(leaf, lambda: thread(readings=Readings(tcs_last_byte=last)))
    t.bare.processor.epcm.put(t.tcs_page, 0)
    fault = refused(t.lp, leaf, t.rbx, t.rcx)
    assert (fault.code, fault.address) == (0x8007, t.rbx + (0xFFF if last else 0))


@BOTH
@pytest.mark.parametrize("first", [True, False])
def test_reading_aep_before_tcs(leaf: int, first: bool) -> None:
    """The AEP after the page: then a page not mapped, or not EPC, is refused first."""
    lp = machine(Readings(aep_before_tcs=first))
    rbx, rcx = operands(lp, ROW["RBX ordinary memory, RCX (AEP) not canonical"])
    assert refused(lp, leaf, rbx, rcx).vector == (GP if first else 14)
    lp.space.unmap(rbx)
    assert refused(lp, leaf, rbx, rcx).vector == (GP if first else 14)


# Memory that a real process has: its entries are asked for, and not kept.


@BOTH
@pytest.mark.parametrize(
    ("entry", "code"),
    [(USED | PTE_W, 0x8007), (USED, 7), (0, 6)],
    ids=["writable", "read-only", "none"],
)
def test_entries_from_elsewhere_are_those_of_page_tables(leaf: int, entry: int, code: int) -> None:
    lp = machine()
    asked: list[int] = []

    def elsewhere(address: int) -> int:
        asked.append(address)
        return entry

    lp.space.host_pte = elsewhere
    fault = refused(lp, leaf, PAGE, AEP)
    assert (fault.code, fault.address) == (code, PAGE + 0xFFF)
    assert (asked, lp.space.ptes) == ([PAGE + 0xFFF], {})


def test_the_model_s_own_entries_come_first() -> None:
    t = before(2)
    t.lp.space.host_pte = lambda address: pytest.fail(f"asked for {address:#x}")
    t.enter()
    t.lp.load(t.enclave.data[0], 1)


@pytest.mark.parametrize("access", ["load", "store", "fetch"])
def test_ordinary_memory_in_elrange_from_elsewhere(access: str) -> None:
    """It is not in the EPC: an SGX violation, whoever has the entry."""
    t = before(2)
    t.enter()
    data = t.enclave.data[0]
    t.lp.space.unmap(data)
    t.lp.space.host_pte = lambda _address: USED | PTE_W
    code = {"load": 0x8005, "store": 0x8007, "fetch": 0x8015}[access]
    with pytest.raises(Fault) as caught:
        t.lp.store(data, b"\1") if access == "store" else getattr(t.lp, access)(data, 1)
    assert (caught.value.rule, caught.value.code) == ("ACCESS.04", code)
