"""What ELD refuses: pages altered, moved, swapped or replayed while they were outside the EPC.

The header that the MAC covers is EID of PAGEINFO.SECS, PAGEINFO.LINADDR, SECINFO and the reserved
bytes of the PCMD; the counter is the version in the slot. PCMD.ENCLAVEID is in none of them: it is
a note for the system software.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from softsgx.cpu import Bare, Fault, Status
from softsgx.cpu.bare import Backing
from softsgx.spec.epcm import PT_VA
from softsgx.spec.leaves import ELDB, ELDBC, ELDU, ELDUC, ENCLS_LEAVES
from softsgx.spec.paging import PCMD
from softsgx.spec.status import SGX_MAC_COMPARE_FAIL
from tests.cpu.paging import Paged, beside_registers, flip, paged, pattern, poke, ram

LEAVES = (ELDB, ELDU, ELDBC, ELDUC)
SLOT = 9
# Of a PCMD, in bits: the page type, and ENCLAVEID.
PT_BITS = range(8, 16)
EID_BITS = range(8 * 64, 8 * 72)
PCMD_BITS = 8 * 128


@dataclass
class Load:
    """A load that would succeed: the operands, free to be changed."""

    m: Paged
    backing: Backing
    secs: int | None
    slot: int = SLOT

    def run(self, leaf: int = ELDU) -> tuple[int, Status | None]:
        """Execute the leaf, to a free page."""
        bare = self.m.bare
        page = next(p for p in range(bare.processor.epcm.pages) if not bare.word(p))
        return bare.eld(self.backing, self.m.va, self.slot, self.secs, leaf=leaf, page=page)


def evicted(kind: str = "REG") -> Load:
    """A page of the kind, evicted to slot 9."""
    m = paged(pages=2)
    if kind == "SECS":
        for page in m.enclave.pages.values():
            m.bare.eremove(page)
        return Load(m, m.evict(m.enclave.secs, SLOT), None)
    if kind == "VA":
        return Load(m, m.evict(m.bare.epa(), SLOT), None)
    m.fill(m.page, pattern(1))
    return Load(m, m.evict(m.page, SLOT), m.enclave.secs)


def other_page(load: Load) -> Backing:
    """Another page of the enclave, evicted to the next slot."""
    m = load.m
    other = m.enclave.pages[m.enclave.data[1]]
    m.fill(other, pattern(2))
    return m.evict(other, SLOT + 1)


def bit_of_page(bit: int) -> Callable[[Load], None]:
    return lambda load: flip(load.m.bare, load.backing.page, bit)


def bit_of_pcmd(bit: int) -> Callable[[Load], None]:
    return lambda load: flip(load.m.bare, load.backing.pcmd, bit)


def linaddr(load: Load) -> None:
    load.backing.linaddr ^= 1 << 12


def linaddr_unaligned(load: Load) -> None:
    load.backing.linaddr |= 1


def empty_slot(load: Load) -> None:
    load.slot += 5


def slot_of_another_page(load: Load) -> None:
    other_page(load)
    load.slot += 1


def swapped_pages(load: Load) -> None:
    """The ciphertext of another page, under this one's PCMD, version and address."""
    load.backing.page = other_page(load).page


def swapped_pcmds(load: Load) -> None:
    load.backing.pcmd = other_page(load).pcmd


def swapped_whole(load: Load) -> None:
    """Ciphertext and PCMD of another page, for this address and slot."""
    other = other_page(load)
    load.backing = Backing(other.page, other.pcmd, load.backing.linaddr)


def swapped_addresses(load: Load) -> None:
    """Another page with all that is its own, but for this page's address."""
    load.backing = replace(other_page(load), linaddr=load.backing.linaddr)
    load.slot += 1


def another_enclave(load: Load) -> None:
    load.secs = load.m.bare.enclave(base=0x10_0000_0000, init=False).secs


def twin_at_the_same_address(load: Load) -> None:
    """An enclave built from the same pages, at the same place: only its id is another."""
    load.secs = load.m.bare.enclave(pages=2, init=False).secs


