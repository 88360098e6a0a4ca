"""EnclaveImage and Segment: what they measure, what they refuse."""

from collections.abc import Callable
from hashlib import sha256

import pytest

from softsgx.image import ALL_CHUNKS, NO_CHUNKS, EnclaveImage, ImageError, Segment
from softsgx.image.sigstruct import create
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT
from softsgx.spec.epcm import MODIFIED, PENDING, PR, REG, SECS, SS_FIRST, SS_REST, TCS, VA, R, W, X
from tests.image.builders import load, measured_bytes, small_image, tcs_page


def test_mrenclave_of_two_pages_written_out_by_hand() -> None:
    image = EnclaveImage(
        size=0x4000,
        ssaframesize=2,
        segments=(
            Segment(0x1000, 0x1000, REG | R | W, b"\xab" * 300),
            Segment(0x3000, 0x1000, REG | R, b"unseen", NO_CHUNKS),
        ),
    )
    blocks = [bytes.fromhex("45435245415445 00 02000000 0040000000000000") + bytes(44)]
    blocks += [bytes.fromhex("45414444 00000000 0010000000000000 0302000000000000") + bytes(40)]
    content = b"\xab" * 300 + bytes(4096 - 300)
    for chunk in range(16):
        offset = (0x1000 + chunk * 256).to_bytes(8, "little")
        blocks += [bytes.fromhex("45455854454e44 00") + offset + bytes(48)]
        blocks += [content[chunk * 256 : chunk * 256 + 256]]
    blocks += [bytes.fromhex("45414444 00000000 0030000000000000 0102000000000000") + bytes(40)]
    assert len(b"".join(blocks)) == 64 * (1 + 1 + 16 * 5 + 1)
    assert image.mrenclave() == sha256(b"".join(blocks)).digest()


@pytest.mark.parametrize("measure", [ALL_CHUNKS, NO_CHUNKS, (0,), (15, 3)])
def test_mrenclave_of_segments_longer_than_a_batch(measure: tuple[int, ...]) -> None:
    big = Segment(0x10000, 2500 * 4096, REG | R | W, b"begin" * 2000, measure)
    image = EnclaveImage(size=1 << 24, segments=(big,))
    assert image.mrenclave() == sha256(b"".join(measured_bytes(image))).digest()


def test_the_processor_measures_the_same() -> None:
    image = small_image()
    enclave, _ = load(image)
    running = enclave.bare.processor.secs[enclave.secs].measurement
    assert running is not None
    assert running.digest() == image.mrenclave() == create(image).ENCLAVEHASH


def test_order_of_segments_and_of_chunks_is_measured() -> None:
    one, two = (Segment(at, 0x1000, REG | R, b"same") for at in (0x0, 0x1000))
    swapped = Segment(0x0, 0x1000, REG | R, b"same", (1, 0, *range(2, 16)))
    images = [
        EnclaveImage(size=0x2000, segments=segments)
        for segments in ((one, two), (two, one), (swapped, two))
    ]
    assert [image.ascending for image in images] == [True, False, True]
    assert len({image.mrenclave() for image in images}) == 3


def test_what_is_not_measured_does_not_matter() -> None:
    plain = small_image()
    other = EnclaveImage(
        size=plain.size,
        segments=tuple(
            Segment(s.offset, s.size, s.flags, b"guest" if s.chunks == NO_CHUNKS else s.content,
                    s.chunks, "named")
            for s in plain.segments
        ),
        attributes=ATTR_MODE64BIT | ATTR_DEBUG,
        xfrm=7,
        miscselect=1,
    )  # fmt: skip
    assert other.mrenclave() == plain.mrenclave()


def test_pages_are_padded_and_cheap_past_the_content() -> None:
    segment = Segment(0x4000, 0x3000, REG | R | W, b"\1" * 4097)
    pages = [(page.offset, len(page.content), page.content.count(1)) for page in segment.pages()]
    assert pages == [(0x4000, 4096, 4096), (0x5000, 4096, 1), (0x6000, 0, 0)]
    assert segment.data() == b"\1" * 4097 + bytes(0x3000 - 4097)


def test_counts_and_tcs() -> None:
    image = small_image()
    assert image.page_count() == 6
    assert image.tcs == (0x2000,)
    assert EnclaveImage(size=0x2000, segments=()).tcs == ()


def test_secs_is_the_source_page_of_ecreate() -> None:
    secs = small_image(attributes=6, xfrm=7, miscselect=1).secs(0x10_0000)
    assert (secs.SIZE_, secs.BASEADDR, secs.SSAFRAMESIZE) == (0x8000, 0x10_0000, 1)
    assert (secs.ATTRIBUTES, secs.XFRM, secs.MISCSELECT) == (6, 7, 1)


