"""Layouts: where the parts of an enclave lie, and what its TCS pages say."""

from collections.abc import Callable

import pytest

from softsgx.image import ALL_CHUNKS, NO_CHUNKS, EnclaveImage, ImageError
from softsgx.image.layout import SelftestLayout, ThreadLayout
from softsgx.spec.epcm import REG, TCS, R, W, X
from softsgx.spec.tcs import TCS as TCS_PAGE
from tests.image.builders import (
    DATA,
    ET_EXEC,
    PF_R,
    PF_W,
    PF_X,
    PT_DYNAMIC,
    TEXT,
    Seg,
    elf_file,
    tcs_page,
)

PROGRAM = elf_file(TEXT, DATA)
RW = REG | R | W


def rows(image: EnclaveImage) -> list[tuple[str, int, int, int]]:
    """Label, first and last page number, flags."""
    return [(s.label, s.offset >> 12, (s.end >> 12) - 1, s.flags) for s in image.segments]


def test_default_layout() -> None:
    image = ThreadLayout().image(PROGRAM)
    assert rows(image) == [
        ("PT_LOAD 0", 0x1, 0x1, REG | R | X),
        ("PT_LOAD 1", 0x2, 0x3, RW),
        ("heap", 0x4, 0x13, RW),
        ("thread 0 stack", 0x15, 0x24, RW),
        ("thread 0 TCS", 0x25, 0x25, TCS),
        ("thread 0 SSA", 0x26, 0x27, RW),
        ("thread 0 data", 0x28, 0x28, RW),
    ]
    assert (image.size, image.baseaddr, image.ssaframesize) == (0x40000, None, 1)
    assert {s.label: s.chunks for s in image.segments if s.chunks != ALL_CHUNKS} == {
        "heap": NO_CHUNKS
    }


def test_every_option_moves_what_comes_after_it() -> None:
    layout = ThreadLayout(
        threads=2,
        nssa=3,
        ssaframesize=2,
        stack_pages=1,
        heap_pages=2,
        guard_pages=4,
        thread_data_pages=2,
        measure_heap=True,
    )
    image = layout.image(PROGRAM)
    assert rows(image)[2:] == [
        ("heap", 0x4, 0x5, RW),
        ("thread 0 stack", 0xA, 0xA, RW),
        ("thread 0 TCS", 0xB, 0xB, TCS),
        ("thread 0 SSA", 0xC, 0x11, RW),
        ("thread 0 data", 0x12, 0x13, RW),
        ("thread 1 stack", 0x18, 0x18, RW),
        ("thread 1 TCS", 0x19, 0x19, TCS),
        ("thread 1 SSA", 0x1A, 0x1F, RW),
        ("thread 1 data", 0x20, 0x21, RW),
    ]
    assert all(segment.chunks == ALL_CHUNKS for segment in image.segments)
    assert (image.ssaframesize, image.tcs) == (2, (0xB000, 0x19000))
    second = TCS_PAGE.unpack(image.segments[8].data())
    assert second == TCS_PAGE(
        OSSA=0x1A000,
        NSSA=3,
        OENTRY=0x1000,
        OFSBASGX=0x20000,
        OGSBASGX=0x20000,
        FSLIMIT=0xFFFF_FFFF,
        GSLIMIT=0xFFFF_FFFF,
    )


def test_smallest_layout() -> None:
    layout = ThreadLayout(nssa=1, stack_pages=1, heap_pages=0, guard_pages=0, thread_data_pages=0)
    image = layout.image(elf_file(Seg(0, TEXT.content, PF_R | PF_X), e_entry=0))
    assert [row[:3] for row in rows(image)] == [
        ("PT_LOAD 0", 0, 0),
        ("thread 0 stack", 1, 1),
        ("thread 0 TCS", 2, 2),
        ("thread 0 SSA", 3, 3),
    ]
    assert image.size == 0x4000
    tcs = TCS_PAGE.unpack(image.segments[2].data())
    assert (tcs.OFSBASGX, tcs.OGSBASGX, tcs.OENTRY, tcs.OSSA) == (0, 0, 0, 0x3000)