def version(delta: int) -> Callable[[Load], None]:
    def apply(load: Load) -> None:
        m = load.m
        memory, at = m.bare.processor.memory, m.bare.processor.epc.physical(m.va) + 8 * SLOT
        memory.write(at, (m.slot(SLOT) + delta).to_bytes(8, "little"))

    return apply


def replayed(load: Load) -> None:
    """The same page evicted again into the same slot; what was evicted first is brought back."""
    m = load.m
    page, status = load.run()
    assert status == 0
    m.evict(page, SLOT)


def loaded_twice(load: Load) -> None:
    assert load.run()[1] == 0


def occupied_slot(load: Load) -> None:
    """Another page was evicted into the slot: code 12, and this page is lost."""
    m = load.m
    other = m.enclave.pages[m.enclave.data[1]]
    m.block_and_track(other)
    assert m.bare.ewb(other, m.va, SLOT, m.bare.backing()) == 12


def another_boot(load: Load) -> None:
    """A machine with other keys, all else the same."""
    sealed = ram(load.m.bare, load.backing.page, 4096), ram(load.m.bare, load.backing.pcmd, 128)
    bare = Bare(48, seed=1)
    enclave = bare.enclave(pages=2, init=False)
    other = Paged(bare, enclave, bare.epa())
    backing = other.evict(other.page, SLOT)
    assert (other.slot(SLOT), backing) == (load.m.slot(SLOT), load.backing)
    poke(bare, backing.page, sealed[0])
    poke(bare, backing.pcmd, sealed[1])
    load.m, load.secs = other, enclave.secs


