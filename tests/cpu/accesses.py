"""The form of a table test for accesses: like `tests.cpu.table`, with a load, store or fetch.

A row names the rule, builds the state in which exactly that check refuses the access, and says what
the fault is. `run_access` verifies vector, code, address and rule, and that the fault left no trace
but A and D bits and dropped translations.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from softsgx.cpu import Fault, LogicalProcessor
from softsgx.cpu.bare import BareEnclave
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_NX
from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.spec.epcm import REG, RWX, VALID
from tests.cpu import edmm
from tests.cpu.changes import NOTHING, changes
from tests.cpu.table import Expected, Row, pf

# What the page-fault error code says of an access at CPL 3, without P and SGX.
PFEC: Final[Mapping[int, int]] = {READ: 0x4, WRITE: 0x6, FETCH: 0x14}
SGX: Final = 0x8001  # P and SGX: the EPCM refused
PRESENT: Final = 0x0001  # P: the page tables refused
KINDS: Final[Mapping[str, int]] = {"read": READ, "write": WRITE, "fetch": FETCH}
WRITTEN: Final = b"\xaa"


class Access(NamedTuple):
    """An access about to be made: READ, WRITE or FETCH of `size` bytes."""

    lp: LogicalProcessor
    kind: int
    address: int
    size: int = 1


class AccessRow(NamedTuple):
    """Rule id, the state builder, the fault; `note` tells rows of one rule apart."""

    rule: str
    build: Callable[[], Access]
    expected: Expected
    note: str = ""


def row_name(row: Row | AccessRow) -> str:
    """The name of a row in pytest's output."""
    return f"{row.rule}-{row.note}" if row.note else row.rule


# What can be wrong with, or special about, the page tables


def supervisor(enclave: BareEnclave, address: int) -> None:
    """The page tables permit CPL 0 only."""
    enclave.bare.processor.space.map(address, 0x800, user=False, execute=True)


def not_executable(enclave: BareEnclave, address: int) -> None:
    """The page tables permit no fetch."""
    space = enclave.bare.processor.space
    space.set(address, space.lookup(address) | PTE_NX)


def alias(enclave: BareEnclave, address: int) -> None:
    """The page of DATA is mapped here as well."""
    enclave.map(address, enclave.pages[edmm.DATA])


def perform(access: Access) -> bytes:
    """Make an access; what was read, or b"" for a write."""
    lp, kind, address, size = access
    if kind == WRITE:
        lp.store(address, WRITTEN * size)
        return b""
    return lp.load(address, size) if kind == READ else lp.fetch(address, size)


def fault_of(access: Access) -> Fault:
    """The fault that an access must cause."""
    try:
        got = perform(access)
    except Fault as fault:
        return fault
    raise AssertionError(f"no fault, but {got!r}")


def from_inside(
    kind: int,
    address: int = edmm.DATA,
    spoil: edmm.Spoil | None = None,
    *,
    at: int | None = None,
    size: int = 1,
    **options: Any,
) -> Callable[[], Access]:
    """An access by the thread inside. `spoil` is applied at `at`, by default the page accessed.

    The page at DATA has R, W and X, so that what `spoil` does is the only reason to refuse.
    """
    return lambda: _access(edmm.running(**options), kind, address, spoil, at, size)


def from_outside(
    kind: int,
    address: int = edmm.DATA,
    spoil: edmm.Spoil | None = None,
    *,
    at: int | None = None,
    size: int = 1,
    **options: Any,
) -> Callable[[], Access]:
    """The same access by a processor that is not in enclave mode."""
    return lambda: _access(edmm.built(**options), kind, address, spoil, at, size)


def _access(
    enclave: BareEnclave,
    kind: int,
    address: int,
    spoil: edmm.Spoil | None,
    at: int | None,
    size: int,
) -> Access:
    edmm.word(VALID | REG | RWX)(enclave, edmm.DATA)
    if spoil is not None:
        spoil(enclave, address & ~0xFFF if at is None else at)
    return Access(edmm.inside(enclave), kind, address, size)


def denied(kind: int, address: int, code: int) -> Expected:
    """#PF of an access of this kind; `code` has the bits besides W, U and I."""
    return pf(address, code | PFEC[kind])


def run_access(row: AccessRow) -> None:
    """Make the access of a row and verify the fault."""
    access = row.build()
    lp = access.lp
    registers, entries, ptes = lp.regs[:], dict(lp.tlb.entries), lp.space.snapshot()
    faults: list[Fault] = []
    changed = changes(lp.processor, lambda: faults.append(fault_of(access)))
    (fault,) = faults
    got = Expected("fault", fault.vector, fault.code, fault.address or "")
    assert (fault.rule, got) == (row.rule, row.expected), str(fault)
    assert changed == NOTHING
    assert lp.regs == registers
    assert lp.tlb.entries.items() <= entries.items(), "a denied access filled the TLB"
    used = PTE_A | PTE_D
    assert {n: p & ~used for n, p in lp.space.ptes.items()} == {
        n: p & ~used for n, p in ptes.items()
    }
