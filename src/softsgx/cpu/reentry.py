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
_AFTER_STATE: Final = TCS_OFF_STATE + 8


def tcs_fields(lp: LpState, page: int) -> bytes:
    """The fields of the TCS in an EPC page."""
    processor = lp.processor
    return processor.memory.read(processor.epc.physical(page), SGX_TCS_LIMIT)


def what_tests_read(lp: LpState, secs: Secs, rbx: int, rcx: int) -> tuple[object, ...]:
    """What the tests of EENTER read, before the entry changes it, except in tables and TCS."""
    return _read(lp, secs, rbx, rcx, lp.xcr0, lp.busy)


def _read(
    lp: LpState, secs: Secs, rbx: object, rcx: object, xcr0: int, busy: int
) -> tuple[object, ...]:
    return (rbx, rcx, lp.space, secs.ATTRIBUTES, secs.XFRM, lp.cr4, xcr0, busy)


def remember_entry(
    lp: LpState, read: tuple[object, ...], secs: Secs, page: int, frame: tuple[int, ...]
) -> None:
    """The processor has just entered. With CET there is more to test, and it is not remembered."""
    processor = lp.processor
    if processor.part.cet:
        return
    tcs = bytearray(tcs_fields(lp, page))
    pack_u64(tcs, TCS_OFF_STATE, TCS_INACTIVE)
    cssa, entry = lp.regs[RAX], lp.regs[RIP]
    ptes, epcm = lp.space.ptes, processor.epcm
    entries = []
    for number in (page, *(processor.epc.index(at >> PAGE_SHIFT) for at in frame)):
        address = epcm.address[number]
        pte = ptes.get(address >> PAGE_SHIFT, 0)
        columns = (number, epcm.state[number], epcm.secs[number], address)
        entries.append((address >> PAGE_SHIFT, pte, *columns))
    new = LastEntry(
        *(read, tuple(entries), bytes(tcs), secs, page, frame, cssa, entry),
        *(lp.fsbase, lp.gsbase),
    )
    others = [last for last in lp.last_entries if last.cssa != cssa]
    lp.last_entries = (new, *others[: _KEPT - 1])


def same_entry(lp: LpState, rbx: int, rcx: int) -> LastEntry | None:
    """The earlier EENTER that one with these operands would repeat now; None if there is none.

    A page that was dirty and accessed stays so unless software changes its entry.
    """
    processor = lp.processor
    for last in lp.last_entries:
        secs = last.secs
        if (
            last.read == what_tests_read(lp, secs, rbx, rcx)
            and tcs_fields(lp, last.page) == last.tcs
            and processor.secs.get(secs.page) is secs
            and _same_tables(lp, last)
        ):
            return last
    return None


def same_after_exit(lp: LpState, last: LastEntry, tcs: bytes) -> bool:
    """Whether an EENTER like `last` could follow if the processor, which is inside, left now.

    It is inside at the same CSSA; `tcs` are the fields of its TCS.
    """
    rbx, rcx, *_ = last.read
    return (
        lp.secs is last.secs
        and lp.tcs_page == last.page
        and last.read == _read(lp, last.secs, rbx, rcx, lp.outside[2], 0)
        and tcs[_AFTER_STATE:] == last.tcs[_AFTER_STATE:]
        and _same_tables(lp, last)
    )


def _same_tables(lp: LpState, last: LastEntry) -> bool:
    ptes, epcm = lp.space.ptes, lp.processor.epcm
    for page, pte, number, state, secs, address in last.entries:
        if (
            ptes.get(page, 0) != pte
            or epcm.state[number] != state
            or epcm.secs[number] != secs
            or epcm.address[number] != address
        ):
            return False
    return True


def entered_again(lp: LpState, rbx: int, rcx: int) -> bool:
    """Enter if nothing has changed since such an entry; False, and nothing done, otherwise."""
    last = same_entry(lp, rbx, rcx)
    if last is None:
        return False
    _, _, _, secs, page, frame, cssa, entry, fsbase, gsbase = last
    enter(lp, secs, page, rbx, frame, cssa=cssa, aep=rcx, resumed=False)
    load_entry(lp, frame, cssa, entry, fsbase, gsbase)
    return True
