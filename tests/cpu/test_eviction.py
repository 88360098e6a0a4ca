"""Eviction and reload of every kind of page, as its enclave sees it. SDM 3D, EWB, ELDB/ELDU.

Verified: contents, EPCM and SECS come back bit for bit, and the enclave cannot tell. Not verified
here: what a changed page does (test_tamper) and when EWB may run (test_tracking).
"""

import pytest

from softsgx.cpu import Bare
from softsgx.cpu.bare import Backing, BareEnclave
from softsgx.cpu.measurement import running
from softsgx.spec.epcm import MODIFIED, PENDING, PR, REG, TRIM, VALID, R, W, X
from softsgx.spec.epcm import TCS as TCS_TYPE
from softsgx.spec.leaves import ELDB, ELDU, ENCLS_LEAVES
from softsgx.spec.registers import R8, R15, RBX, RSP
from softsgx.spec.secs import SECS
from softsgx.spec.tcs import TCS
from tests.cpu.paging import Paged, paged, pattern, ram


def moved(m: Paged, address: int, slot: int = 0) -> int:
    """Evict the page at an address of the enclave, load it elsewhere, map it there."""
    backing = m.evict(m.enclave.pages[address], slot)
    m.bare.free_page()
    page, status = m.load(backing, slot)
    assert status == 0
    m.enclave.map(address, page)
    return page


def evict_all(m: Paged) -> dict[int, Backing]:
    """Evict every page of an enclave, its SECS last; by linear address, the SECS under -1."""
    backings = {}
    for slot, (address, page) in enumerate(m.enclave.pages.items()):
        backings[address] = m.evict(page, slot)
    backings[-1] = m.evict(m.enclave.secs, 511)
    return backings


def load_all(m: Paged, backings: dict[int, Backing]) -> BareEnclave:
    """Load a whole enclave to other EPC pages than before."""
    m.bare.free_page()
    secs, status = m.load(backings[-1], 511, secs=None)
    assert status == 0
    enclave = m.enclave
    enclave.secs = secs
    for slot, address in enumerate(enclave.pages):
        page, status = m.load(backings[address], slot)
        assert status == 0
        enclave.map(address, page)
    return enclave


def test_a_data_page_comes_back_to_its_enclave() -> None:
    m = paged(init=True)
    lp, address = m.bare.lp, m.enclave.data[0]
    m.enclave.enter()
    lp.store(address, pattern(1))
    lp.interrupt()
    old = m.page
    new = moved(m, address)
    assert new != old
    m.enclave.resume()
    assert lp.load(address, 4096) == pattern(1)
    lp.store(address + 8, b"on")
    assert m.content(new)[8:10] == b"on"


def test_an_interrupted_thread_survives_the_eviction_of_tcs_and_ssa() -> None:
    m = paged(init=True)
    lp, enclave = m.bare.lp, m.enclave
    enclave.enter()
    lp.regs[R8 : R15 + 1] = range(0x100, 0x108)
    lp.regs[RBX] = 0x1234
    inside = lp.regs[:]
    lp.interrupt()
    for slot, address in enumerate((enclave.tcs[0], enclave.tcs[0] + 4096)):
        moved(m, address, slot)
    assert TCS.unpack(m.content(enclave.pages[enclave.tcs[0]])).CSSA == 1
    lp.regs[RSP] = 0x7777
    enclave.resume()
    assert lp.regs == inside


def test_a_pending_page_comes_back_to_be_accepted() -> None:
    m = paged(init=True)
    heap = m.enclave.heap
    m.enclave.eaug(heap)
    page = moved(m, heap)
    assert m.bare.word(page) == VALID | REG | PENDING | R | W
    m.enclave.enter()
    assert m.enclave.eacceptcopy(heap, m.enclave.data[0], REG | R | X) == 0
    assert m.bare.word(page) == VALID | REG | R | X


def test_a_restricted_page_comes_back_to_be_accepted() -> None:
    m = paged(init=True)
    address = m.enclave.data[0]
    assert m.bare.emodpr(m.page, R) == 0
    page = moved(m, address)
    assert m.bare.word(page) == VALID | REG | PR | R
    m.enclave.enter()
    assert m.enclave.eaccept(address, REG | PR | R | W) == 19
    assert m.enclave.eaccept(address, REG | PR | R) == 0


@pytest.mark.parametrize("new_type", [TRIM, TCS_TYPE])
@pytest.mark.parametrize("accepted", [False, True])
def test_a_page_of_changed_type_comes_back(new_type: int, accepted: bool) -> None:
    m = paged(init=True)
    address = m.enclave.data[0]
    m.fill(m.page, TCS(OSSA=0x1000, NSSA=1).pack())
    assert m.bare.emodt(m.page, new_type) == 0

    def accept() -> None:
        assert m.bare.etrack(m.enclave.secs) == 0
        m.enclave.enter()
        assert m.enclave.eaccept(address, new_type | MODIFIED) == 0
        m.enclave.exit()

    if accepted:
        accept()
    page = moved(m, address)
    assert m.bare.word(page) == VALID | new_type | (0 if accepted else MODIFIED)
    if not accepted:
        accept()
    assert m.bare.word(page) == VALID | new_type
    assert m.content(page) == TCS(OSSA=0x1000, NSSA=1).pack()


