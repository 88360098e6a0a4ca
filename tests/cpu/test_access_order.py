"""Access control: which of two refusals wins. SDM 3D, 38.3 "Access-control Requirements".

The page tables come before the EPCM, the #GP of a fetch that leaves the enclave before both. The
order within the EPCM shows only in the rule that the model names, never in the fault.
"""

from itertools import combinations
from typing import Final

import pytest

from softsgx.cpu import Readings
from softsgx.cpu.bare import BareEnclave
from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.spec.bits import MASK64
from tests.cpu import edmm
from tests.cpu.accesses import (
    KINDS,
    PFEC,
    PRESENT,
    SGX,
    AccessRow,
    denied,
    from_inside,
    not_executable,
    run_access,
    supervisor,
)
from tests.cpu.edmm import DATA, END, OUTSIDE, Spoil, all_of, changed
from tests.cpu.table import gp, pf

# In the order of the manual's list. An entry with VALID = 0 has no other contents.
LISTED: Final[list[tuple[str, Spoil]]] = [
    ("ACCESS.06", edmm.a_tcs),
    ("ACCESS.07", edmm.foreign),
    ("ACCESS.08", edmm.moved),
    ("ACCESS.09", edmm.blocked),
    ("ACCESS.10", edmm.pending),
    ("ACCESS.11", edmm.modified),
    ("ACCESS.12", changed(clear=7)),
]
EPCM_REFUSALS: Final[list[Spoil]] = [edmm.free, *(spoil for _, spoil in LISTED)]


@pytest.mark.parametrize(
    ("earlier", "later"), list(combinations(LISTED, 2)), ids=lambda pair: str(pair[0])
)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_epcm_is_judged_in_the_order_of_the_list(
    kind: int, earlier: tuple[str, Spoil], later: tuple[str, Spoil]
) -> None:
    build = from_inside(kind, DATA, all_of(later[1], earlier[1]))
    run_access(AccessRow(earlier[0], build, denied(kind, DATA, SGX)))


@pytest.mark.parametrize("refusal", EPCM_REFUSALS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_page_not_present_is_an_ordinary_fault_whatever_the_epcm_says(
    kind: int, refusal: Spoil
) -> None:
    build = from_inside(kind, DATA, all_of(refusal, edmm.unmapped))
    run_access(AccessRow("PAGING.01", build, pf(DATA, PFEC[kind])))


@pytest.mark.parametrize("refusal", EPCM_REFUSALS)
@pytest.mark.parametrize(
    ("kind", "spoil", "rule", "code"),
    [(WRITE, edmm.read_only, "PAGING.03", 0x7), (FETCH, not_executable, "PAGING.04", 0x15)],
)
def test_a_right_that_both_layers_deny_is_an_ordinary_fault(
    kind: int, spoil: Spoil, rule: str, code: int, refusal: Spoil
) -> None:
    run_access(AccessRow(rule, from_inside(kind, DATA, all_of(refusal, spoil)), pf(DATA, code)))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_supervisor_page_is_refused_before_it_is_seen_that_it_is_not_epc(kind: int) -> None:
    build = from_inside(kind, DATA, supervisor)
    run_access(AccessRow("PAGING.02", build, denied(kind, DATA, PRESENT)))


def supervisor_and_narrow(enclave: BareEnclave, address: int) -> None:
    """CPL 0 only, neither writable nor executable."""
    enclave.bare.processor.space.map(address, 0x800, write=False, user=False)


@pytest.mark.parametrize("kind", [WRITE, FETCH])
def test_u_is_tested_before_w_and_nx(kind: int) -> None:
    build = from_inside(kind, DATA, supervisor_and_narrow)
    run_access(AccessRow("PAGING.02", build, denied(kind, DATA, PRESENT)))


@pytest.mark.parametrize("address", [OUTSIDE, END, 1 << 47, MASK64])
def test_a_fetch_that_leaves_elrange_is_gp_before_everything_else(address: int) -> None:
    """Also when the address is not mapped, or not canonical."""
    run_access(AccessRow("ACCESS.01", from_inside(FETCH, address), gp()))


FIRST: Final = Readings(fetch_outside_elrange_first=False)


@pytest.mark.parametrize(
    ("spoil", "rule", "code"),
    [(edmm.unmapped, "PAGING.01", 0x14), (supervisor, "PAGING.02", 0x15)],
)
def test_under_the_other_reading_paging_comes_first(spoil: Spoil, rule: str, code: int) -> None:
    build = from_inside(FETCH, OUTSIDE, spoil, readings=FIRST)
    run_access(AccessRow(rule, build, pf(OUTSIDE, code)))


def test_under_the_other_reading_a_bad_address_comes_first() -> None:
    run_access(AccessRow("ACCESS.02", from_inside(FETCH, 1 << 47, readings=FIRST), gp()))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_denied_access_leaves_no_translation_for_the_next(kind: int) -> None:
    """Not even one with the rights that the page does have."""
    # READ, WRITE and FETCH of a translation are R, W and X of an EPCM entry.
    access = from_inside(kind, DATA, changed(clear=kind))()
    run_access(AccessRow("ACCESS.12", lambda: access, denied(kind, DATA, SGX)))
    assert access.lp.tlb.holds(DATA) == 0
    if kind != READ:
        assert access.lp.load(DATA, 1) == b"\0"
        assert access.lp.tlb.holds(DATA) & kind == 0
