"""EWB: what success does, and what it holds meanwhile. SDM 3D, EWB.

That the page comes back is in test_eviction, what the cryptography refuses in test_tamper.
"""

import pytest

from softsgx.cpu import Fault
from softsgx.spec.epcm import BLOCKED, REG, VALID, R, W, word_text
from softsgx.spec.leaves import EDBGRD, EMODPR, EWB
from softsgx.spec.msr import RFLAGS_CF, RFLAGS_STATUS
from softsgx.spec.paging import PCMD
from softsgx.spec.registers import RAX, RBX, RFLAGS
from softsgx.spec.status import SGX_VA_SLOT_OCCUPIED
from tests.cpu.paging import CHILD_WORDS, hold_open, paged, pattern, poke, ram
from tests.cpu.table import Attempt, Row, gp, run_row


@pytest.mark.parametrize("word", CHILD_WORDS, ids=word_text)
def test_ewb_effects_on_a_child_page(word: int) -> None:
    machine = paged()
    bare, enclave, page = machine.bare, machine.enclave, machine.page
    processor = bare.processor
    secs = processor.secs[enclave.secs]
    children = secs.children
    machine.fill(page, pattern(1))
    machine.word(page, word)
    machine.block_and_track(page)
    backing = bare.backing()
    # Garbage in every output shows what is not written.
    poke(bare, backing.pcmd, b"\xa5" * 128)
    bare.lp.regs[RFLAGS] |= RFLAGS_STATUS
    assert bare.ewb(page, machine.va, 5, backing) == 0

    assert (bare.lp.regs[RAX], bare.lp.regs[RFLAGS] & RFLAGS_STATUS) == (0, 0)
    raw = ram(bare, backing.pcmd, 128)
    # BLOCKED is not saved; everything else of the word is.
    assert raw == PCMD(FLAGS=word & ~VALID, ENCLAVEID=secs.EID, MAC=raw[112:]).pack()
    assert raw[112:] != b"\xa5" * 16
    assert backing.linaddr == enclave.data[0]
    assert ram(bare, backing.page, 4096) != pattern(1)
    assert bare.word(page) == 0
    epcm = processor.epcm
    assert (epcm.secs[page], epcm.address[page], epcm.stamp[page]) == (0, 0, 0)
    assert machine.slot(5) != 0
    assert [n for n in range(512) if machine.slot(n)] == [5]
    assert secs.children == children - 1


def test_ewb_writes_linaddr_alone_of_pageinfo() -> None:
    machine = paged()
    bare, page = machine.bare, machine.page
    machine.block_and_track(page)
    backing = bare.backing()
    rbx = bare.pageinfo(srcpge=backing.page, secinfo=backing.pcmd)
    before = ram(bare, rbx, 64)
    bare.lp.encls(EWB, rbx, bare.address(page), bare.address(machine.va))
    address = machine.enclave.data[0].to_bytes(8, "little")
    assert ram(bare, rbx, 64) == address + before[8:]


def test_ewb_of_va_and_secs_needs_neither_eblock_nor_etrack() -> None:
    machine = paged(init=True)
    bare, enclave = machine.bare, machine.enclave
    inner = bare.epa()
    eid = bare.processor.secs[enclave.secs].EID
    backing = bare.backing()
    assert bare.ewb(inner, machine.va, 0, backing) == 0
    assert ram(bare, backing.pcmd, 72) == PCMD(FLAGS=0x300).pack()[:72]
    assert backing.linaddr == 0
    for page in enclave.pages.values():
        assert bare.eremove(page) == 0
    assert bare.ewb(enclave.secs, machine.va, 1, backing) == 0
    # A SECS notes its own id, though its header has none.
    assert ram(bare, backing.pcmd, 72) == PCMD(FLAGS=0, ENCLAVEID=eid).pack()[:72]
    assert backing.linaddr == 0
    assert bare.word(enclave.secs) == 0
    assert bare.processor.secs == {}


