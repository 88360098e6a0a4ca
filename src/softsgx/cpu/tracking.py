"""Tracking: have all processors left that might hold an old translation? SDM 3D, ETRACK, EWB.

The manual names the rule and leaves the means to the implementation. The model: an enclave has an
epoch. Each processor inside belongs to the epoch in which it entered; `current` counts those of
this epoch, `previous` those of the one before. ETRACK opens the next epoch, once `previous` is
empty. EBLOCK, EMODPR and EMODT stamp the page with the epoch (stored plus one; 0 = no stamp). A
stamped page is tracked when an ETRACK came later and the processors inside at that ETRACK have
left:

    stamp epoch <= EPOCH - 2, or stamp epoch = EPOCH - 1 and previous = 0

The representation is ours; every result the manual prints follows from it (docs/readings.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.cpu.secs import Secs

if TYPE_CHECKING:
    from softsgx.cpu.state import LpState, Package


def enter(lp: LpState, secs: Secs) -> None:
    """A processor enters: it belongs to this epoch."""
    secs.current += 1
    lp.epoch = secs.EPOCH
    if not lp.processor.readings.late_entry_counts:
        secs.entries += 1  # only this reading needs to tell entries apart
        lp.entry = secs.entries


def leave(lp: LpState, secs: Secs) -> None:
    """A processor leaves, whatever epoch it entered in."""
    if lp.epoch == secs.EPOCH:
        secs.current -= 1
    else:
        secs.previous -= 1
    lp.epoch = lp.entry = 0
    assert secs.current >= 0 <= secs.previous, "tracking count below zero"


def track(secs: Secs) -> bool:
    """Open a tracking cycle; False, and nothing changed, while the previous one is incomplete."""
    if secs.previous:
        return False
    secs.previous = secs.current
    secs.current = 0
    secs.EPOCH += 1
    return True


def stamp(processor: Package, secs: Secs, page: int) -> None:
    """EBLOCK, EMODPR, EMODT: remember when the page's translations became obsolete."""
    if not processor.readings.etrack_needed_when_empty and not secs.inside:
        processor.epcm.stamp[page] = 0  # no processor to wait for, even for a later EACCEPT
        return
    processor.epcm.stamp[page] = secs.EPOCH + 1
    if not processor.readings.late_entry_counts:
        processor.stamp_entries[page] = secs.entries


def clear_stamp(processor: Package, page: int) -> None:
    """The page was accepted, or is freed."""
    processor.epcm.stamp[page] = 0
    processor.stamp_entries.pop(page, None)


def tracked(processor: Package, secs: Secs, page: int) -> bool:
    """Whether no processor can hold a translation of the page from before its stamp."""
    stamped = processor.epcm.stamp[page]
    if stamped == 0:
        return True
    age = secs.EPOCH - (stamped - 1)
    if age >= 2 or (age == 1 and not secs.previous):
        return True
    if not processor.readings.etrack_needed_when_empty and not secs.inside:
        return True
    if age == 1 and not processor.readings.late_entry_counts:
        # Only processors inside at the stamp matter; those that entered later saw the new EPCM.
        before = processor.stamp_entries.get(page, 0)
        return not any(lp.secs is secs and lp.entry <= before for lp in processor.lps)
    return False
