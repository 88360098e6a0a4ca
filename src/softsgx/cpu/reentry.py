"""EENTER once more at the TCS where a processor entered last, with nothing changed in between.

All tests of EENTER passed at the last entry. If everything that they read is still the same, they
would pass again and find the same pages, so they are not made again. This is no part of the
architecture, and not part of the state: without it, every entry would only take longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.cpu.entry import enter, load_entry
from softsgx.cpu.state import LastEntry
from softsgx.spec.registers import RAX, RIP
from softsgx.spec.structure import pack_u64
from softsgx.spec.tcs import SGX_TCS_LIMIT, TCS_INACTIVE, TCS_OFF_STATE

if TYPE_CHECKING:
    from softsgx.cpu.secs import Secs
    from softsgx.cpu.state import LpState


def what_tests_read(lp: LpState, secs: Secs, rbx: int, rcx: int) -> tuple[object, ...]:
    """What the tests of EENTER read, before the entry changes it.

    The generations stand for all page tables and all EPCM entries. A page that was dirty and
    accessed stays so unless software changes its entry.
    """
    space, processor = lp.space, lp.processor
    return (
        *(rbx, rcx, space, space.generation, processor.epcm.generation),
        *(secs.ATTRIBUTES, secs.XFRM, lp.cr4, lp.xcr0, lp.busy),
    )


def remember_entry(
    lp: LpState, read: tuple[object, ...], secs: Secs, page: int, frame: tuple[int, ...]
) -> None:
    """The processor has just entered. With CET there is more to test, and it is not remembered."""
    processor = lp.processor
    if processor.part.cet:
        return
    tcs = bytearray(processor.memory.page_view(processor.epc.pfn(page))[:SGX_TCS_LIMIT])
    pack_u64(tcs, TCS_OFF_STATE, TCS_INACTIVE)
    cssa, entry = lp.regs[RAX], lp.regs[RIP]
    lp.last_entry = LastEntry(
        read, bytes(tcs), secs, page, frame, cssa, entry, lp.fsbase, lp.gsbase
    )


def entered_again(lp: LpState, rbx: int, rcx: int) -> bool:
    """Enter if nothing has changed since the last entry; False, and nothing done, otherwise."""
    last = lp.last_entry
    if last is None or last.read != what_tests_read(lp, last.secs, rbx, rcx):
        return False
    _, inactive, secs, page, frame, cssa, entry, fsbase, gsbase = last
    processor = lp.processor
    tcs = processor.memory.page_view(processor.epc.pfn(page))
    if tcs[:SGX_TCS_LIMIT] != inactive:
        return False
    enter(lp, secs, page, rbx, frame, cssa=cssa, aep=rcx, resumed=False)
    load_entry(lp, frame, cssa, entry, fsbase, gsbase)
    return True
