"""Images with shadow-stack pages, and signatures with CET_ATTRIBUTES. SDM 3D, EADD and EINIT."""

from dataclasses import replace

import pytest

from softsgx.cpu import Part
from softsgx.cpu.bare import Bare
from softsgx.cpu.signature import development_key
from softsgx.image import sgxs
from softsgx.image.errors import ImageError
from softsgx.image.image import NO_CHUNKS, EnclaveImage, Segment
from softsgx.image.sigstruct import SignOptions, create, sign, verify
from softsgx.spec.attributes import ATTR_CET, ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.cet import SH_STK_EN, restore_token
from softsgx.spec.epcm import PT_MASK, REG, SS_FIRST, SS_REST, TCS, R, W, X
from softsgx.spec.tcs import TCS as TCS_PAGE

BASE, SIZE = 0x7F00_0000_0000, 0x1_0000
FIRST, REST = SS_FIRST | R | W, SS_REST | R | W
AT = 0x5000


def stack(base: int = BASE, at: int = AT, wide: bool = True) -> Segment:
    token = restore_token(base + at, wide).to_bytes(8, "little")
    return Segment(at, PAGE_SIZE, FIRST, bytes(PAGE_SIZE - 8) + token)


def image(*segments: Segment, **fields: int) -> EnclaveImage:
    given = {"attributes": ATTR_MODE64BIT | ATTR_CET, "cet_attributes": SH_STK_EN} | fields
    return EnclaveImage(size=SIZE, segments=segments, **given)


def whole(base: int = BASE) -> EnclaveImage:
    """Code, a TCS with its frames, a save area, a stack."""
    tcs = TCS_PAGE(OSSA=0x2000, NSSA=1, OCETSSA=0x4000).pack()
    return image(
        Segment(0x0, PAGE_SIZE, REG | R | X, b"\x90"),
        Segment(0x1000, PAGE_SIZE, TCS, tcs),
        Segment(0x2000, PAGE_SIZE, REG | R | W),
        Segment(0x4000, PAGE_SIZE, REST),
        stack(base),
    )


def test_the_token_says_where_the_enclave_has_to_run() -> None:
    assert whole().baseaddr == BASE
    assert image(Segment(AT, PAGE_SIZE, REST)).baseaddr is None


def test_the_measurement_depends_on_that() -> None:
    assert whole().mrenclave() != whole(BASE + SIZE).mrenclave()


def test_a_stream_keeps_types_and_contents() -> None:
    # The stream has no ATTRIBUTES; it names the base by its token.
    back = sgxs.read(sgxs.write(whole()))
    assert [s.flags & PT_MASK for s in back.segments] == [REG, TCS, REG, SS_REST, SS_FIRST]
    assert (back.mrenclave(), back.baseaddr) == (whole().mrenclave(), BASE)
    assert sgxs.write(back) == sgxs.write(whole())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Segment(AT, PAGE_SIZE, FIRST),
            "SS_FIRST at 0x5000, RSTORSSP token at byte 4088: 0x0 is not the address of the end "
            "of a page, and MODE64BIT",
        ),
        (
            lambda: Segment(AT, PAGE_SIZE, REST, b"\0\1"),
            "SS_REST at 0x5000, content at byte 1: 0x1 is not 0",
        ),
        (
            lambda: Segment(AT, PAGE_SIZE, REST, bytes(4095) + b"\1"),
            "SS_REST at 0x5000, content at byte 4088: 0x100000000000000 is not 0",
        ),
        (
            lambda: image(Segment(0, PAGE_SIZE, REST)),
            "segment at 0x0, offset: a shadow-stack page is not first or last in ELRANGE",
        ),
        (
            lambda: image(stack(at=SIZE - PAGE_SIZE)),
            "segment at 0xf000, offset: a shadow-stack page is not first or last in ELRANGE",
        ),
        (
            lambda: image(stack(BASE + PAGE_SIZE)),
            "SS_FIRST at 0x5000, RSTORSSP token: BASEADDR would be 0x7f0000001000, which is not a "
            "multiple of 0x10000",
        ),
        (
            lambda: image(stack(), stack(BASE + SIZE, at=0x7000)),
            "SS_FIRST at 0x7000, RSTORSSP token: BASEADDR would be 0x7f0000010000, not "
            "0x7f0000000000",
        ),
        (
            lambda: image(stack(wide=False)),
            "SS_FIRST at 0x5000, RSTORSSP token: bit 0 is 0, not that of ATTRIBUTES.MODE64BIT",
        ),
    ],
)
def test_what_eadd_would_refuse(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ImageError) as refused:
        build()
    assert str(refused.value) == message


def test_a_stream_with_a_wrong_token_names_the_record() -> None:
    data = bytearray(sgxs.write(image(stack())))
    data[-8:] = bytes(8)
    # All chunks are loaded: the last record holds the token.
    with pytest.raises(ImageError, match=r"^record 17 \(EEXTEND\), SS_FIRST\.RSTORSSP token"):
        sgxs.read(bytes(data))
    empty = Segment(AT, PAGE_SIZE, REG | R | W, chunks=NO_CHUNKS)
    data = bytearray(sgxs.write(image(empty)))
    data[64 + 16 : 64 + 24] = FIRST.to_bytes(8, "little")
    with pytest.raises(ImageError, match=r"^record 1 \(EADD\), SS_FIRST\.RSTORSSP token"):
        sgxs.read(bytes(data))


@pytest.mark.parametrize("part", [Part(cet=True), Part()], ids=["CET", "no CET"])
def test_a_processor_with_cet_accepts_such_an_image(part: Part) -> None:
    from softsgx.cpu import Fault

    built, bare = whole(), Bare(32, part=part)

    def load() -> int:
        secs = bare.ecreate(built.secs(BASE))
        for page in built.pages():
            number = bare.eadd(secs, BASE + page.offset, page.content, page.flags)
            bare.eextend(secs, number)
        sig = sign(built, development_key(), SignOptions(cetmask=0xFF))
        assert verify(sig.pack()) == ()
        status = bare.einit(secs, sig)
        assert status is not None
        return int(status)

    if part.cet:
        assert load() == 0
        return
    with pytest.raises(Fault, match=r"ECREATE"):
        load()


def test_a_signature_has_cet_attributes_only_with_the_attribute() -> None:
    plain = replace(whole(), attributes=ATTR_MODE64BIT)
    for options in (None, SignOptions(cetmask=1)):
        with pytest.raises(ImageError, match=r"^CET_ATTRIBUTES: needs ATTRIBUTES\.CET \(bit 6\)"):
            create(plain, options)
    with pytest.raises(ImageError, match="needs ATTRIBUTES"):
        create(replace(plain, cet_attributes=0), SignOptions(cetmask=1))
    assert create(replace(plain, cet_attributes=0)).CET_ATTRIBUTES_MASK == 0
