"""A machine in which every component of the state is in use: for snapshots and fingerprints."""

from dataclasses import dataclass

from softsgx.cpu import Bare
from softsgx.cpu.bare import BareEnclave
from softsgx.mem import AddressSpace
from softsgx.spec.epcm import REG, TRIM, R
from tests.cpu.paging import Paged, pattern

USER = 0x40_0000
SECOND_BASE = 0x10_0000_0000
THIRD_BASE = 0x20_0000_0000


@dataclass
class Everything:
    """LP 0 is the kernel's, LP 1 is inside `enclave` in the second address space, LP 2 outside.

    `unfinished` is not initialised yet, and one more enclave like it is evicted, all of it.
    """

    bare: Bare
    enclave: BareEnclave
    unfinished: BareEnclave
    second: AddressSpace
    va: int

    def fingerprint(self) -> int:
        """The machine's."""
        return self.bare.processor.fingerprint()


def everything(epc_pages: int = 64) -> Everything:
    """Build it, always in the same way."""
    bare = Bare(epc_pages, lps=3)
    processor = bare.processor
    enclave = bare.enclave(pages=4, threads=2)
    unfinished = bare.enclave(base=SECOND_BASE, init=False, measure=True)
    m = Paged(bare, bare.enclave(base=THIRD_BASE, init=False, measure=True), bare.epa())
    for slot, page in enumerate(m.enclave.pages.values()):
        m.evict(page, slot)
    m.evict(m.enclave.secs, 500)
    _every_epcm_bit(bare, enclave)
    second = AddressSpace("second")
    for page, entry in processor.space.ptes.items():
        second.set(page << 12, entry)
    second.map(USER, processor.memory.alloc())
    processor.space.map(USER, processor.memory.alloc())
    inside, outside = processor.lps[1:]
    inside.load_cr3(second)
    inside.store(USER, b"before")
    enclave.enter(inside)
    inside.store(enclave.data[0], pattern(1))
    inside.x.components[2] = bytes(range(256))
    inside.regs[8:16] = range(0x1000, 0x1008)
    outside.store(USER, b"outside")
    outside.pending_event = True
    return Everything(bare, enclave, unfinished, second, m.va)


def _every_epcm_bit(bare: Bare, enclave: BareEnclave) -> None:
    """A PENDING, a PR, a BLOCKED and a MODIFIED page; stamps of two epochs."""
    enclave.eaug(enclave.heap)
    pages = [enclave.pages[address] for address in enclave.data]
    assert bare.emodpr(pages[1], R) == 0
    assert bare.etrack(enclave.secs) == 0
    assert bare.eblock(pages[2]) == 0
    assert bare.emodt(pages[3], TRIM) == 0
    assert bare.word(pages[0]) & REG
