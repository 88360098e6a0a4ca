"""Extended state over AEX and ERESUME: components, frames of several pages, and a property."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softsgx.cpu import Part
from softsgx.cpu.part import XSAVE_COMPONENTS, xsave_size
from softsgx.cpu.xstate import XState
from softsgx.spec.bits import MASK64, PAGE_SIZE
from softsgx.spec.leaves import EENTER
from softsgx.spec.msr import RFLAGS_FIXED, RFLAGS_IF
from softsgx.spec.ssa import GPRSGX, XSAVE_HEADER
from tests.cpu.thread import Thread, kept, thread

EVERYTHING = 0x602E7
XFRMS = (0x3, 0x7, 0x207, 0xE7, 0x2E7, 0x60003, EVERYTHING)
AVX, PKRU, XTILEDATA = 2, 9, 18
AMX = 0b11 << 17


def pages_of(xfrm: int) -> int:
    """Tiles do not fit into less than three pages."""
    return 3 if xfrm & AMX else 1


def built(xfrm: int, frame_pages: int = 0) -> Thread:
    pages = frame_pages or pages_of(xfrm)
    return thread(part=Part(xfrm=EVERYTHING), xfrm=xfrm, frame_pages=pages)


MAKERS: dict[int, Callable[[], Thread]] = {xfrm: partial(built, xfrm) for xfrm in XFRMS}


def fill(t: Thread, first: int, components: int) -> None:
    """Give every register of the extended state bytes of its own."""
    legacy = bytearray((first + n) & 0xFF for n in range(512))
    legacy[24:32] = b"\xb0\x1f\x00\x00\xff\xff\x00\x00"
    t.lp.x = XState(bytes(legacy))
    for bit, (size, _) in XSAVE_COMPONENTS.items():
        if components >> bit & 1:
            t.lp.x.components[bit] = bytes([first + bit]) * size


@pytest.mark.parametrize(
    ("xfrm", "frame_pages"),
    [(xfrm, n) for xfrm in XFRMS for n in (1, 2, 3, 4) if n >= pages_of(xfrm)],
)
def test_aex_writes_the_xsave_region_at_the_start_of_the_frame(xfrm: int, frame_pages: int) -> None:
    t = built(xfrm, frame_pages)
    t.enter()
    fill(t, 0x40, xfrm)
    expected = t.lp.x.save(xfrm)
    t.lp.interrupt()
    assert t.ssa()[: xsave_size(xfrm)] == expected
    rest = t.ssa()[xsave_size(xfrm) : -GPRSGX.SIZE]
    assert rest == bytes(len(rest))


@pytest.mark.parametrize("xfrm", XFRMS)
def test_eresume_restores_the_components_of_xfrm(xfrm: int) -> None:
    t = built(xfrm)
    t.enter()
    fill(t, 0x40, xfrm)
    inside = t.lp.x.key()
    t.lp.interrupt()
    fill(t, 0x90, xfrm)
    t.resume()
    assert t.lp.x.key() == inside


def test_xstate_bv_in_the_frame() -> None:
    """A component in INIT state is saved as absent, and comes back in INIT state."""
    t = built(EVERYTHING)
    t.enter()
    fill(t, 0x40, 1 << AVX)
    t.lp.interrupt()
    assert XSAVE_HEADER.unpack(t.ssa()[512:576]) == XSAVE_HEADER(XSTATE_BV=0b111)
    fill(t, 0x90, EVERYTHING)
    t.resume()
    assert list(t.lp.x.components) == [AVX]


def test_aex_clears_the_header_bytes_that_eresume_tests() -> None:
    t = built(0x7)
    t.set_ssa(512, b"\xff" * 24)
    t.enter()
    t.lp.interrupt()
    assert t.ssa()[512:536] == (3).to_bytes(24, "little")
    t.resume()


def move(t: Thread, address: int) -> None:
    """Evict a page and load it into another EPC page, so that the frame is not contiguous."""
    bare, enclave = t.bare, t.enclave
    page, va, backing = enclave.pages[address], bare.epa(), bare.backing()
    bare.eblock(page)
    bare.etrack(enclave.secs)
    assert bare.ewb(page, va, 0, backing) == 0
    other, status = bare.eld(backing, va, 0, enclave.secs)
    assert status == 0
    assert other != page
    enclave.map(address, other)


def test_an_xsave_region_of_several_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """AEX writes and ERESUME reads across the pages of the frame, wherever they lie in the EPC.

    AVX is put on a page boundary here.
    """
    components = {AVX: (256, PAGE_SIZE - 128)}
    monkeypatch.setattr("softsgx.cpu.xstate.XSAVE_COMPONENTS", components)
    for module in ("entry", "xstate", "leaf.eresume"):
        monkeypatch.setattr(f"softsgx.cpu.{module}.xsave_size", lambda xfrm: PAGE_SIZE + 128)
    # What is kept of the real sizes must neither be used here nor be replaced for others.
    monkeypatch.setattr("softsgx.cpu.xstate._init_image", XState()._image)
    t = built(0x7, frame_pages=3)
    move(t, t.frame(0, 1))
    data = bytes(range(256))
    t.enter()
    assert [bool(page) for page in t.lp.ssa_frame] == [True, True, True]
    t.lp.x.components[AVX] = data
    t.lp.interrupt()
    assert t.ssa()[PAGE_SIZE - 128 : PAGE_SIZE + 128] == data
    t.lp.x.components[AVX] = bytes(256)
    t.resume()
    assert t.lp.x.components == {AVX: data}


def test_tiles_lie_in_all_pages_of_a_frame() -> None:
    """GPRSGX follows them in the last one; no page has to follow another in the EPC."""
    t = built(EVERYTHING)
    for number in (0, 2):
        move(t, t.frame(0, number))
    t.enter()
    assert len(t.lp.ssa_frame) == 3
    tiles = bytes(range(256)) * 32
    t.lp.x.components[XTILEDATA] = tiles
    t.lp.interrupt()
    assert t.ssa()[2816:11008] == tiles
    assert not any(t.ssa()[11008 : -GPRSGX.SIZE])
    t.lp.x.components[XTILEDATA] = bytes(8192)
    t.resume()
    assert t.lp.x.components == {XTILEDATA: tiles}


# XCR0 has more than XFRM: what the enclave does not use belongs to the program outside.
def test_aex_and_eresume_keep_components_beyond_xfrm() -> None:
    t = built(0x7)
    fill(t, 0x20, EVERYTHING)
    beyond = {bit: data for bit, data in t.lp.x.components.items() if bit != AVX}
    t.enter()
    t.lp.interrupt()
    assert t.lp.x.components == beyond
    t.lp.x.components[PKRU] = b"\x54\x55\x55\x55\x00\x00\x00\x00"
    beyond[PKRU] = t.lp.x.components[PKRU]
    t.lp.x.components[AVX] = b"\x66" * 256
    t.resume()
    assert t.lp.x.components == {**beyond, AVX: b"\x22" * 256}
    t.exit()
    assert t.lp.x.components == {**beyond, AVX: b"\x22" * 256}


u64 = st.integers(0, MASK64)
user = st.integers(0, (1 << 47) - 1)
# CF PF AF ZF SF DF OF NT AC ID, in any combination.
flags = st.integers(0, 0x3F_FFFF).map(lambda n: n & 0x24_4CD5)


@st.composite
def extended(draw: st.DrawFn, xfrm: int) -> XState:
    """Any state of the components of XFRM, some of them in INIT state."""
    legacy = draw(st.binary(min_size=512, max_size=512))
    mxcsr = draw(st.integers(0, 0xFFFF)).to_bytes(4, "little")
    state = XState(legacy[:24] + mxcsr + b"\xff\xff\x00\x00" + legacy[32:])
    for bit, (size, _) in XSAVE_COMPONENTS.items():
        if xfrm >> bit & 1 and draw(st.booleans()):
            state.components[bit] = draw(st.binary(min_size=size, max_size=size))
    return state


@st.composite
def contexts(draw: st.DrawFn, xfrm: int) -> tuple[list[int], int, int, XState]:
    """RAX..R15, RFLAGS and RIP; FS and GS base; extended state."""
    regs = [draw(u64) for _ in range(16)]
    regs += [draw(flags) | RFLAGS_FIXED | RFLAGS_IF, draw(user)]
    return regs, draw(user), draw(user), draw(extended(xfrm))


def load(t: Thread, context: tuple[list[int], int, int, XState]) -> None:
    regs, t.lp.fsbase, t.lp.gsbase, state = context
    t.lp.regs[:] = regs
    t.lp.x = XState.restored(state.key())


@given(st.data(), st.sampled_from(XFRMS))
def test_any_state_survives_interrupt_clobbering_and_eresume(
    data: st.DataObject, xfrm: int
) -> None:
    """Bit for bit, whatever the host does with the registers in between."""
    t = kept(EENTER, MAKERS[xfrm])
    t.enter()
    context = data.draw(contexts(xfrm), "inside")
    load(t, context)
    t.lp.interrupt()
    load(t, data.draw(contexts(EVERYTHING), "outside"))
    beyond = {bit: x for bit, x in t.lp.x.components.items() if not xfrm >> bit & 1}
    t.resume()
    regs, fsbase, gsbase, state = context
    assert t.registers == regs
    assert (t.lp.fsbase, t.lp.gsbase) == (fsbase, gsbase)
    assert t.lp.x.legacy == state.legacy
    assert t.lp.x.components == {**beyond, **state.components}