SEGMENT_ERRORS: list[tuple[Callable[[], Segment], str]] = [
    (lambda: Segment(0x800, 0x1000, REG), "segment at 0x800, offset: not a multiple of 4096"),
    (lambda: Segment(-4096, 0x1000, REG), "segment at -0x1000, offset: not a multiple of 4096"),
    (
        lambda: Segment(0, 0x1001, REG),
        "segment at 0x0, size: 0x1001 is not a positive multiple of 4096",
    ),
    (lambda: Segment(0, 0, REG), "segment at 0x0, size: 0x0 is not a positive multiple of 4096"),
    (
        lambda: Segment(0x1000, 0x1000, REG, bytes(0x1001)),
        "segment at 0x1000, content: 0x1001 bytes exceed size 0x1000",
    ),
    (
        lambda: Segment(0, 0x1000, REG, chunks=(1, 1)),
        "segment at 0x0, chunks: (1, 1) are not different numbers from 0 to 15",
    ),
    (
        lambda: Segment(0, 0x1000, REG, chunks=(16,)),
        "segment at 0x0, chunks: (16,) are not different numbers from 0 to 15",
    ),
]
FLAGS_ERRORS: list[tuple[int, str]] = [
    *(
        (
            REG | R | bit,
            f"{REG | R | bit:#x} sets PENDING, MODIFIED or PR, which no page has when it is added",
        )
        for bit in (PENDING, MODIFIED, PR)
    ),
    (REG | 0x40, "0x240 sets reserved bits 0x40"),
    (REG | 1 << 16, "0x10200 sets reserved bits 0x10000"),
    (SECS, "0x0 has page type SECS: only REG, TCS, SS_FIRST and SS_REST can be added"),
    (VA, "0x300 has page type VA: only REG, TCS, SS_FIRST and SS_REST can be added"),
    (0x900, "0x900 has page type 9: only REG, TCS, SS_FIRST and SS_REST can be added"),
    (SS_FIRST | R, "0x501 gives r-- to a shadow-stack page, which has rw-"),
    (SS_REST | R | W | X, "0x607 gives rwx to a shadow-stack page, which has rw-"),
    (TCS | R | W, "0x103 gives rw- to a TCS, which has no permissions"),
    (REG | W | X, "0x206 gives W without R"),
]
TCS_ERRORS: list[tuple[bytes, str]] = [
    (tcs_page(STATE=1), "STATE at byte 0: 0x1: EADD writes 0, so it must be 0"),
    (tcs_page(FLAGS=3), "FLAGS.DBGOPTIN at byte 8: 0x1: EADD writes 0, so it must be 0"),
    (tcs_page(CSSA=2), "CSSA at byte 24: 0x2: EADD writes 0, so it must be 0"),
    (tcs_page(AEP=0x40), "AEP at byte 40: 0x40: EADD writes 0, so it must be 0"),
    (bytes(4095) + b"\7", "reserved area at byte 4095: 0x7 is not 0"),
    (bytes(88) + b"\1", "reserved area at byte 88: 0x1 is not 0"),
    (tcs_page(OCETSSA=8), "OCETSSA at byte 72: 0x8 is not a multiple of 16"),
    (tcs_page(PREVSSP=8), "PREVSSP at byte 80: 0x8 is not 0"),
]


@pytest.mark.parametrize(("build", "message"), SEGMENT_ERRORS)
def test_segment_refuses(build: Callable[[], Segment], message: str) -> None:
    with pytest.raises(ImageError) as refused:
        build()
    assert str(refused.value) == message


@pytest.mark.parametrize(("flags", "message"), FLAGS_ERRORS)
def test_flags_that_eadd_refuses(flags: int, message: str) -> None:
    with pytest.raises(ImageError) as refused:
        Segment(0x3000, 0x1000, flags)
    assert str(refused.value) == f"segment at 0x3000, flags: {message}"


@pytest.mark.parametrize(("page", "message"), TCS_ERRORS)
def test_tcs_that_would_not_be_measured_as_given(page: bytes, message: str) -> None:
    with pytest.raises(ImageError) as refused:
        Segment(0x3000, 0x2000, TCS, bytes(0x1000) + page)
    assert str(refused.value) == f"TCS at 0x4000, {message}"


def one(offset: int, size: int = 0x1000) -> Segment:
    return Segment(offset, size, REG | R)


IMAGE_ERRORS: list[tuple[Callable[[], EnclaveImage], str]] = [
    (
        lambda: EnclaveImage(size=0x3000, segments=()),
        "SIZE: 0x3000 is not a power of two of at least 0x2000",
    ),
    (
        lambda: EnclaveImage(size=0x1000, segments=()),
        "SIZE: 0x1000 is not a power of two of at least 0x2000",
    ),
    (
        lambda: EnclaveImage(size=1 << 64, segments=()),
        "SIZE: 0x10000000000000000 is not a power of two of at least 0x2000",
    ),
    (
        lambda: EnclaveImage(size=0x4000, segments=(one(0x3000, 0x2000),)),
        "segment at 0x3000, size: ends past SIZE 0x4000",
    ),
    (
        lambda: EnclaveImage(size=0x8000, segments=(one(0x2000), one(0, 0x3000))),
        "segment at 0x2000, offset: inside the segment at 0x0",
    ),
    (
        lambda: EnclaveImage(size=0x8000, segments=(), baseaddr=0x4000),
        "BASEADDR: 0x4000 is not a multiple of 0x8000",
    ),
    (
        lambda: EnclaveImage(size=0x8000, segments=(), xfrm=6),
        "XFRM: 0x6 lacks x87 (bit 0) or SSE (bit 1)",
    ),
    (
        lambda: EnclaveImage(size=0x8000, segments=(), ssaframesize=0),
        "SSAFRAMESIZE: 0 pages: from 1 to 2^32 - 1",
    ),
    (
        lambda: EnclaveImage(size=0x8000, segments=(), ssaframesize=1 << 32),
        "SSAFRAMESIZE: 4294967296 pages: from 1 to 2^32 - 1",
    ),
]


@pytest.mark.parametrize(("build", "message"), IMAGE_ERRORS)
def test_image_refuses(build: Callable[[], EnclaveImage], message: str) -> None:
    with pytest.raises(ImageError) as refused:
        build()
    assert str(refused.value) == message
