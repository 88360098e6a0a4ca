"""EWB: every check, and their order. SDM 3D, EWB.

When tracking is complete is in test_tracking, what success does in test_ewb_effects.
"""

from dataclasses import dataclass, field

import pytest

from softsgx.mem.pagetable import PTE_A, PTE_P, PTE_U
from softsgx.spec.epcm import REG, VALID, R, W
from softsgx.spec.leaves import EWB
from softsgx.spec.status import (
    SGX_CHILD_PRESENT,
    SGX_NOT_TRACKED,
    SGX_PAGE_NOT_BLOCKED,
    SGX_VA_SLOT_OCCUPIED,
)
from tests.cpu.paging import ENCLS_PFEC, Paged, beside_registers, paged, ram
from tests.cpu.spoil import Spoil, Trials, spoil_id
from tests.cpu.table import Attempt, Row, code, execute, gp, hold, info, pf, row_id, run_row


@dataclass
class Trial:
    """EWB of a blocked and tracked data page to slot 3. `ram` replaces an operand by RAM."""

    machine: Paged
    page: int
    linaddr: int = 0
    secs: int = 0
    rdx: int = 0
    offsets: dict[str, int] = field(default_factory=dict)
    ram: list[str] = field(default_factory=list)


def fresh() -> Trial:
    machine = paged()
    machine.block_and_track(machine.page)
    return Trial(machine, machine.page, rdx=machine.bare.address(machine.va) + 24)


def attempt(t: Trial) -> Attempt:
    bare = t.machine.bare
    backing = bare.backing()
    rbx = bare.pageinfo(
        linaddr=t.linaddr,
        srcpge=backing.page + t.offsets.get("srcpge", 0),
        secinfo=backing.pcmd + t.offsets.get("pcmd", 0),
        secs=t.secs,
    )
    outside = bare.source(b"")
    rcx = outside if "rcx" in t.ram else bare.address(t.page)
    rdx = outside if "rdx" in t.ram else t.rdx
    operands = {"rbx": rbx, "rcx": rcx, "rdx": rdx}
    return Attempt(
        bare.lp, "encls", EWB, *(value + t.offsets.get(n, 0) for n, value in operands.items())
    )


def misalign(operand: str, offset: int) -> Spoil[Trial]:
    number = {"rbx": 1, "rcx": 2, "rdx": 4, "pcmd": 8, "srcpge": 9}[operand]

    def apply(t: Trial) -> None:
        t.offsets[operand] = offset

    return Spoil(f"EWB.{number:02}", f"{operand}-offset", apply, gp())


def rcx_ram(t: Trial) -> None:
    t.ram.append("rcx")


def rdx_ram(t: Trial) -> None:
    t.ram.append("rdx")


def same_page(t: Trial) -> None:
    t.rdx = t.machine.bare.address(t.page) + 8


def linaddr(t: Trial) -> None:
    t.linaddr = t.machine.enclave.data[0]


def secs_given(t: Trial) -> None:
    t.secs = t.machine.bare.address(t.machine.enclave.secs)


def busy(t: Trial) -> None:
    hold(t.machine.bare, t.page, 0)


def busy_va(t: Trial) -> None:
    # Whatever page RDX lies in, VA page or not.
    hold(t.machine.bare, (t.rdx - t.machine.bare.address(0)) >> 12, 0)


def free(t: Trial) -> None:
    t.machine.bare.processor.epcm.free(t.page)


def free_va(t: Trial) -> None:
    t.machine.bare.processor.epcm.free(t.machine.va)


def no_va(t: Trial) -> None:
    t.rdx = t.machine.bare.address(t.machine.enclave.pages[t.machine.enclave.scratch])


def unblocked(t: Trial) -> None:
    t.machine.word(t.page, VALID | REG | R | W)


def untracked(t: Trial) -> None:
    # As if EBLOCK had come after the ETRACK.
    bare = t.machine.bare
    bare.processor.epcm.stamp[t.page] = bare.processor.secs[t.machine.enclave.secs].EPOCH + 1


def parent(t: Trial) -> None:
    t.page = t.machine.enclave.secs


def occupied(t: Trial) -> None:
    processor = t.machine.bare.processor
    processor.memory.write(processor.epc.physical(t.machine.va) + 24, bytes(7) + b"\x01")


