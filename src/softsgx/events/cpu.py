"""The events a processor and its memory emit. Each is emitted at one place in the code.

`lp` is the number of a logical processor, `page` an EPC page number in EPCM events and a linear
page number elsewhere, `rule` the id of the check that refused ("" if none did).
"""

from typing import NamedTuple


class LeafDone(NamedTuple):
    """A leaf ended normally; `status` is RAX, or -1 for a leaf that does not write RAX."""

    lp: int
    leaf: str
    rbx: int
    rcx: int
    rdx: int
    status: int
    rule: str


class LeafFaulted(NamedTuple):
    """A leaf ended in a fault."""

    lp: int
    leaf: str
    rbx: int
    rcx: int
    rdx: int
    vector: int
    code: int
    address: int
    rule: str


class AccessFaulted(NamedTuple):
    """A load, store or fetch was refused; `access` is a TLB right bit, `entry` the TLB word that
    the processor had (0: none), which the fault may have dropped."""

    lp: int
    linear: int
    access: int
    vector: int
    code: int
    rule: str
    entry: int


class InstructionFaulted(NamedTuple):
    """An instruction inside an enclave was refused, or raised an exception, at `rip`."""

    lp: int
    rip: int
    vector: int
    code: int
    rule: str


class TlbFilled(NamedTuple):
    """A translation was loaded; `entry` is the TLB word."""

    lp: int
    page: int
    entry: int


class TlbFlushed(NamedTuple):
    """All translations of a logical processor were dropped."""

    lp: int
    cause: str


class Entered(NamedTuple):
    """EENTER or ERESUME succeeded; `eid` names the enclave."""

    lp: int
    eid: int
    tcs: int
    cssa: int
    resumed: bool


class Left(NamedTuple):
    """Enclave mode ended; `vector` is -1 for EEXIT, else the vector that caused the AEX."""

    lp: int
    eid: int
    tcs: int
    vector: int


class EpcmChanged(NamedTuple):
    """The packed word of an EPCM entry changed (`spec.epcm`); `secs` and `linear` are
    its ENCLAVESECS (as EPC page number) and ENCLAVEADDRESS."""

    lp: int
    page: int
    secs: int
    linear: int
    before: int
    after: int
    leaf: str


class PteChanged(NamedTuple):
    """A page-table entry changed; the words have the bits of `mem.pagetable`."""

    space: str
    page: int
    before: int
    after: int
