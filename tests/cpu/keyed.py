"""Builders for tests of keys and reports: an enclave that may ask for every key, and its operands.

One logical processor is inside the enclave. Its pages: the first operand in
`data[0]`, then `data[1]`, `data[2]`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from softsgx.cpu import Bare, LogicalProcessor, Part, Readings
from softsgx.cpu.bare import ENCLAVE_BASE, BareEnclave
from softsgx.cpu.secs import Secs
from softsgx.mem.pagetable import PTE_A, PTE_D
from softsgx.spec.attributes import (
    ATTR_AEXNOTIFY,
    ATTR_DEBUG,
    ATTR_EINITTOKENKEY,
    ATTR_KSS,
    ATTR_MODE64BIT,
    ATTR_PROVISIONKEY,
)
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PT_MASK, TRIM, VALID, R, W
from softsgx.spec.keys import KEYREQUEST, SEAL_KEY
from softsgx.spec.leaves import EGETKEY, EREPORT
from tests.cpu.spoil import Spoil
from tests.cpu.table import Attempt, gp, pf

READ_PFEC, WRITE_PFEC = 0x8005, 0x8007
ALL_KEYS = ATTR_MODE64BIT | ATTR_DEBUG | ATTR_PROVISIONKEY | ATTR_EINITTOKENKEY | ATTR_KSS
CONFIGID = bytes(range(64))
FAMILY, EXTENDED = b"\xfa" * 16, b"\xed" * 16
ISVPRODID, ISVSVN, CONFIGSVN = 0x1234, 7, 9


@dataclass
class Keyed:
    """Code inside an enclave, and the operands of the leaf it is about to execute."""

    bare: Bare
    enclave: BareEnclave
    leaf: int = EGETKEY
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0

    @property
    def lp(self) -> LogicalProcessor:
        """The logical processor inside."""
        return self.bare.lp

    @property
    def secs(self) -> Secs:
        """The live SECS."""
        return self.bare.processor.secs[self.enclave.secs]

    def page(self, number: int) -> int:
        """EPC page of an operand page."""
        return self.enclave.pages[self.enclave.data[number]]

    def write(self, number: int, data: bytes) -> None:
        """Contents at the start of an operand page."""
        processor = self.bare.processor
        processor.memory.write(processor.epc.physical(self.page(number)), data)

    def read(self, number: int, size: int) -> bytes:
        """Contents at the start of an operand page."""
        processor = self.bare.processor
        return processor.memory.read(processor.epc.physical(self.page(number)), size)

    def attempt(self) -> Attempt:
        """The leaf about to be executed. A and D bits are set already: a fault may leave those."""
        space = self.bare.processor.space
        for page, pte in list(space.ptes.items()):
            space.set(page << PAGE_SHIFT, pte | PTE_A | PTE_D)
        return Attempt(self.lp, "enclu", self.leaf, self.rbx, self.rcx, self.rdx)

    def key(self, request: KEYREQUEST) -> bytes:
        """EGETKEY; the key."""
        self.write(0, request.pack())
        data = self.enclave.data
        status = self.lp.enclu(EGETKEY, data[0], data[1])
        assert status == 0, repr(status)
        return self.read(1, 16)


def request(name: int = SEAL_KEY, **fields: int | bytes) -> KEYREQUEST:
    """A KEYREQUEST that every processor of the default part grants."""
    values: dict[str, int | bytes] = {
        "KEYNAME": name,
        "ISVSVN": 5,
        "CPUSVN": bytes([1] * 7) + bytes(9),
        "ATTRIBUTEMASK": ATTR_DEBUG | ATTR_AEXNOTIFY,
        "XFRMMASK": 0b100,
        "KEYID": b"\x1d" * 32,
        "MISCMASK": 1,
    }
    return KEYREQUEST(**{**values, **fields})


def keyed(
    *,
    seed: int = 0,
    part: Part | None = None,
    readings: Readings | None = None,
    attributes: int = ALL_KEYS,
    base: int = ENCLAVE_BASE,
    size: int = 1 << 20,
    bare: Bare | None = None,
    **fields: Any,
) -> Keyed:
    """A machine and an enclave on it, entered; `fields` replace those of its SIGSTRUCT."""
    kss = bool(attributes & ATTR_KSS)
    bare = bare or Bare(64, seed=seed, part=part or Part(), readings=readings or Readings())
    config: dict[str, int | bytes] = {"CONFIGID": CONFIGID, "CONFIGSVN": CONFIGSVN}
    enclave = bare.enclave(
        pages=3,
        attributes=attributes,
        base=base,
        size=size,
        xfrm=7,
        init=False,
        secs=config if kss else {},
    )
    family: Mapping[str, int | bytes] = {"ISVFAMILYID": FAMILY} if kss else {}
    extended: Mapping[str, int | bytes] = {"ISVEXTPRODID": EXTENDED} if kss else {}
    values = {"ISVPRODID": ISVPRODID, "ISVSVN": ISVSVN, **family, **extended, **fields}
    assert bare.einit(enclave.secs, bare.sigstruct(enclave.secs, **values)) == 0
    enclave.enter()
    data = enclave.data
    return Keyed(bare, enclave, EGETKEY, data[0], data[1])


@cache
def _kept(leaf: int) -> tuple[Keyed, Any]:
    k = keyed()
    k.leaf = leaf
    if leaf == EREPORT:
        k.rdx = k.enclave.data[2]
    else:
        k.write(0, request().pack())
    return k, k.bare.processor.snapshot()


def kept(leaf: int = EGETKEY) -> Keyed:
    """The same enclave each time, built once and put back; the leaf would succeed."""
    k, image = _kept(leaf)
    k.bare.processor.restore(image)
    return replace(k)


Change = Callable[[Keyed], None]


def operand_spoils(
    rules: tuple[str, str, str, str], register: str, number: int, *, write: bool
) -> list[Spoil[Keyed]]:
    """An operand that is misaligned, outside ELRANGE, not EPC, not OP(x, R) or OP(x, W)."""
    align, elrange, not_epc, op = rules
    refused = pf(register, WRITE_PFEC if write else READ_PFEC)

    def move(value: Callable[[Keyed, int], int]) -> Change:
        return lambda k: setattr(k, register, value(k, getattr(k, register)))

    def word(*, put: int = 0, drop: int = 0) -> Change:
        return lambda k: k.bare.processor.epcm.put(
            k.page(number), k.bare.word(k.page(number)) & ~drop | put
        )

    def map_ram(k: Keyed) -> None:
        processor = k.bare.processor
        processor.space.map(k.enclave.data[number], processor.memory.alloc())

    def alias(k: Keyed) -> None:
        processor, other = k.bare.processor, k.enclave.heap + 4096 * number
        setattr(k, register, other)
        processor.space.map(other, processor.epc.pfn(k.page(number)))

    def foreign(k: Keyed) -> None:
        k.bare.processor.epcm.secs[k.page(number)] = k.bare.free_page()

    words = f"{register}-epcm"
    return [
        Spoil(align, register, move(lambda k, at: at + 8), gp()),
        Spoil(elrange, register, move(lambda k, at: k.lp.elrange_base - 4096), gp(), "below"),
        Spoil(elrange, register, move(lambda k, at: k.lp.elrange_end), gp(), "past"),
        Spoil(not_epc, f"{register}-map", map_ram, refused),
        Spoil(op, words, word(drop=VALID), refused, "VALID"),
        Spoil(op, words, word(put=BLOCKED), refused, "BLOCKED"),
        Spoil(op, words, word(put=PENDING), refused, "PENDING"),
        Spoil(op, words, word(put=MODIFIED), refused, "MODIFIED"),
        Spoil(op, words, word(drop=PT_MASK, put=TRIM), refused, "PT"),
        Spoil(op, words, foreign, refused, "ENCLAVESECS"),
        Spoil(op, f"{words} {register} {register}-map", alias, refused, "ENCLAVEADDRESS"),
        Spoil(op, words, word(drop=W if write else R), refused, "W" if write else "R"),
    ]
