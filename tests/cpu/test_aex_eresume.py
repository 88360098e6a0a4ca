"""AEX and ERESUME in one step: the effect of the two but for the frame, or a refusal."""

from collections.abc import Callable
from typing import Any

import pytest

from softsgx.cpu import Part, Readings
from softsgx.cpu.aex_eresume import aex_eresume
from softsgx.spec.cet import SH_STK_EN
from softsgx.spec.epcm import BLOCKED, R, W
from softsgx.spec.registers import R8, RSI
from softsgx.spec.tcs import TCS_AEXNOTIFY
from tests.cpu.thread import NOTIFY_64, Thread, thread


def inside(**options: Any) -> Thread:
    """A thread inside that was interrupted before, so that all bits of its PTEs are set."""
    t = thread(**options)
    t.enter()
    t.lp.interrupt()
    t.resume()
    t.lp.regs[RSI], t.lp.regs[R8] = 0x1234, 0x5678
    t.lp.load(t.enclave.data[0], 1)
    return t


def state(t: Thread) -> tuple[object, ...]:
    """All of the processor, and the tracking of the enclave."""
    secs = t.lp.secs
    assert secs is not None
    return t.lp.key(), t.tcs, secs.current, secs.previous, secs.EPOCH, secs.entries


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
def test_as_aex_and_eresume(late: bool, tracked: bool) -> None:
    short, full = (inside(readings=Readings(late_entry_counts=late)) for _ in range(2))
    for t in (short, full):
        if tracked:
            t.bare.etrack(t.enclave.secs, t.other)
    assert aex_eresume(short.lp)
    full.lp.interrupt()
    full.resume()
    assert state(short) == state(full)
    assert not short.lp.tlb.entries


def unmap_tcs(t: Thread) -> None:
    t.lp.space.unmap(t.tcs_address)


def unmap_frame(t: Thread) -> None:
    t.lp.space.unmap(t.frame())


def other_frame(t: Thread) -> None:
    t.map(t.frame(), t.foreign)


def block_tcs(t: Thread) -> None:
    epcm = t.bare.processor.epcm
    epcm.put(t.tcs_page, epcm.state[t.tcs_page] | BLOCKED)


def frame_without_w(t: Thread) -> None:
    epcm = t.bare.processor.epcm
    epcm.put(t.frame_page(), epcm.state[t.frame_page()] & ~W | R)


def outside(t: Thread) -> None:
    t.exit()


def heard(t: Thread) -> None:
    t.lp.log.subscribe(lambda event: None)


@pytest.mark.parametrize(
    "change",
    [unmap_tcs, unmap_frame, other_frame, block_tcs, frame_without_w, outside, heard],
)
def test_refused_without_effect(change: Callable[[Thread], None]) -> None:
    t = inside()
    change(t)
    before = t.lp.key()
    assert not aex_eresume(t.lp)
    assert t.lp.key() == before


def test_refused_for_frames_of_several_pages_and_with_aex_notify() -> None:
    assert not aex_eresume(inside(frame_pages=2).lp)
    notified = inside(attributes=NOTIFY_64, tcs={"FLAGS": TCS_AEXNOTIFY})
    assert not aex_eresume(notified.lp)


def test_a_thread_with_cet_state_takes_the_long_way() -> None:
    """Its AEX writes PREVSSP and the CET frame, and its ERESUME looks at the page of them."""
    t = inside(part=Part(cet=True), cet=SH_STK_EN)
    assert not aex_eresume(t.lp)
    plain = inside(part=Part(cet=True))
    assert aex_eresume(plain.lp)