SPOILS = [
    misalign("rbx", 16),
    misalign("rcx", 64),
    Spoil("EWB.03", "rcx", rcx_ram, pf("rcx", ENCLS_PFEC)),
    misalign("rdx", 4),
    Spoil("EWB.05", "rdx", rdx_ram, pf("rdx", ENCLS_PFEC)),
    Spoil("EWB.06", "rdx", same_page, gp()),
    Spoil("EWB.07", "linaddr", linaddr, gp(), "LINADDR"),
    Spoil("EWB.07", "secs", secs_given, gp(), "SECS"),
    misalign("pcmd", 64),
    misalign("srcpge", 2048),
    Spoil("EWB.10", "busy", busy, gp()),
    Spoil("EWB.11", "busy-va", busy_va, gp()),
    Spoil("EWB.12", "rcx", free, pf("rcx", ENCLS_PFEC)),
    Spoil("EWB.13", "rdx", free_va, pf("rdx", ENCLS_PFEC), "free"),
    Spoil("EWB.13", "rdx", no_va, pf("rdx", ENCLS_PFEC), "REG"),
    Spoil("EWB.14", "rcx blocked", unblocked, code(SGX_PAGE_NOT_BLOCKED)),
    Spoil("EWB.15", "rcx tracked", untracked, code(SGX_NOT_TRACKED)),
    Spoil("EWB.16", "rcx blocked tracked", parent, code(SGX_CHILD_PRESENT)),
    Spoil("EWB.17", "slot rdx", occupied, info(SGX_VA_SLOT_OCCUPIED)),
]
# The last two name the page again, so the pairs with "not blocked" and "not tracked" are their own.
LATER = [
    Spoil("EWB.14", "blocked", unblocked, code(SGX_PAGE_NOT_BLOCKED)),
    Spoil("EWB.15", "tracked", untracked, code(SGX_NOT_TRACKED)),
    SPOILS[-1],
]
TRIALS = Trials(fresh, attempt)
ROWS = TRIALS.rows(SPOILS)


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_ewb_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", SPOILS[:-4], ids=spoil_id)
def test_ewb_order_of_checks(first: Spoil[Trial]) -> None:
    assert TRIALS.verify_order(SPOILS, first)


@pytest.mark.parametrize("first", LATER[:-1], ids=spoil_id)
def test_ewb_order_of_codes(first: Spoil[Trial]) -> None:
    assert TRIALS.verify_order(LATER, first)


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.rule in ("EWB.14", "EWB.15", "EWB.16")], ids=row_id
)
def test_ewb_refusal_in_rax_changes_nothing_else(row: Row) -> None:
    a = row.build()
    before = beside_registers(a.lp)
    assert execute(a) == row.expected.value
    assert beside_registers(a.lp) == before


@pytest.mark.parametrize("output", ["SRCPGE", "PCMD", "PAGEINFO"])
@pytest.mark.parametrize("mapped", [True, False], ids=["read-only", "not mapped"])
def test_ewb_faults_on_its_outputs_before_it_changes_anything(output: str, mapped: bool) -> None:
    machine = paged()
    bare, page = machine.bare, machine.page
    machine.block_and_track(page)
    backing = bare.backing()
    frames = bare.processor.memory.alloc(3)
    user = 0x5000_0000
    places = {"SRCPGE": user, "PCMD": user + 4096, "PAGEINFO": user + 8192}
    for number, address in enumerate(places.values()):
        # Accessed already: reading PAGEINFO sets A, and that may remain after a fault.
        pte = (frames + number) << 12 | PTE_P | PTE_U | PTE_A
        bare.processor.space.set(address, pte)
    info_block = bare.pageinfo(
        srcpge=places["SRCPGE"] if output == "SRCPGE" else backing.page,
        secinfo=places["PCMD"] if output == "PCMD" else backing.pcmd,
    )
    rbx = info_block
    if output == "PAGEINFO":
        bare.processor.memory.write((frames + 2) << 12, ram(bare, info_block, 32))
        rbx = places["PAGEINFO"]
    if not mapped:
        bare.processor.space.unmap(places[output])
    # A PAGEINFO that is not mapped cannot even be read.
    reads = output == "PAGEINFO" and not mapped
    expected = pf(places[output], 0 if reads else 3 if mapped else 2)
    rule = "PAGING.06" if mapped else "PAGING.05"
    operands = rbx, bare.address(page), bare.address(machine.va)
    run_row(Row(rule, lambda: Attempt(bare.lp, "encls", EWB, *operands), expected))
    assert bare.ewb(page, machine.va, 0, backing) == 0
