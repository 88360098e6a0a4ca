"""What ECREATE and EADD demand of an image, as questions: the answer says what is wrong, or None.

They are asked by `image.image` about what software builds and by `image.sgxs` about what a file
holds, which know different things about the place. SDM 3D, ECREATE and EADD.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from softsgx.spec.attributes import XFRM_LEGACY
from softsgx.spec.bits import MASK32, MASK64, PAGE_SIZE
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
    PT_NAMES,
    PT_SHIFT,
    REG,
    RWX,
    TCS,
    R,
    W,
    rwx_text,
)
from softsgx.spec.tcs import (
    SGX_TCS_LIMIT,
    TCS_DBGOPTIN,
    TCS_OFF_AEP,
    TCS_OFF_CSSA,
    TCS_OFF_FLAGS,
    TCS_OFF_STATE,
)
from softsgx.spec.tcs import TCS as TCS_PAGE

ENCLAVE_SIZE_MIN: Final = 2 * PAGE_SIZE


class TcsFault(NamedTuple):
    """A field of a TCS page, its byte offset in the page, and what is wrong with it."""

    field: str
    offset: int
    why: str


def size_fault(size: int) -> str | None:
    """SECS.SIZE."""
    if size < ENCLAVE_SIZE_MIN or size & (size - 1) or size > MASK64:
        return f"{size:#x} is not a power of two of at least {ENCLAVE_SIZE_MIN:#x}"
    return None


def frame_fault(ssaframesize: int) -> str | None:
    """SECS.SSAFRAMESIZE. Whether a frame is large enough for XFRM is for the processor to say."""
    if not 0 < ssaframesize <= MASK32:
        return f"{ssaframesize} pages: from 1 to 2^32 - 1"
    return None


def xfrm_fault(xfrm: int) -> str | None:
    """SECS.XFRM."""
    if xfrm & XFRM_LEGACY != XFRM_LEGACY:
        return f"{xfrm:#x} lacks x87 (bit 0) or SSE (bit 1)"
    return None


def flags_fault(flags: int) -> str | None:
    """SECINFO.FLAGS of a page that is added."""
    pt = flags & PT_MASK
    if flags & (PENDING | MODIFIED | PR):
        return f"{flags:#x} sets PENDING, MODIFIED or PR, which no page has when it is added"
    if flags & ~(PT_MASK | RWX):
        return f"{flags:#x} sets reserved bits {flags & ~(PT_MASK | RWX):#x}"
    if pt not in (REG, TCS):
        name = PT_NAMES.get(pt >> PT_SHIFT, str(pt >> PT_SHIFT))
        return f"{flags:#x} has page type {name}: only REG and TCS can be added"
    if pt == TCS and flags & RWX:
        return f"{flags:#x} gives {rwx_text(flags)} to a TCS, which has no permissions"
    if flags & (R | W) == W:
        return f"{flags:#x} gives W without R"
    return None


def tcs_fault(page: bytes) -> TcsFault | None:
    """A TCS page. What EADD would zero must be zero: it is zeroed before it is measured."""
    tcs = TCS_PAGE.unpack(page)
    forced = (
        ("STATE", TCS_OFF_STATE, tcs.STATE),
        ("FLAGS.DBGOPTIN", TCS_OFF_FLAGS, tcs.FLAGS & TCS_DBGOPTIN),
        ("CSSA", TCS_OFF_CSSA, tcs.CSSA),
        ("AEP", TCS_OFF_AEP, tcs.AEP),
    )
    for field, offset, value in forced:
        if value:
            return TcsFault(field, offset, f"{value:#x}: EADD writes 0, so it must be 0")
    for offset in range(SGX_TCS_LIMIT, PAGE_SIZE):
        if page[offset]:
            return TcsFault("reserved area", offset, f"{page[offset]:#x} is not 0")
    return None
