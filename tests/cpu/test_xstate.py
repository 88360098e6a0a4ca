"""Extended state: sizes, the XSAVE image and what XRSTOR takes from it.

SDM 1, 13 "Managing State Using the XSAVE Feature Set".
"""

import struct

import pytest

from softsgx.cpu import Fault
from softsgx.cpu.part import XSAVE_COMPONENTS, xsave_size
from softsgx.cpu.xstate import LEGACY_INIT, XState, legacy_init
from softsgx.spec.faults import GP
from softsgx.spec.ssa import FXSAVE, XSAVE_HEADER, compute_xsave_size

AVX, OPMASK, ZMM_HI256, HI16_ZMM, PKRU, XTILECFG, XTILEDATA = 2, 5, 6, 7, 9, 17, 18
AVX512 = 1 << OPMASK | 1 << ZMM_HI256 | 1 << HI16_ZMM
AMX = 1 << XTILECFG | 1 << XTILEDATA
ALL = 0b111 | AVX512 | 1 << PKRU | AMX


@pytest.mark.parametrize(
    ("xfrm", "size"),
    [
        (0b11, 576),
        (0b111, 832),
        (0b11 | 1 << OPMASK, 1152),
        (0b111 | 1 << OPMASK, 1152),
        (0b111 | 1 << OPMASK | 1 << ZMM_HI256, 1664),
        (0b111 | AVX512, 2688),
        (0b11 | 1 << PKRU, 2696),
        (0b111 | 1 << PKRU, 2696),
        (ALL & ~AMX, 2696),
        (0b11 | AMX, 11008),
        (ALL, 11008),
    ],
)
def test_compute_xsave_size(xfrm: int, size: int) -> None:
    assert compute_xsave_size(xfrm, dict(XSAVE_COMPONENTS)) == size
    assert xsave_size(xfrm) == size


def test_compute_xsave_size_goes_by_offsets() -> None:
    """The listing takes a component only if it lies after those taken before."""
    assert compute_xsave_size(0b1111, {2: (256, 576), 3: (64, 600)}) == 832
    assert compute_xsave_size(0b1111, {2: (64, 2000), 3: (64, 576)}) == 2064
    assert compute_xsave_size(0b1111, {2: (256, 576), 3: (64, 832)}) == 896


def test_init_state() -> None:
    assert FXSAVE.unpack(LEGACY_INIT) == FXSAVE(FCW=0x037F, MXCSR=0x1F80, MXCSR_MASK=0xFFFF)
    other = FXSAVE(FCW=0x1234, FSW=0x5678, MXCSR=0x9ABC, MXCSR_MASK=0xFFFF)
    assert legacy_init(0x1234, 0x5678, 0x9ABC) == other.pack()
    assert XState().components == {}


def full(pattern: int = 0x10) -> XState:
    """A state in which every component has bytes of its own."""
    legacy = bytearray(range(256)) * 2
    legacy[24:32] = b"\xb0\x1f\x00\x00\xff\xff\x00\x00"
    state = XState(bytes(legacy))
    for bit, (size, _) in XSAVE_COMPONENTS.items():
        state.components[bit] = bytes([pattern + bit]) * size
    return state


def header(image: bytes) -> XSAVE_HEADER:
    return XSAVE_HEADER.unpack(image[512:576])


@pytest.mark.parametrize("xfrm", [0b11, 0b111, 0b111 | AVX512, 0b11 | 1 << PKRU, 0b11 | AMX, ALL])
def test_save_writes_the_components_of_xfrm(xfrm: int) -> None:
    image = full().save(xfrm)
    assert len(image) == xsave_size(xfrm)
    assert image[:512] == full().legacy
    assert header(image) == XSAVE_HEADER(XSTATE_BV=xfrm)
    expected = bytearray(len(image))
    for bit, (size, start) in XSAVE_COMPONENTS.items():
        if xfrm >> bit & 1:
            expected[start : start + size] = bytes([0x10 + bit]) * size
    assert image[576:] == expected[576:]


def test_xstate_bv_is_0_for_components_in_init_state() -> None:
    state = full()
    del state.components[AVX], state.components[HI16_ZMM]
    image = state.save(ALL)
    assert header(image).XSTATE_BV == ALL & ~(1 << AVX | 1 << HI16_ZMM)
    assert image[576 : 576 + 256] == bytes(256)