def test_ewb_with_an_occupied_slot_still_evicts_and_the_old_version_is_lost() -> None:
    machine = paged(pages=2)
    bare, enclave = machine.bare, machine.enclave
    first, second = (enclave.pages[address] for address in enclave.data)
    machine.fill(second, pattern(2))
    lost = machine.evict(first, slot=7)
    old = machine.slot(7)
    machine.block_and_track(second)
    backing = bare.backing()
    bare.lp.regs[RFLAGS] |= RFLAGS_STATUS
    status = bare.ewb(second, machine.va, 7, backing)
    assert (status, bare.lp.regs[RAX]) == (SGX_VA_SLOT_OCCUPIED, 12)
    assert bare.lp.regs[RFLAGS] & RFLAGS_STATUS == RFLAGS_CF
    assert bare.word(second) == 0
    assert machine.slot(7) not in (0, old)
    assert machine.load(lost, slot=7)[1] == 9
    page, status = machine.load(backing, slot=7)
    assert status == 0
    assert machine.content(page) == pattern(2)


def test_ewb_takes_a_version_that_was_never_used() -> None:
    machine = paged()
    bare = machine.bare
    page, seen = machine.page, set()
    for round_ in range(8):
        backing = machine.evict(page, slot=round_ % 2)
        seen.add(machine.slot(round_ % 2))
        # Bits 63:3 decide what EDBGRD shows of a slot.
        assert machine.slot(round_ % 2) >> 3
        page, status = machine.load(backing, slot=round_ % 2)
        assert status == 0
    assert len(seen) == 8
    assert bare.lp.encls(EDBGRD, 0, bare.address(machine.va)) == 0
    assert bare.lp.regs[RBX] == 0  # the slot of the last reload is empty again


def test_ewb_twice_gives_different_ciphertext() -> None:
    machine = paged()
    first = machine.evict(machine.page)
    sealed = ram(machine.bare, first.page, 4096)
    page, _ = machine.load(first)
    second = machine.evict(page)
    assert ram(machine.bare, second.page, 4096) != sealed


def test_ewb_takes_its_page_exclusively_and_shares_the_va_page() -> None:
    machine = paged(pages=3)
    bare, enclave = machine.bare, machine.enclave
    pages = [enclave.pages[address] for address in enclave.data]
    for page in pages:
        assert bare.eblock(page) == 0
    bare.etrack(enclave.secs)
    backings = [bare.backing() for _ in pages]
    info_block = bare.pageinfo(srcpge=backings[0].page, secinfo=backings[0].pcmd)
    operands = info_block, bare.address(pages[0]), bare.address(machine.va)
    finish = hold_open(bare.processor.lps[1].encls_steps(EWB, *operands))
    again = Attempt(bare.lp, "encls", EWB, *operands[:2], operands[2] + 8)
    run_row(Row("EWB.10", lambda: again, gp()))
    secinfo = bare.secinfo(R)
    restrict = Attempt(bare.lp, "encls", EMODPR, secinfo, bare.address(pages[0]))
    run_row(Row("EMODPR.06", lambda: restrict, gp()))
    # Another EWB may use the VA page at the same time; removing it may not.
    with pytest.raises(Fault, match=r"EREMOVE\.03"):
        bare.eremove(machine.va)
    assert bare.ewb(pages[1], machine.va, 1, backings[1]) == 0
    bare.pageinfo(srcpge=backings[0].page, secinfo=backings[0].pcmd)
    assert finish() == 0
    assert [bare.word(page) for page in pages] == [0, 0, VALID | REG | R | W | BLOCKED]


def test_ewb_with_both_operands_in_one_page_releases_what_it_claimed() -> None:
    machine = paged()
    bare = machine.bare
    same = bare.address(machine.page)
    finish = hold_open(bare.lp.encls_steps(EWB, bare.pageinfo(), same, same + 8))
    with pytest.raises(Fault, match=r"EWB\.06"):
        finish()
    assert bare.processor.claims == {}