def test_contents_are_at_their_addresses() -> None:
    odd = Seg(0x3123, b"odd", PF_R)
    image = ThreadLayout().image(elf_file(TEXT, odd))
    contents = {page.offset: page.content for page in image.pages()}
    assert contents[0x1000] == TEXT.content.ljust(4096, b"\0")
    assert contents[0x3000] == bytes(0x123) + b"odd" + bytes(4096 - 0x126)


def test_bss_costs_nothing() -> None:
    image = ThreadLayout().image(elf_file(TEXT, Seg(0x2000, b"", PF_R | PF_W, memsz=0x4000_0000)))
    (bss,) = (s for s in image.segments if s.label == "PT_LOAD 1")
    assert (bss.size, len(bss.content)) == (0x4000_0000, 0)


def test_segments_that_share_a_page_with_the_same_rights_become_one() -> None:
    image = ThreadLayout().image(
        elf_file(
            TEXT,
            Seg(0x2000, b"a", PF_R, memsz=0x1010),
            Seg(0x3020, b"b", PF_R),
            Seg(0x3030, b"c", PF_R, memsz=0x1000),
        )
    )
    assert rows(image)[1] == ("PT_LOAD 1, 2, 3", 0x2, 0x4, REG | R)
    data = image.segments[1].data()
    assert (data[0], data[0x1020], data[0x1030]) == (ord("a"), ord("b"), ord("c"))
    assert data.count(0) == len(data) - 3


def test_segments_that_share_a_page_with_other_rights_are_refused() -> None:
    data = elf_file(TEXT, Seg(0x1800, b"data", PF_R | PF_W))
    with pytest.raises(ImageError) as refused:
        ThreadLayout().image(data)
    assert str(refused.value) == (
        "program header 1, p_flags at byte 124: rw-, but PT_LOAD 0 is r-x in the same page 0x1000: "
        "link with -z max-page-size=4096"
    )


@pytest.mark.parametrize(
    ("link", "heap_pages", "baseaddr", "size", "first"),
    [
        (0x40_0000, 16, 0x40_0000, 0x40000, 0x1000),
        (0x40_0000, 39, 0x40_0000, 0x40000, 0x1000),  # exactly full
        (0x40_0000, 40, 0x40_0000, 0x80000, 0x1000),
        # Too large to begin at 0x400000, which is not a multiple of 8 MiB.
        (0x40_0000, 0x500, 0, 0x100_0000, 0x40_1000),
        (0x1_4000_0000, 0x500, 0x1_4000_0000, 0x80_0000, 0x1000),
        (0x7_E000, 0, 0x0, 0x10_0000, 0x7_F000),
    ],
)
def test_et_exec_is_loaded_where_it_is_linked(
    link: int, heap_pages: int, baseaddr: int, size: int, first: int
) -> None:
    program = elf_file(
        TEXT._replace(vaddr=link + 0x1000),
        DATA._replace(vaddr=link + 0x2000),
        e_type=ET_EXEC,
        e_entry=link + 0x1003,
    )
    image = ThreadLayout(heap_pages=heap_pages).image(program)
    assert (image.baseaddr, image.size, image.segments[0].offset) == (baseaddr, size, first)
    tcs = TCS_PAGE.unpack(next(s for s in image.segments if s.flags == TCS).data())
    assert baseaddr + tcs.OENTRY == link + 0x1003
    assert image.tcs[0] + 0x1000 == tcs.OSSA


def test_relocations_are_measured_where_they_are_applied() -> None:
    at = 0x7F00_0000_0000
    table = (0x2030).to_bytes(8, "little") + (8).to_bytes(8, "little") + (5).to_bytes(8, "little")
    tags = b"".join(number.to_bytes(8, "little") for number in (7, 0x2000, 8, 24))
    program = elf_file(
        TEXT, Seg(0x2000, table, PF_R | PF_W, memsz=64), Seg(0, tags, kind=PT_DYNAMIC)
    )
    plain, moved = ThreadLayout().image(program), ThreadLayout(relocate_to=at).image(program)
    assert (plain.baseaddr, moved.baseaddr) == (None, at)
    assert plain.segments[1].data()[0x30:0x38] == bytes(8)
    assert moved.segments[1].data()[0x30:0x38] == (at + 5).to_bytes(8, "little")
    assert plain.mrenclave() != moved.mrenclave()