@pytest.mark.parametrize("component", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_save_of_a_state_touched_in_part(legacy: bool, component: bool) -> None:
    state = XState(full().legacy) if legacy else XState()
    if component:
        state.components[AVX] = full().components[AVX]
    image = state.save(0b111)
    assert image[:512] == (full().legacy if legacy else LEGACY_INIT)
    assert (0b111 if component else 0b011) == header(image).XSTATE_BV
    assert image[576:] == (full().components[AVX] if component else bytes(256))
    assert XState.load(image, 0b111, "TEST").key() == state.key()


@pytest.mark.parametrize("xfrm", [0b11, 0b111, 0b111 | AVX512, 0b11 | 1 << PKRU, 0b11 | AMX, ALL])
def test_load_takes_what_save_wrote(xfrm: int) -> None:
    loaded = XState.load(full().save(xfrm), xfrm, "TEST")
    kept = {bit: data for bit, data in full().components.items() if xfrm >> bit & 1}
    assert loaded.legacy == full().legacy
    assert loaded.components == kept


def spoilt(at: int, data: bytes) -> bytes:
    """The image of a full state with some bytes replaced."""
    image = bytearray(full().save(ALL))
    image[at : at + len(data)] = data
    return bytes(image)


def with_bv(present: int) -> bytes:
    return spoilt(512, struct.pack("<Q", present))


def test_load_initialises_components_absent_from_xstate_bv() -> None:
    loaded = XState.load(with_bv(0b11 | 1 << PKRU), ALL, "TEST")
    assert loaded.components == {PKRU: full().components[PKRU]}


def test_load_without_x87() -> None:
    """x87 goes to INIT state; MXCSR and the XMM registers come from the image."""
    legacy = XState.load(with_bv(0b10), ALL, "TEST").legacy
    assert legacy[:24] == LEGACY_INIT[:24]
    assert legacy[32:160] == bytes(128)
    assert legacy[24:28] == full().legacy[24:28]
    assert legacy[160:416] == full().legacy[160:416]


def test_load_without_sse_still_takes_mxcsr() -> None:
    """MXCSR is loaded whatever XSTATE_BV says. SDM 1, 13.8.1 "Standard Form of XRSTOR"."""
    legacy = XState.load(with_bv(0b01), ALL, "TEST").legacy
    assert legacy == full().legacy[:160] + bytes(256) + full().legacy[416:]


def test_load_does_not_take_mxcsr_mask() -> None:
    """MXCSR_MASK is a property of the processor, not of the image."""
    loaded = XState.load(spoilt(28, b"\x00\x00\x00\x00"), ALL, "TEST")
    assert loaded.legacy[28:32] == b"\xff\xff\x00\x00"


@pytest.mark.parametrize(
    ("at", "data"),
    [
        (512, struct.pack("<Q", ALL | 1 << 3)),
        (512 + 7, b"\x80"),
        (520, b"\x01"),
        (527, b"\x80"),
        (528, b"\x01"),
        (535, b"\x80"),
        (26, b"\x01"),
        (27, b"\x80"),
    ],
)
def test_load_refuses(at: int, data: bytes) -> None:
    with pytest.raises(Fault) as refused:
        XState.load(spoilt(at, data), ALL, "TEST")
    assert (refused.value.vector, refused.value.rule) == (GP, "TEST")


def test_load_refuses_components_beyond_xfrm() -> None:
    image = full().save(ALL)
    with pytest.raises(Fault):
        XState.load(image, ALL & ~(1 << PKRU), "TEST")
    assert XState.load(with_bv(0b111), 0b111, "TEST").components == {AVX: full().components[AVX]}


@pytest.mark.parametrize("at", [536, 550, 575])
def test_load_ignores_header_bytes_after_23(at: int) -> None:
    assert XState.load(spoilt(at, b"\xff"), ALL, "TEST").key() == full().key()


def test_load_takes_every_defined_mxcsr_bit() -> None:
    loaded = XState.load(spoilt(24, b"\xff\xff"), ALL, "TEST")
    assert loaded.legacy[24:28] == b"\xff\xff\x00\x00"


def test_key_is_the_whole_state() -> None:
    state, other = full(), full(0x20)
    assert XState.restored(state.key()).key() == state.key() != other.key()
    restored = XState.restored(state.key())
    restored.components[AVX] = b"\x00" * 256
    assert state.components[AVX] == bytes([0x12]) * 256


def test_digest_follows_the_state() -> None:
    state = full()
    digest = state.digest()
    assert full().digest() == digest
    state.components[AVX] = b"\x00" * 256
    assert state.digest() != digest
    state = full()
    state.legacy = LEGACY_INIT
    assert state.digest() != digest


def test_keep_others_takes_what_xfrm_does_not_cover() -> None:
    state, old = XState(), full()
    state.components[AVX] = b"\x99" * 256
    state.keep_others(old, 0b111 | 1 << PKRU | AMX)
    expected = {bit: old.components[bit] for bit in (OPMASK, ZMM_HI256, HI16_ZMM)}
    assert state.components == {AVX: b"\x99" * 256, **expected}
