"""What the TCS pages of an enclave require of its SECS for EENTER to succeed. SDM 3D, EENTER."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from softsgx.image.image import Segment
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_MODE64BIT
from softsgx.spec.tcs import TCS_AEXNOTIFY, TCS_OFF_FLAGS


def attributes_for(segments: Iterable[Segment]) -> int:
    """The ATTRIBUTES that an enclave of these segments needs: AEXNOTIFY, if a TCS has it."""
    notified = any(notify for _, notify in _notified(segments))
    return ATTR_MODE64BIT | (ATTR_AEXNOTIFY if notified else 0)


def not_entered(segments: Iterable[Segment], attributes: int) -> tuple[int, ...]:
    """Offsets of the TCS pages at which EENTER would be #GP(0), because AEXNOTIFY of TCS.FLAGS is
    not that of ATTRIBUTES."""
    wanted = bool(attributes & ATTR_AEXNOTIFY)
    return tuple(offset for offset, notify in _notified(segments) if notify != wanted)


def _notified(segments: Iterable[Segment]) -> Iterator[tuple[int, bool]]:
    """Offset of each TCS, and whether AEXNOTIFY is set in it."""
    for segment in segments:
        for page in segment.pages() if segment.is_tcs else ():
            flags = page.content[TCS_OFF_FLAGS : TCS_OFF_FLAGS + 8]
            yield page.offset, bool(int.from_bytes(flags, "little") & TCS_AEXNOTIFY)