def test_a_va_page_evicted_into_another_brings_its_versions_back() -> None:
    m = paged()
    bare, outer = m.bare, m.va
    inner = bare.epa()
    m.fill(m.page, pattern(3))
    m.block_and_track(m.page)
    backing = bare.backing()
    assert bare.ewb(m.page, inner, 200, backing) == 0
    versions = m.content(inner)
    evicted = m.evict(inner, 17)
    with pytest.raises(Exception, match=r"ELD\.11"):
        bare.eld(backing, inner, 200, m.enclave.secs, page=bare.free_page())
    bare.free_page()
    back, status = m.load(evicted, 17, secs=None)
    assert (status, back != inner) == (0, True)
    assert m.content(back) == versions
    assert m.content(outer) == bytes(4096)
    page, status = bare.eld(backing, back, 200, m.enclave.secs)
    assert status == 0
    assert m.content(page) == pattern(3)


@pytest.mark.parametrize("leaf", [ELDB, ELDU], ids=ENCLS_LEAVES.get)
def test_every_field_of_a_secs_survives(leaf: int) -> None:
    m = paged(init=True)
    for page in m.enclave.pages.values():
        m.bare.eremove(page)
    for _ in range(3):
        m.bare.etrack(m.enclave.secs)
    live = m.bare.processor.secs[m.enclave.secs]
    live.VIRTCHILDCNT = 9
    before = {name: getattr(live, name) for name in SECS.NAMES if name != "SIZE_"}
    assert before["EPOCH"] == 3
    m.bare.enclave(base=0x10_0000_0000, init=False)  # takes the next EID
    backing = m.evict(m.enclave.secs)
    assert m.bare.processor.hashes == {}  # its measurement is finished
    m.bare.free_page()
    page, _ = m.load(backing, secs=None, leaf=leaf)
    now = m.bare.processor.secs[page]
    after = {name: getattr(now, name) for name in before}
    # Only where it lies is new.
    before["ENCLAVECONTEXT"] = m.bare.processor.epc.physical(page)
    assert after == before
    assert (now.SIZE, now.elrange_end, now.children) == (live.SIZE, live.elrange_end, 0)
    assert (now.inside, now.page, now.measurement) == (0, page, None)


def test_a_whole_enclave_moves_and_runs_on() -> None:
    m = paged(init=True, pages=3)
    lp, enclave = m.bare.lp, m.enclave
    enclave.enter()
    for number, address in enumerate(enclave.data):
        lp.store(address, pattern(number))
    lp.interrupt()
    used = {enclave.secs, *enclave.pages.values()}
    backings = evict_all(m)
    assert m.bare.processor.secs == {}
    m.bare.enclave(base=0x10_0000_0000)  # another enclave uses the EPC meanwhile
    load_all(m, backings)
    assert used != {enclave.secs, *enclave.pages.values()}
    enclave.resume()
    for number, address in enumerate(enclave.data):
        assert lp.load(address, 4096) == pattern(number)
    assert m.content(m.va) == bytes(4096)
    lp.interrupt()
    assert m.bare.eremove(enclave.secs) == 13  # the children are counted again
    for page in enclave.pages.values():
        assert m.bare.eremove(page) == 0
    assert m.bare.eremove(enclave.secs) == 0


def test_nothing_of_an_evicted_page_stays_in_the_epc() -> None:
    m = paged()
    m.fill(m.page, pattern(5))
    backing = m.evict(m.page)
    assert m.content(m.page) == bytes(4096)
    assert pattern(5)[:64] not in ram(m.bare, backing.page, 4096)


def build(m: Paged, *, evict: bool) -> bytes:
    """Measure two pages more of an enclave, evicted and loaded before each; EINIT; MRENCLAVE."""
    bare, enclave = m.bare, m.enclave
    for number in range(2):
        if evict:
            load_all(m, evict_all(m))
        address = enclave.heap + 4096 * number
        enclave.add(address, pattern(number), measure=True)
    if evict:
        load_all(m, evict_all(m))
    reference = bare.sigstruct(enclave.secs)
    assert bare.einit(enclave.secs, reference) == 0
    return bare.processor.secs[enclave.secs].MRENCLAVE


def unfinished() -> Paged:
    bare = Bare(64)
    return Paged(bare, bare.enclave(init=False, measure=True), bare.epa())


def test_an_enclave_evicted_while_it_is_built_is_measured_on() -> None:
    straight = build(unfinished(), evict=False)
    assert build(unfinished(), evict=True) == straight


def test_a_chunk_that_is_measured_twice_shows_after_reload() -> None:
    """So that the test before cannot pass on a measurement that eviction has lost."""
    digests = set()
    for chunks in (1, 2):
        m = unfinished()
        for _ in range(chunks):
            m.bare.eextend(m.enclave.secs, m.page)
        load_all(m, evict_all(m))
        digests.add(running(m.bare.processor.secs[m.enclave.secs]).digest())
    assert len(digests) == 2


def test_two_unfinished_enclaves_wait_under_their_own_ids() -> None:
    bare = Bare(64)
    va = bare.epa()
    first, second = (
        Paged(bare, bare.enclave(base=base, init=False, measure=measure), va)
        for base, measure in ((0x10_0000_0000, False), (0x20_0000_0000, True))
    )
    expected = []
    for m in (first, second):
        expected.append(running(bare.processor.secs[m.enclave.secs]).digest())
        for page in m.enclave.pages.values():
            bare.eremove(page)
    backings = [m.evict(m.enclave.secs, slot) for slot, m in enumerate((first, second))]
    assert len(bare.processor.hashes) == 2
    got = {}
    for slot in (1, 0):
        page, status = first.load(backings[slot], slot, secs=None)
        assert status == 0
        got[slot] = running(bare.processor.secs[page]).digest()
    assert [got[0], got[1]] == expected
    assert bare.processor.hashes == {}
