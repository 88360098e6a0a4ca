"""EENTER once more as a processor entered before, with nothing changed in between.

All tests of EENTER passed at that entry. If everything that they read is still the same, they
would pass again and find the same pages, so they are not made again. This is no part of the
architecture, and not part of the state: without it, every entry would only take longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.cpu.entry import enter, load_entry
from softsgx.cpu.state import LastEntry
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.registers import RAX, RIP
from softsgx.spec.structure import pack_u64
from softsgx.spec.tcs import SGX_TCS_LIMIT, TCS_INACTIVE, TCS_OFF_STATE

if TYPE_CHECKING:
    from softsgx.cpu.secs import Secs
    from softsgx.cpu.state import LpState

# A thread whose enclave handles exceptions inside enters in turn at CSSA 0 and at CSSA 1.
_KEPT: Final = 2


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
    new = LastEntry(read, bytes(tcs), secs, page, frame, cssa, entry, lp.fsbase, lp.gsbase)
    others = [last for last in lp.last_entries if last.cssa != cssa]
    lp.last_entries = (new, *others[: _KEPT - 1])


def same_entry(lp: LpState, rbx: int, rcx: int) -> LastEntry | None:
    """The earlier EENTER that one with these operands would repeat now; None if there is none."""
    for last in lp.last_entries:
        if last.read != what_tests_read(lp, last.secs, rbx, rcx):
            continue
        processor = lp.processor
        tcs = processor.epc.pfn(last.page) << PAGE_SHIFT
        if processor.memory.read(tcs, SGX_TCS_LIMIT) == last.tcs:
            return last
    return None


def entered_again(lp: LpState, rbx: int, rcx: int) -> bool:
    """Enter if nothing has changed since such an entry; False, and nothing done, otherwise."""
    last = same_entry(lp, rbx, rcx)
    if last is None:
        return False
    _, _, secs, page, frame, cssa, entry, fsbase, gsbase = last
    enter(lp, secs, page, rbx, frame, cssa=cssa, aep=rcx, resumed=False)
    load_entry(lp, frame, cssa, entry, fsbase, gsbase)
    return True
