"""ELDB, ELDU, ELDBC, ELDUC: every check, and their order. SDM 3D, ELDB/ELDU/ELDBC/ELDUC.

What success does is in test_eld_effects, what the cryptography refuses in test_tamper.
"""

from dataclasses import dataclass, field

import pytest

from softsgx.cpu import SGX1_PART, Bare, Fault, Readings
from softsgx.cpu.bare import Backing
from softsgx.spec.epcm import REG, VALID, R
from softsgx.spec.leaves import ELDB, ELDBC, ELDU, ELDUC, EREMOVE
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_MAC_COMPARE_FAIL
from tests.cpu.paging import (
    ENCLS_PFEC,
    Paged,
    beside_registers,
    flip,
    hold_open,
    paged,
    pattern,
    poke,
)
from tests.cpu.spoil import Spoil, Trials, spoil_id
from tests.cpu.table import (
    Attempt,
    Expected,
    Row,
    code,
    execute,
    gp,
    hold,
    pf,
    row_id,
    run_row,
)

SLOT = 3
LEAVES = {"ELDB": ELDB, "ELDU": ELDU, "ELDBC": ELDBC, "ELDUC": ELDUC}
WITH_CODES = ("ELDBC", "ELDUC")


@dataclass
class Trial:
    """A load of an evicted data page to a free EPC page. `ram` replaces an operand by RAM."""

    machine: Paged
    backing: Backing
    page: int
    offsets: dict[str, int] = field(default_factory=dict)
    ram: list[str] = field(default_factory=list)


def fresh(readings: Readings | None = None) -> Trial:
    machine = paged(readings=readings)
    backing = machine.evict(machine.page, slot=SLOT)
    return Trial(machine, backing, machine.bare.free_page())


def attempt(t: Trial, leaf: int) -> Attempt:
    bare = t.machine.bare
    operands = {
        "srcpge": t.backing.page,
        "pcmd": t.backing.pcmd,
        "secs": bare.address(t.machine.enclave.secs),
        "rcx": bare.address(t.page),
        "rdx": bare.address(t.machine.va) + 8 * SLOT,
    }
    outside = bare.source(b"")
    for name in t.ram:
        operands[name] = outside
    for name, offset in t.offsets.items():
        operands[name] = operands.get(name, 0) + offset
    rbx = bare.pageinfo(
        linaddr=t.backing.linaddr,
        srcpge=operands["srcpge"],
        secinfo=operands["pcmd"],
        secs=operands["secs"],
    )
    rbx += operands.get("rbx", 0)
    return Attempt(bare.lp, "encls", leaf, rbx, operands["rcx"], operands["rdx"])


def misalign(rule: str, operand: str, offset: int) -> Spoil[Trial]:
    def apply(t: Trial) -> None:
        t.offsets[operand] = offset

    return Spoil(rule, f"{operand}-offset", apply, gp())


def in_ram(rule: str, operand: str, expected: Expected) -> Spoil[Trial]:
    def apply(t: Trial) -> None:
        t.ram.append(operand)

    return Spoil(rule, operand, apply, expected)


def busy(t: Trial) -> None:
    hold(t.machine.bare, t.page, 0)


def busy_va(t: Trial) -> None:
    hold(t.machine.bare, t.machine.va, 0)


def busy_secs(t: Trial) -> None:
    hold(t.machine.bare, t.machine.enclave.secs, 0)


def valid(t: Trial) -> None:
    t.machine.bare.processor.epcm.install(t.page, VALID | REG | R, t.machine.enclave.secs, 0x1000)


def free_va(t: Trial) -> None:
    t.machine.bare.processor.epcm.free(t.machine.va)


def retyped_va(t: Trial) -> None:
    t.machine.word(t.machine.va, VALID | REG)


def free_secs(t: Trial) -> None:
    t.machine.bare.processor.epcm.free(t.machine.enclave.secs)


def retyped_secs(t: Trial) -> None:
    t.machine.word(t.machine.enclave.secs, VALID | REG)


def parentless(page_type: int) -> Spoil[Trial]:
    def apply(t: Trial) -> None:
        poke(t.machine.bare, t.backing.pcmd, bytes([R, page_type]))

    return Spoil("ELD.16", "kind secs secs-offset secs-busy secs-word", apply, gp(), f"{page_type}")


def altered(t: Trial) -> None:
    flip(t.machine.bare, t.backing.page, 0)


def secs_fault(t: Trial) -> int:
    """The address that ELD.13 and ELD.15 name: PAGEINFO.SECS."""
    bare = t.machine.bare
    return bare.source(b"") if "secs" in t.ram else bare.address(t.machine.enclave.secs)


def spoils(name: str) -> list[Spoil[Trial]]:
    conflict = code(SGX_EPC_PAGE_CONFLICT) if name in WITH_CODES else gp()
    sample = fresh()
    secs = secs_fault(sample)
    sample.ram.append("secs")
    return [
        misalign("ELD.01", "rbx", 16),
        misalign("ELD.02", "rcx", 64),
        in_ram("ELD.03", "rcx", pf("rcx", ENCLS_PFEC)),
        misalign("ELD.04", "rdx", 4),
        in_ram("ELD.05", "rdx", pf("rdx", ENCLS_PFEC)),
        misalign("ELD.06", "pcmd", 64),
        misalign("ELD.07", "srcpge", 2048),
        Spoil("ELD.08", "busy", busy, conflict),
        Spoil("ELD.09", "busy-va", busy_va, conflict),
        Spoil("ELD.10", "rcx", valid, pf("rcx", ENCLS_PFEC)),
        Spoil("ELD.11", "rdx", free_va, pf("rdx", ENCLS_PFEC), "free"),
        Spoil("ELD.11", "rdx", retyped_va, pf("rdx", ENCLS_PFEC), "REG"),
        misalign("ELD.12", "secs", 8),
        in_ram("ELD.13", "secs", pf(secs_fault(sample), ENCLS_PFEC)),
        Spoil("ELD.14", "secs-busy", busy_secs, conflict),
        Spoil("ELD.15", "secs", free_secs, pf(secs, ENCLS_PFEC), "free"),
        Spoil("ELD.15", "secs", retyped_secs, pf(secs, ENCLS_PFEC), "REG"),
        parentless(0),
        parentless(3),
        parentless(7),
        Spoil("ELD.17", "page", altered, code(SGX_MAC_COMPARE_FAIL)),
    ]


