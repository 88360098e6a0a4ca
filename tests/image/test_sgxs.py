"""SGXS streams: written and read back; what is refused, and where."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softsgx.image import EnclaveImage, ImageError, Page, sgxs
from softsgx.image.image import segments_of
from softsgx.spec.epcm import REG, TCS, R, W, X
from tests.image.builders import measured_bytes, small_image, tcs_page

ECREATE = b"ECREATE\0" + bytes.fromhex("01000000 0000010000000000") + bytes(44)  # SIZE 0x10000


def eadd(offset: int, flags: int = REG | R) -> bytes:
    return b"EADD\0\0\0\0" + offset.to_bytes(8, "little") + flags.to_bytes(8, "little") + bytes(40)


def chunk(offset: int, data: bytes = b"", tag: bytes = b"EEXTEND\0") -> bytes:
    return tag + offset.to_bytes(8, "little") + bytes(48) + data.ljust(256, b"\0")


def unmeasured(offset: int, data: bytes = b"") -> bytes:
    return chunk(offset, data, b"UNMEASRD")


@st.composite
def images(draw: st.DrawFn) -> EnclaveImage:
    """Any image of up to six pages, in any order, with any chunks measured in any order."""
    offsets = draw(st.lists(st.integers(0, 15), unique=True, max_size=6))
    numbers = st.lists(st.integers(0, 15), unique=True)
    measured = st.sampled_from([list(range(16)), list[int]()]) | numbers
    content = st.just(b"") | st.binary(min_size=1, max_size=4).map(lambda b: b * (4096 // len(b)))
    filled = content.map(lambda data: data.ljust(4096, b"\0") if any(data) else b"")
    pages = [
        Page(
            offset * 4096,
            draw(st.sampled_from([REG | R, REG | R | W, REG | R | X, REG])),
            draw(filled),
            tuple(draw(measured)),
        )
        for offset in offsets
    ]
    return EnclaveImage(size=0x10000, segments=segments_of(pages), ssaframesize=3)


@given(images())
def test_round_trip(image: EnclaveImage) -> None:
    stream = sgxs.write(image)
    assert sgxs.read(stream) == image
    assert sgxs.write(sgxs.read(stream)) == stream


@given(images())
def test_hash_of_the_stream_without_unmeasrd_is_mrenclave(image: EnclaveImage) -> None:
    digest = sha256(b"".join(measured_bytes(image))).digest()
    stream, at, kept = sgxs.write(image), 0, b""
    while at < len(stream):
        length = 320 if stream[at : at + 8] in (b"EEXTEND\0", b"UNMEASRD") else 64
        kept += stream[at : at + length] if stream[at : at + 8] != b"UNMEASRD" else b""
        at += length
    assert sha256(kept).digest() == digest == image.mrenclave()


def test_stream_of_a_measured_image_is_what_is_hashed() -> None:
    pages = (Page(0x1000, REG | R, b"page" * 1024, tuple(range(16))),)
    image = EnclaveImage(size=0x2000, segments=segments_of(pages))
    assert sgxs.write(image) == b"".join(measured_bytes(image))


def test_stream_written_out_by_hand() -> None:
    stream = ECREATE + eadd(0x2000) + chunk(0x2100, b"b") + unmeasured(0x2000, b"a") + eadd(0x3000)
    image = sgxs.read(stream)
    page = b"a".ljust(256, b"\0") + b"b".ljust(256, b"\0") + bytes(0xE00)
    assert list(image.pages()) == [
        Page(0x2000, REG | R, page, (1,)),
        Page(0x3000, REG | R, b"", ()),
    ]
    assert (image.size, image.ssaframesize) == (0x10000, 1)
    expected = ECREATE + eadd(0x2000) + chunk(0x2100, b"b") + eadd(0x3000)
    assert image.mrenclave() == sha256(expected).digest()


def test_similar_pages_become_one_segment() -> None:
    whole = [chunk(0x1000 + 256 * number, b"x") for number in range(32)]
    stream = ECREATE + eadd(0x1000) + b"".join(whole[:16]) + eadd(0x2000) + b"".join(whole[16:])
    (segment,) = sgxs.read(stream).segments
    assert (segment.offset, segment.size, len(segment.content)) == (0x1000, 0x2000, 0x2000)


@pytest.mark.parametrize(
    ("stream", "ascending"),
    [
        (ECREATE, True),
        (ECREATE + eadd(0x1000) + eadd(0x3000), True),
        (ECREATE + eadd(0x3000) + eadd(0x1000), False),
        (ECREATE + eadd(0x1000) + chunk(0x1F00) + chunk(0x1000), True),
    ],
)
def test_canonical_order(stream: bytes, ascending: bool) -> None:
    """Chunks of a page may come in any order, pages may not; both are read and written as given."""
    image = sgxs.read(stream)
    assert image.ascending is ascending
    assert sgxs.write(image) == stream
    assert image.mrenclave() == sha256(stream).digest()


PAGE = eadd(0x1000)
CHUNKS = b"".join(chunk(0x1000 + 256 * number, b"x") for number in range(16))
# name: (stream, message)
MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "record 0 at byte 0: the stream is empty, it must begin with ECREATE"),
    "no ECREATE": (
        PAGE,
        "record 0 (EADD), tag at byte 0: the stream must begin with ECREATE",
    ),
    "UNSIZED": (
        b"UNSIZED\0" + ECREATE[8:],
        "record 0, tag at byte 0: "
        "UNSIZED: the size of the enclave is still open, so there is nothing to measure",
    ),
    "unknown tag": (
        ECREATE + b"EREMOVE\0" + bytes(56),
        "record 1, tag at byte 64: 4552454d4f564500 is none of ECREATE, EADD, EEXTEND, UNMEASRD",
    ),
    "cut record": (
        ECREATE + PAGE[:-1],
        "record 1 at byte 64: the stream ends after 63 of 64 bytes",
    ),
    "cut chunk": (
        ECREATE + PAGE + chunk(0x1000)[:-6],
        "record 2 (EEXTEND), data at byte 192: the stream ends after 250 of 256 bytes",
    ),
    "SIZE": (
        ECREATE[:12] + (0x3000).to_bytes(8, "little") + ECREATE[20:],
        "record 0 (ECREATE), SIZE at byte 12: 0x3000 is not a power of two of at least 0x2000",
    ),
    "SSAFRAMESIZE": (
        ECREATE[:8] + bytes(4) + ECREATE[12:],
        "record 0 (ECREATE), SSAFRAMESIZE at byte 8: 0 pages: from 1 to 2^32 - 1",
    ),
    "ECREATE reserved": (
        ECREATE[:30] + b"\5" + ECREATE[31:],
        "record 0 (ECREATE), reserved bytes at byte 30: 0x5 is not 0",
    ),
    "second ECREATE": (ECREATE + ECREATE, "record 1 (ECREATE), tag at byte 64: a second ECREATE"),
    "EADD reserved": (
        ECREATE + PAGE[:63] + b"\1",
        "record 1 (EADD), reserved bytes at byte 127: 0x1 is not 0",
    ),
    "EADD unaligned": (
        ECREATE + eadd(0x1001),
        "record 1 (EADD), offset at byte 72: 0x1001 is not a multiple of 4096",
    ),
    "EADD outside": (
        ECREATE + eadd(0x10000),
        "record 1 (EADD), offset at byte 72: 0x10000 is outside the enclave of 0x10000",
    ),
    "EADD twice": (
        ECREATE + PAGE + eadd(0x3000) + PAGE,
        "record 3 (EADD), offset at byte 200: 0x1000 was added by record 1 already",
    ),
    "EADD flags": (
        ECREATE + eadd(0x1000, TCS | R),
        "record 1 (EADD), SECINFO.FLAGS at byte 80: "
        "0x101 gives r-- to a TCS, which has no permissions",
    ),
    "EEXTEND first": (
        ECREATE + chunk(0),
        "record 1 (EEXTEND), tag at byte 64: no EADD of its page comes before it",
    ),
    "EEXTEND reserved": (
        ECREATE + PAGE + chunk(0x1000)[:20] + b"\1" + chunk(0x1000)[21:],
        "record 2 (EEXTEND), reserved bytes at byte 148: 0x1 is not 0",
    ),
    "EEXTEND unaligned": (
        ECREATE + PAGE + chunk(0x1080),
        "record 2 (EEXTEND), offset at byte 136: 0x1080 is not a multiple of 256",
    ),
    "EEXTEND elsewhere": (
        ECREATE + eadd(0x3000) + PAGE + chunk(0x3000),
        "record 3 (EEXTEND), offset at byte 200: 0x3000 is not in the page 0x1000 before it",
    ),
    "EEXTEND twice": (
        ECREATE + PAGE + chunk(0x1100) + unmeasured(0x1100),
        "record 3 (UNMEASRD), offset at byte 456: 0x1100 was loaded by record 2 already",
    ),
    "EEXTEND after a whole page": (
        ECREATE + PAGE + CHUNKS + chunk(0x1100),
        "record 18 (EEXTEND), offset at byte 5256: 0x1100 was loaded by record 3 already",
    ),
    "TCS": (
        ECREATE + eadd(0x1000, TCS) + chunk(0x1000, tcs_page(CSSA=1)[:256]),
        "record 2 (EEXTEND), TCS.CSSA at byte 216: 0x1: EADD writes 0, so it must be 0",
    ),
    "TCS reserved": (
        ECREATE + eadd(0x1000, TCS) + unmeasured(0x1F00, b"\0\1"),
        "record 2 (UNMEASRD), TCS.reserved area at byte 193: 0x1 is not 0",
    ),
}


@pytest.mark.parametrize(("stream", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(stream: bytes, message: str) -> None:
    with pytest.raises(ImageError) as refused:
        sgxs.read(stream)
    assert str(refused.value) == message


def test_tcs_page_with_all_its_chunks() -> None:
    content = tcs_page(OENTRY=0x40)
    stream = ECREATE + eadd(0x2000, TCS)
    for number in range(16):
        stream += chunk(0x2000 + 256 * number, content[256 * number : 256 * number + 256])
    image = sgxs.read(stream)
    assert image.tcs == (0x2000,)
    assert sgxs.write(image) == stream


def test_small_image_survives() -> None:
    assert list(sgxs.read(sgxs.write(small_image())).pages()) == list(small_image().pages())