READY = Seg(0x0, tcs_page(OENTRY=0x2000) + tcs_page(OENTRY=0x2000), PF_R | PF_W)
SELFTEST = (
    READY,
    Seg(0x2000, TEXT.content, PF_R | PF_X),
    Seg(0x4000, b"d" * 0x6FF0, PF_R | PF_W),
)


def test_selftest_layout_of_the_kernels_program() -> None:
    """Text at 0x2000, data at 0x4000, heap at 0xB000, 0xC000 in all, enclave size 0x10000."""
    image = SelftestLayout().image(elf_file(*SELFTEST))
    assert rows(image) == [
        ("PT_LOAD 0", 0x0, 0x1, TCS),
        ("PT_LOAD 1", 0x2, 0x2, REG | R | X),
        ("PT_LOAD 2", 0x4, 0xA, RW),
        ("heap", 0xB, 0xB, RW),
    ]
    assert (image.size, image.tcs, image.baseaddr) == (0x10000, (0x0, 0x1000), None)
    assert [s.chunks == ALL_CHUNKS for s in image.segments] == [True, True, True, False]


def test_largest_layout() -> None:
    image = SelftestLayout(heap_pages=(1 << 24) - 11).image(elf_file(*SELFTEST))
    assert (image.segments[-1].end, image.size) == (1 << 36, 1 << 36)


def test_selftest_layout_begins_at_offset_0_wherever_it_is_linked() -> None:
    moved = [segment._replace(vaddr=segment.vaddr + 0x30000) for segment in SELFTEST]
    images = [
        SelftestLayout(heap_pages=0, measure_heap=True).image(elf_file(*segments))
        for segments in (SELFTEST, moved)
    ]
    assert rows(images[0]) == rows(images[1])
    assert images[0].mrenclave() == images[1].mrenclave()


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "e_entry": (
        lambda: ThreadLayout().image(elf_file(TEXT, DATA, e_entry=0x2000)),
        "ELF header, e_entry at byte 24: 0x2000 is in no executable PT_LOAD",
    ),
    "e_entry past the end": (
        lambda: ThreadLayout().image(elf_file(TEXT, DATA, e_entry=0x112C)),
        "ELF header, e_entry at byte 24: 0x112c is in no executable PT_LOAD",
    ),
    "relocated ET_EXEC": (
        lambda: ThreadLayout(relocate_to=0).image(elf_file(TEXT, e_type=ET_EXEC)),
        "relocate_to: the program is ET_EXEC: it runs where it is linked",
    ),
    "relocated to the side": (
        lambda: ThreadLayout(relocate_to=0x1000).image(PROGRAM),
        "BASEADDR: 0x1000 is not a multiple of 0x40000",
    ),
    "threads": (lambda: ThreadLayout(threads=0), "threads: 0 is not from 1 to 4096"),
    "nssa": (lambda: ThreadLayout(nssa=0), "nssa: 0 is not from 1 to 4096"),
    "ssaframesize": (
        lambda: SelftestLayout(ssaframesize=0),
        "ssaframesize: 0 is not from 1 to 4096",
    ),
    "stack_pages": (
        lambda: ThreadLayout(stack_pages=0),
        "stack_pages: 0 is not from 1 to 16777216",
    ),
    "heap_pages": (
        lambda: SelftestLayout(heap_pages=-1),
        "heap_pages: -1 is not from 0 to 16777216",
    ),
    "all pages": (
        lambda: ThreadLayout(threads=4096, nssa=4096).image(PROGRAM),
        "layout: 16855059 pages: 16777216 are the limit",
    ),
    "all selftest pages": (
        lambda: SelftestLayout(heap_pages=(1 << 24) - 10).image(elf_file(*SELFTEST)),
        "layout: 16777217 pages: 16777216 are the limit",
    ),
    "selftest without TCS": (
        lambda: SelftestLayout().image(PROGRAM),
        "program header 0, p_flags at byte 68: "
        "r-x, but the selftest layout begins with TCS pages, rw-",
    ),
    "selftest with a bad TCS": (
        lambda: SelftestLayout().image(elf_file(READY._replace(content=tcs_page(CSSA=1)))),
        "TCS at 0x0, CSSA at byte 24: 0x1: EADD writes 0, so it must be 0",
    ),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_layout_refuses(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ImageError) as refused:
        build()
    assert str(refused.value) == message