def trials(name: str) -> Trials[Trial]:
    return Trials(fresh, lambda t: attempt(t, LEAVES[name]))


SPOILS = {name: spoils(name) for name in LEAVES}
ROWS = [row for name in LEAVES for row in trials(name).rows(SPOILS[name], name)]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_eld_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("name", ["ELDU", "ELDBC"])
@pytest.mark.parametrize("first", range(len(SPOILS["ELDU"]) - 1))
def test_eld_order_of_checks(name: str, first: int) -> None:
    spoils = SPOILS[name]
    assert trials(name).verify_order(spoils, spoils[first]), spoil_id(spoils[first])


@pytest.mark.parametrize("row", [r for r in ROWS if r.expected.kind == "code"], ids=row_id)
def test_eld_refusal_in_rax_changes_nothing_else(row: Row) -> None:
    a = row.build()
    before = beside_registers(a.lp)
    assert execute(a) == row.expected.value
    assert beside_registers(a.lp) == before


@pytest.mark.parametrize("which", ["free", "REG", "another enclave", "VA"])
@pytest.mark.parametrize("checked", [True, False])
def test_reading_eld_checks_secs(which: str, checked: bool) -> None:
    """Without the test a page that is no SECS has no EID that could fit: SGX_MAC_COMPARE_FAIL."""
    t = fresh(Readings(eld_checks_secs=checked))
    bare = t.machine.bare
    page = {
        "free": lambda: t.page + 1,
        "REG": lambda: t.machine.enclave.pages[t.machine.enclave.scratch],
        "another enclave": lambda: bare.enclave(base=0x10_0000_0000, init=False).secs,
        "VA": lambda: t.machine.va,
    }[which]()
    t.page = bare.free_page()
    a = attempt(t, ELDU)
    rbx = bare.pageinfo(
        linaddr=t.backing.linaddr,
        srcpge=t.backing.page,
        secinfo=t.backing.pcmd,
        secs=bare.address(page),
    )
    a = a._replace(rbx=rbx)
    if checked and which != "another enclave":
        run_row(Row("ELD.15", lambda: a, pf(bare.address(page), ENCLS_PFEC)))
    else:
        run_row(Row("ELD.17", lambda: a, code(SGX_MAC_COMPARE_FAIL)))


@pytest.mark.parametrize("first", LEAVES)
@pytest.mark.parametrize("second", LEAVES)
def test_two_loads_of_one_page_conflict(first: str, second: str) -> None:
    t = fresh()
    bare = t.machine.bare
    rbx, rcx, rdx = attempt(t, 0)[3:]
    finish = hold_open(bare.processor.lps[1].encls_steps(LEAVES[first], rbx, rcx, rdx))
    a = Attempt(bare.lp, "encls", LEAVES[second], rbx, rcx, rdx)
    run_row(Row("ELD.08", lambda: a, code(7) if second in WITH_CODES else gp()))
    assert finish() == 0


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize(("operand", "rule"), [("VA", "ELD.09"), ("SECS", "ELD.14")])
def test_eld_waits_for_a_leaf_that_may_remove_its_va_or_secs(
    name: str, operand: str, rule: str
) -> None:
    t = fresh()
    bare = t.machine.bare
    page = t.machine.va if operand == "VA" else t.machine.enclave.secs
    finish = hold_open(bare.processor.lps[1].encls_steps(EREMOVE, 0, bare.address(page)))
    a = attempt(t, LEAVES[name])
    run_row(Row(rule, lambda: a, code(7) if name in WITH_CODES else gp()))
    finish()


@pytest.mark.parametrize("name", LEAVES)
def test_loads_share_va_page_and_secs(name: str) -> None:
    t = fresh()
    machine, bare = t.machine, t.machine.bare
    other = machine.enclave.pages[machine.enclave.scratch]
    machine.fill(other, pattern(4))
    backing = machine.evict(other, slot=SLOT + 1)
    finish = hold_open(bare.processor.lps[1].encls_steps(LEAVES[name], *attempt(t, 0)[3:]))
    page, status = machine.load(backing, slot=SLOT + 1, leaf=LEAVES[name])
    assert status == 0
    assert machine.content(page) == pattern(4)
    attempt(t, 0)  # the PAGEINFO of the load that is held open, again
    assert finish() == 0


def test_eld_with_slot_and_target_in_one_page_releases_what_it_claimed() -> None:
    t = fresh()
    bare = t.machine.bare
    rbx, rcx, _ = attempt(t, 0)[3:]
    finish = hold_open(bare.lp.encls_steps(ELDU, rbx, rcx, rcx + 8))
    with pytest.raises(Fault, match=r"ELD\.11"):
        finish()
    assert bare.processor.claims == {}


@pytest.mark.parametrize("name", WITH_CODES)
def test_eldbc_and_elduc_are_absent_without_oversub(name: str) -> None:
    bare = Bare(16, part=SGX1_PART)
    with pytest.raises(Fault, match=r"ENCLS\.04"):
        bare.lp.encls(LEAVES[name])
