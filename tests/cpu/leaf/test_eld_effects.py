"""ELDB, ELDU, ELDBC, ELDUC: what success does. SDM 3D, ELDB/ELDU/ELDBC/ELDUC."""

import pytest

from softsgx.cpu import Fault
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PR, REG, VALID, R, W, word_text
from softsgx.spec.leaves import ELDB, ELDBC, ELDU, ELDUC
from softsgx.spec.msr import RFLAGS_STATUS
from softsgx.spec.registers import RAX, RFLAGS
from tests.cpu.paging import CHILD_WORDS, paged, pattern, ram

LEAVES = {"ELDB": ELDB, "ELDU": ELDU, "ELDBC": ELDBC, "ELDUC": ELDUC}
BLOCKS = ("ELDB", "ELDBC")


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize("word", CHILD_WORDS, ids=word_text)
def test_eld_effects_on_a_child_page(name: str, word: int) -> None:
    machine = paged()
    bare, enclave, old = machine.bare, machine.enclave, machine.page
    processor = bare.processor
    secs = processor.secs[enclave.secs]
    children, epoch = secs.children, secs.EPOCH
    machine.fill(old, pattern(1))
    machine.word(old, word)
    backing = machine.evict(old, slot=5)
    sealed = ram(bare, backing.page, 4096), ram(bare, backing.pcmd, 128)
    bare.free_page()  # so that it does not come back to where it was
    bare.lp.regs[RFLAGS] |= RFLAGS_STATUS
    page, status = machine.load(backing, slot=5, leaf=LEAVES[name])

    assert (status, bare.lp.regs[RAX], bare.lp.regs[RFLAGS] & RFLAGS_STATUS) == (0, 0, 0)
    assert page != old
    assert bare.word(page) == word | (BLOCKED if name in BLOCKS else 0)
    epcm = processor.epcm
    assert (epcm.secs[page], epcm.address[page]) == (enclave.secs, enclave.data[0])
    assert epcm.stamp[page] == 0
    assert machine.content(page) == pattern(1)
    assert machine.content(machine.va) == bytes(4096)
    assert (secs.children, secs.EPOCH) == (children, epoch + 1)
    assert (ram(bare, backing.page, 4096), ram(bare, backing.pcmd, 128)) == sealed


@pytest.mark.parametrize("name", LEAVES)
def test_eld_never_blocks_va_and_secs(name: str) -> None:
    machine = paged()
    bare = machine.bare
    inner = bare.epa()
    va, status = machine.load(machine.evict(inner), secs=None, leaf=LEAVES[name])
    assert (status, bare.word(va)) == (0, VALID | 0x300)
    for page in machine.enclave.pages.values():
        bare.eremove(page)
    secs, status = machine.load(machine.evict(machine.enclave.secs), secs=None, leaf=LEAVES[name])
    assert (status, bare.word(secs)) == (0, VALID)
    epcm = bare.processor.epcm
    for page in (va, secs):
        assert (epcm.secs[page], epcm.address[page], epcm.stamp[page]) == (0, 0, 0)


@pytest.mark.parametrize("name", LEAVES)
def test_eld_tells_a_reloaded_secs_where_it_is(name: str) -> None:
    """ENCLAVECONTEXT is the physical address of the page the SECS lies in now."""
    machine = paged()
    bare = machine.bare
    for page in machine.enclave.pages.values():
        bare.eremove(page)
    backing = machine.evict(machine.enclave.secs)
    bare.free_page()
    secs, _ = machine.load(backing, secs=None, leaf=LEAVES[name])
    assert secs != machine.enclave.secs
    context = bare.processor.secs[secs].ENCLAVECONTEXT
    assert context == bare.processor.epc.physical(secs)
    # The processor keeps a SECS decoded; as after ECREATE, nothing of it lies in memory.
    assert machine.content(secs) == bytes(4096)


@pytest.mark.parametrize("name", LEAVES)
def test_a_reloaded_page_is_usable_only_unblocked(name: str) -> None:
    machine = paged(init=True)
    bare, enclave = machine.bare, machine.enclave
    address = enclave.data[0]
    machine.fill(machine.page, pattern(6))
    page, _ = machine.load(machine.evict(machine.page), leaf=LEAVES[name])
    enclave.map(address, page)
    enclave.enter()
    if name in BLOCKS:
        with pytest.raises(Fault, match=r"ACCESS\.09"):
            bare.lp.load(address, 8)
    else:
        assert bare.lp.load(address, 4096) == pattern(6)


@pytest.mark.parametrize(
    ("word", "flags"),
    [(VALID | REG | PENDING | R | W, REG | PENDING | R | W), (VALID | REG | PR | R, REG | PR | R)],
    ids=["PENDING", "PR"],
)
def test_an_unaccepted_page_can_be_accepted_after_reload(word: int, flags: int) -> None:
    machine = paged(init=True)
    enclave = machine.enclave
    machine.word(machine.page, word)
    page, _ = machine.load(machine.evict(machine.page))
    enclave.map(enclave.data[0], page)
    enclave.enter()
    assert enclave.eaccept(enclave.data[0], flags) == 0
    assert machine.bare.word(page) == word & ~(PENDING | PR | MODIFIED)


def test_a_page_loaded_blocked_can_be_evicted_at_once() -> None:
    """The reload leaves no stamp, and BLOCKED saves the EBLOCK."""
    machine = paged()
    page, _ = machine.load(machine.evict(machine.page), leaf=ELDB)
    assert machine.bare.ewb(page, machine.va, 1, machine.bare.backing()) == 0
    page = machine.enclave.pages[machine.enclave.scratch]
    page, _ = machine.load(machine.evict(page), leaf=ELDU)
    assert machine.bare.ewb(page, machine.va, 1, machine.bare.backing()) == 10
