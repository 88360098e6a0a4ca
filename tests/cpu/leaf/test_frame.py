"""SSA frames: which pages EENTER, ERESUME and EDECCSSA test, and how. FRAME.*"""

import pytest

from softsgx.cpu import Fault, Readings
from softsgx.cpu.bare import ENCLAVE_BASE
from softsgx.mem.pagetable import PTE_A, PTE_D
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.faults import GP, PF
from softsgx.spec.leaves import EENTER, ERESUME
from softsgx.spec.ssa import GPRSGX
from tests.cpu.entry_spoils import FRAME_LEAVES, frame_spoils, trials
from tests.cpu.spoil import Spoil, spoil_id
from tests.cpu.table import Row, execute, row_id, run_row
from tests.cpu.thread import NON_CANONICAL, Thread, before, kept, name, thread


def wide() -> Thread:
    """Frames of three pages: the XSAVE region in the first, GPRSGX in the last."""
    return thread(frame_pages=3)


GPRSGX_AT = ENCLAVE_BASE + PAGE_SIZE * (1 + 3) - GPRSGX.SIZE
ONE_PAGE = frame_spoils()
XSAVE_PAGE = frame_spoils(of=3)
GPRSGX_PAGE = frame_spoils(page=2, of=3, at=GPRSGX_AT)
# No rule follows the last; another page in place of the frame spoils everything at once.
ORDERED = [s for s in ONE_PAGE[:-2] if s.note not in ("address", "enclave")]

ROWS = [
    *(row for leaf in FRAME_LEAVES for row in trials(leaf).rows(ONE_PAGE, name(leaf))),
    *(
        row
        for leaf in FRAME_LEAVES
        for row in trials(leaf, wide).rows(XSAVE_PAGE, f"{name(leaf)} XSAVE")
    ),
    *(
        row
        for leaf in FRAME_LEAVES
        for row in trials(leaf, wide).rows(GPRSGX_PAGE, f"{name(leaf)} GPRSGX")
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_frame_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("leaf", FRAME_LEAVES, ids=name)
@pytest.mark.parametrize("first", ORDERED, ids=spoil_id)
def test_frame_order(first: Spoil[Thread], leaf: int) -> None:
    assert trials(leaf).verify_order(ONE_PAGE, first) > 0


@pytest.mark.parametrize("leaf", FRAME_LEAVES, ids=name)
@pytest.mark.parametrize("first", XSAVE_PAGE, ids=spoil_id)
def test_xsave_region_is_tested_before_gprsgx(first: Spoil[Thread], leaf: int) -> None:
    assert trials(leaf, wide).verify_order([first, *GPRSGX_PAGE], first) > 0


@pytest.mark.parametrize("leaf", FRAME_LEAVES, ids=name)
def test_pages_between_are_not_used(leaf: int) -> None:
    t = kept(leaf, wide)
    t.bare.processor.space.unmap(t.frame(0, 1))
    t.bare.processor.epcm.put(t.frame_page(0, 1), 0)
    execute(t.attempt())
    assert t.lp.enclave_mode
    t.lp.interrupt()
    assert t.ssa()[PAGE_SIZE : 2 * PAGE_SIZE] == bytes(PAGE_SIZE)


def test_frames_follow_each_other() -> None:
    """Frame i starts SSAFRAMESIZE pages after frame i - 1; the fault names its first byte."""
    t = thread(frames=3, frame_pages=3)
    for _ in range(2):
        t.enter()
        t.lp.interrupt()
    t.leaf, t.rbx = EENTER, t.tcs_address
    t.bare.processor.space.unmap(t.frame(2, 0))
    assert refusal(t) == (PF, 4, ENCLAVE_BASE + PAGE_SIZE * 7)


# What the page tables say comes before the EPCM, and is reported without the SGX bit.
@pytest.mark.parametrize("leaf", FRAME_LEAVES, ids=name)
@pytest.mark.parametrize(
    ("page", "address"),
    [(0, ENCLAVE_BASE + PAGE_SIZE), (2, GPRSGX_AT)],
    ids=["XSAVE", "GPRSGX"],
)
def test_unmapped_frame_is_an_ordinary_page_fault(page: int, address: int, leaf: int) -> None:
    t = kept(leaf, wide)
    t.bare.processor.space.unmap(t.frame(0, page))
    assert refusal(t) == (PF, 4, address)


@pytest.mark.parametrize("leaf", FRAME_LEAVES, ids=name)
@pytest.mark.parametrize(
    ("page", "address"),
    [(0, ENCLAVE_BASE + PAGE_SIZE), (2, GPRSGX_AT)],
    ids=["XSAVE", "GPRSGX"],
)
def test_frame_must_be_writable_by_paging(page: int, address: int, leaf: int) -> None:
    t = kept(leaf, wide)
    processor = t.bare.processor
    pfn = processor.epc.pfn(t.frame_page(0, page))
    processor.space.map(t.frame(0, page), pfn, write=False)
    assert refusal(t) == (PF, 7, address)


def refusal(t: Thread) -> tuple[int, int, int]:
    """Vector, error code and address of the fault that the leaf gives."""
    with pytest.raises(Fault) as refused:
        execute(t.attempt())
    return refused.value.vector, refused.value.code, refused.value.address


@pytest.mark.parametrize("leaf", [EENTER, ERESUME], ids=name)
def test_non_canonical_frame_is_no_page_fault(leaf: int) -> None:
    t = before(leaf)
    t.set_tcs(OSSA=NON_CANONICAL)
    assert refusal(t) == (GP, 0, 0)


@pytest.mark.parametrize("leaf", FRAME_LEAVES, ids=name)
def test_frame_sets_accessed_and_dirty(leaf: int) -> None:
    t = before(leaf)
    space = t.bare.processor.space
    attempt = t.attempt()  # which sets A and D everywhere
    space.map(t.frame(), t.bare.processor.epc.pfn(t.frame_page()))
    before_leaf = space.lookup(t.frame())
    execute(attempt)
    assert space.lookup(t.frame()) ^ before_leaf == PTE_A | PTE_D


@pytest.mark.parametrize("leaf", [EENTER, ERESUME], ids=name)
@pytest.mark.parametrize("inclusive", [False, True])
def test_reading_xsave_end_inclusive(
    leaf: int, inclusive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An XSAVE region that ends on a page boundary: is the page after it tested?

    No XFRM of the modelled parts has such a size, so the size is put in place of the real one.
    """
    monkeypatch.setattr("softsgx.cpu.entry.xsave_size", lambda xfrm: PAGE_SIZE)
    readings = Readings(xsave_end_inclusive=inclusive)
    t = before(leaf, lambda: thread(frame_pages=3, readings=readings))
    t.bare.processor.space.unmap(t.frame(0, 1))
    if inclusive:
        assert refusal(t) == (PF, 4, t.frame(0, 1))
    else:
        execute(t.attempt())
        assert t.lp.enclave_mode


@pytest.mark.parametrize("leaf", FRAME_LEAVES, ids=name)
@pytest.mark.parametrize("frame_pages", [2, 3])
def test_xsave_region_is_tested_on_its_second_page(
    leaf: int, frame_pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is at the page of XSAVE, also where GPRSGX lies in the same page."""
    t = before(leaf, lambda: thread(frame_pages=frame_pages))
    monkeypatch.setattr("softsgx.cpu.entry.xsave_size", lambda xfrm: PAGE_SIZE + 1)
    t.bare.processor.space.unmap(t.frame(0, 1))
    assert refusal(t) == (PF, 4, t.frame(0, 1))