TAMPERINGS: dict[str, Callable[[Load], None]] = {
    "first bit of the page": bit_of_page(0),
    "last bit of the page": bit_of_page(8 * 4096 - 1),
    "first bit of the MAC": bit_of_pcmd(8 * 112),
    "last bit of the MAC": bit_of_pcmd(8 * 128 - 1),
    "SECINFO.R": bit_of_pcmd(0),
    "SECINFO.X": bit_of_pcmd(2),
    "SECINFO.PENDING": bit_of_pcmd(3),
    "SECINFO.MODIFIED": bit_of_pcmd(4),
    "SECINFO.PR": bit_of_pcmd(5),
    "SECINFO.FLAGS reserved 6": bit_of_pcmd(6),
    "SECINFO.FLAGS reserved 16": bit_of_pcmd(16),
    "SECINFO.PT REG to SS_REST": bit_of_pcmd(10),
    "SECINFO reserved byte 8": bit_of_pcmd(8 * 8),
    "SECINFO reserved byte 63": bit_of_pcmd(8 * 63),
    "PCMD reserved byte 72": bit_of_pcmd(8 * 72),
    "PCMD reserved byte 111": bit_of_pcmd(8 * 111),
    "LINADDR": linaddr,
    "LINADDR not aligned": linaddr_unaligned,
    "empty slot": empty_slot,
    "slot of another page": slot_of_another_page,
    "version + 1": version(1),
    "version + 8, that of a later eviction": version(8),
    "page of another page": swapped_pages,
    "PCMD of another page": swapped_pcmds,
    "page and PCMD of another page": swapped_whole,
    "another page at this address": swapped_addresses,
    "another enclave": another_enclave,
    "twin enclave": twin_at_the_same_address,
    "older version of the page": replayed,
    "loaded twice": loaded_twice,
    "slot overwritten": occupied_slot,
    "another boot": another_boot,
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_eld_refuses_what_was_tampered_with(name: str) -> None:
    load = evicted()
    TAMPERINGS[name](load)
    assert load.run()[1] == SGX_MAC_COMPARE_FAIL
    # From here on PAGEINFO stays as it is, so that nothing at all may change.
    before = beside_registers(load.m.bare.lp)
    for leaf in LEAVES:
        assert load.run(leaf)[1] == SGX_MAC_COMPARE_FAIL, ENCLS_LEAVES[leaf]
        assert beside_registers(load.m.bare.lp) == before


@pytest.mark.parametrize("kind", ["REG", "VA", "SECS"])
@pytest.mark.parametrize(
    "name", ["first bit of the page", "last bit of the MAC", "LINADDR", "empty slot", "version + 1"]
)
def test_eld_refuses_for_every_kind_and_loads_what_was_put_right(kind: str, name: str) -> None:
    load = evicted(kind)
    intact = load.m.bare.processor.snapshot()
    untouched = replace(load.backing)
    TAMPERINGS[name](load)
    assert load.run()[1] == SGX_MAC_COMPARE_FAIL
    load.m.bare.processor.restore(intact)
    load.backing, load.slot = untouched, SLOT
    page, status = load.run()
    assert status == 0
    if kind == "REG":
        assert load.m.content(page) == pattern(1)


@pytest.mark.parametrize("kind", ["REG", "VA", "SECS"])
@pytest.mark.parametrize("bit", [EID_BITS[0], EID_BITS[-1]])
def test_enclaveid_of_the_pcmd_is_not_consulted(kind: str, bit: int) -> None:
    load = evicted(kind)
    flip(load.m.bare, load.backing.pcmd, bit)
    assert load.run()[1] == 0


@pytest.mark.parametrize("page_type", [0, PT_VA, 7, 255])
def test_a_page_cannot_be_loaded_as_a_type_without_parent(page_type: int) -> None:
    """With the enclave given it is #GP(0), without it the MAC differs: no SECS is ever forged."""
    load = evicted()
    poke(load.m.bare, load.backing.pcmd + 1, bytes([page_type]))
    with pytest.raises(Fault, match=r"ELD\.16"):
        load.run()
    load.secs = None
    assert load.run()[1] == SGX_MAC_COMPARE_FAIL


@pytest.mark.parametrize("kind", ["VA", "SECS"])
def test_a_page_without_parent_cannot_be_loaded_into_an_enclave(kind: str) -> None:
    load = evicted(kind)
    load.secs = load.m.bare.enclave(base=0x10_0000_0000, init=False).secs
    with pytest.raises(Fault, match=r"ELD\.16"):
        load.run()
    pcmd = PCMD.unpack(ram(load.m.bare, load.backing.pcmd, 128))
    poke(load.m.bare, load.backing.pcmd, pcmd.replace(FLAGS=0x203).pack())
    assert load.run()[1] == SGX_MAC_COMPARE_FAIL


def refused(load: Load) -> bool:
    """Whether the load ends in SGX_MAC_COMPARE_FAIL or the #GP(0) of a type without parent."""
    try:
        status = load.run()[1]
    except Fault as fault:
        return fault.rule == "ELD.16"
    return status == SGX_MAC_COMPARE_FAIL


PROPERTY = paged()
PROPERTY_START = PROPERTY.bare.processor.snapshot()


@settings(max_examples=300)
@given(
    seed=st.binary(max_size=64),
    what=st.sampled_from(["page", "PCMD", "LINADDR"]),
    position=st.integers(0, 8 * 4096 - 1),
)
@example(seed=b"", what="PCMD", position=PT_BITS[0])
@example(seed=b"", what="PCMD", position=EID_BITS[0])
@example(seed=b"", what="LINADDR", position=63)
def test_any_single_bit_is_refused(seed: bytes, what: str, position: int) -> None:
    m = PROPERTY
    m.bare.processor.restore(PROPERTY_START)
    content = (seed * 4096 + pattern(len(seed)))[:4096]
    m.fill(m.page, content)
    load = Load(m, m.evict(m.page, SLOT), m.enclave.secs)
    ignored = False
    if what == "page":
        flip(m.bare, load.backing.page, position)
    elif what == "PCMD":
        flip(m.bare, load.backing.pcmd, position % PCMD_BITS)
        ignored = position % PCMD_BITS in EID_BITS
    else:
        load.backing.linaddr ^= 1 << position % 64
    before = m.slot(SLOT)
    assert refused(load) != ignored
    if ignored:
        assert m.content(m.page) == content
        return
    assert m.slot(SLOT) == before
    # The same bit again, and the page is what it was.
    if what == "LINADDR":
        load.backing.linaddr ^= 1 << position % 64
    else:
        start = load.backing.page if what == "page" else load.backing.pcmd
        flip(m.bare, start, position if what == "page" else position % PCMD_BITS)
    page, status = load.run()
    assert status == 0
    assert m.content(page) == content
