"""Where two enclaves differ: every kind of difference is named, and nothing else is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softsgx.image import sgxs
from softsgx.image.difference import Contents, Difference, Field, Moved, Pages, compare
from softsgx.image.image import ALL_CHUNKS, NO_CHUNKS, EnclaveImage, Segment
from softsgx.spec.epcm import REG, TCS, R, W, X
from tests.image.builders import small_image, tcs_page

PAGE = 0x1000
SEGMENTS = small_image().segments


def image(*segments: Segment, size: int = 0x10000, ssaframesize: int = 1) -> EnclaveImage:
    return EnclaveImage(size=size, segments=segments, ssaframesize=ssaframesize)


def page(offset: int, content: bytes = b"", flags: int = REG | R | W, chunks: object = ALL_CHUNKS):  # type: ignore[no-untyped-def]
    return Segment(offset, PAGE, flags, content, chunks)  # type: ignore[arg-type]


def changed(number: int, **fields: object) -> EnclaveImage:
    """The small image with fields of one segment changed."""
    segments = list(SEGMENTS)
    segments[number] = replace(segments[number], **fields)  # type: ignore[arg-type]
    return EnclaveImage(size=0x8000, segments=tuple(segments))


def only(found: Difference, kind: str) -> object:
    """The tuple of the one kind of difference that was found."""
    assert [k for k in ("secs", "pages", "moved", "contents") if getattr(found, k)] == [kind]
    return getattr(found, kind)


def test_equal_enclaves_however_they_are_cut_into_segments() -> None:
    a = small_image()
    b = sgxs.read(sgxs.write(a))
    assert not compare(a, b)
    split = image(Segment(0, 2 * PAGE, REG | R | W, b"x" * 5000))
    whole = image(page(0, b"x" * 4096), page(PAGE, b"x" * 904))
    assert not compare(split, whole)


def test_secs() -> None:
    found = compare(image(page(0)), image(page(0), size=0x20000, ssaframesize=2))
    assert only(found, "secs") == (Field("SIZE", 0x10000, 0x20000), Field("SSAFRAMESIZE", 1, 2))


def test_baseaddr_counts_if_both_files_have_it_and_is_not_measured() -> None:
    a, b = (replace(image(page(0)), baseaddr=base) for base in (0x10000, 0x20000))
    assert only(compare(a, b), "secs") == (Field("BASEADDR", 0x10000, 0x20000, measured=False),)
    assert not compare(a, image(page(0)))


def test_pages_that_one_lacks_are_ranges() -> None:
    a = image(page(0), Segment(4 * PAGE, 3 * PAGE, REG | R))
    b = image(page(0), page(PAGE), page(2 * PAGE))
    how = (REG | R | W, ALL_CHUNKS)
    assert only(compare(a, b), "pages") == (
        Pages(PAGE, 3 * PAGE, None, how),
        Pages(4 * PAGE, 7 * PAGE, (REG | R, ALL_CHUNKS), None),
    )


@pytest.mark.parametrize(
    ("fields", "how"),
    [
        ({"flags": REG | R}, (REG | R, ALL_CHUNKS)),
        ({"chunks": NO_CHUNKS}, (REG | R | X, NO_CHUNKS)),
        ({"chunks": ALL_CHUNKS[::-1]}, (REG | R | X, ALL_CHUNKS[::-1])),
    ],
    ids=["rights", "not measured", "the order of EEXTEND"],
)
def test_pages_that_are_added_differently(fields: dict[str, object], how: object) -> None:
    found = compare(small_image(), changed(0, **fields))
    assert only(found, "pages") == (Pages(0, 2 * PAGE, (REG | R | X, ALL_CHUNKS), how),)  # type: ignore[arg-type]


def test_pages_that_are_added_in_another_order() -> None:
    """The measurement depends on it; as few pages as possible are reported as moved."""
    pages = [page(number * PAGE) for number in range(6)]
    found = compare(image(*pages), image(*pages[3:], *pages[:3]))
    assert len(set(found.mrenclave)) == 2
    assert only(found, "moved") == (Moved(0, 3 * PAGE, None, 5 * PAGE),)
    found = compare(image(*pages), image(*pages[:2], *pages[3:], pages[2]))
    assert only(found, "moved") == (Moved(2 * PAGE, 3 * PAGE, PAGE, 5 * PAGE),)


def test_adjacent_pages_that_move_to_two_places_are_two() -> None:
    pages = [page(number * PAGE) for number in range(6)]
    found = compare(image(*pages), image(*[pages[number] for number in (3, 0, 1, 4, 2, 5)]))
    assert only(found, "moved") == (
        Moved(2 * PAGE, 3 * PAGE, PAGE, 4 * PAGE),
        Moved(3 * PAGE, 4 * PAGE, 2 * PAGE, None),
    )


def test_a_page_that_one_lacks_moves_no_other() -> None:
    pages = [page(number * PAGE) for number in range(6)]
    assert not compare(image(*pages), image(*pages[:2], *pages[3:])).moved


def test_contents() -> None:
    a = image(page(0), page(PAGE, bytes(300) + b"abcdefghij"))
    b = image(page(0), page(PAGE, bytes(300) + b"abXdeYghij"))
    assert only(compare(a, b), "contents") == (
        Contents(PAGE, PAGE + 302, 2, 2, b"cdefghij", b"XdeYghij"),
    )


def test_contents_of_zeros_and_of_what_is_not_measured() -> None:
    a = image(page(0, b"x" * 4096, chunks=(1,)))
    found = compare(a, image(page(0, chunks=(1,))))
    assert only(found, "contents") == (Contents(0, 0, 4096, 256, b"x" * 8, bytes(8)),)
    found = compare(image(page(0, b"x", chunks=NO_CHUNKS)), image(page(0, chunks=NO_CHUNKS)))
    assert found.mrenclave[0] == found.mrenclave[1]
    assert found.contents[0].measured == 0


def test_fields_of_a_tcs() -> None:
    found = compare(small_image(), changed(1, content=tcs_page(FLAGS=2, NSSA=3)))
    assert only(found, "contents") == found.contents
    (tcs,) = found.contents
    assert tcs.fields == (Field("FLAGS", 0, 2), Field("NSSA", 1, 3))


def test_large_heaps_cost_nothing() -> None:
    """16 million pages: page by page this would take minutes."""
    heap = Segment(0, 1 << 36, REG | R | W, b"", NO_CHUNKS)
    a = EnclaveImage(size=1 << 37, segments=(heap,))
    b = EnclaveImage(size=1 << 37, segments=(replace(heap, content=b"x"),))
    from softsgx.image import difference

    pieces = list(difference._pieces(a, b))
    assert [(piece.offset, piece.end) for piece in pieces] == [(0, PAGE), (PAGE, 1 << 36)]


CHUNKS = st.sampled_from([ALL_CHUNKS, NO_CHUNKS, (0,), (3, 0)])
CONTENT = st.sampled_from([b"", b"a", b"b", bytes(900) + b"a", b"a" * 4096])
KIND = st.sampled_from([REG | R, REG | R | W, TCS])


@st.composite
def images(draw: st.DrawFn) -> EnclaveImage:
    """A few pages in any order, small enough that two are often almost equal."""
    offsets = draw(st.lists(st.integers(0, 4), unique=True, max_size=5))
    segments = []
    for offset in offsets:
        flags = draw(KIND)
        content = tcs_page(NSSA=draw(st.integers(1, 2))) if flags == TCS else draw(CONTENT)
        segments.append(Segment(offset * PAGE, PAGE, flags, content, draw(CHUNKS)))
    return image(*segments, ssaframesize=draw(st.integers(1, 2)))


@given(images(), images())
def test_mrenclave_is_the_same_exactly_if_nothing_measured_differs(
    a: EnclaveImage, b: EnclaveImage
) -> None:
    found = compare(a, b)
    measured = bool(found.secs or found.pages or found.moved) or any(
        page.measured for page in found.contents
    )
    assert measured == (found.mrenclave[0] != found.mrenclave[1])
    assert bool(found) == ((a.ssaframesize, list(a.pages())) != (b.ssaframesize, list(b.pages())))
    assert not compare(a, a)
    back = compare(b, a)
    assert (len(back.pages), len(back.contents)) == (len(found.pages), len(found.contents))
