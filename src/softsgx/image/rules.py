"""What ECREATE and EADD require of an image. Each function says what is wrong, or returns None.

`image.image` applies them to what software builds, `image.sgxs` to what a file holds; each adds the
place of the fault. SDM 3D, ECREATE and EADD.
"""

from __future__ import annotations

from typing import Final

from softsgx.image.errors import Finding
from softsgx.spec.attributes import XFRM_LEGACY
from softsgx.spec.bits import MASK32, MASK64, PAGE_MASK, PAGE_SIZE
from softsgx.spec.cet import CETSSA_FRAME_SIZE
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
    PT_NAMES,
    PT_SHIFT,
    REG,
    RWX,
    SS_FIRST,
    TCS,
    R,
    W,
    rwx_text,
    shadow_stack_type,
)
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.spec.tcs import (
    TCS_DBGOPTIN,
    TCS_OFF_AEP,
    TCS_OFF_CSSA,
    TCS_OFF_FLAGS,
    TCS_OFF_OCETSSA,
    TCS_OFF_PREVSSP,
    TCS_OFF_STATE,
    tcs_size,
)

ENCLAVE_SIZE_MIN: Final = 2 * PAGE_SIZE
_TOKEN: Final = PAGE_SIZE - 8  # where the RSTORSSP token of a PT_SS_FIRST page lies


def size_fault(size: int) -> str | None:
    """SECS.SIZE."""
    if size < ENCLAVE_SIZE_MIN or size & (size - 1) or size > MASK64:
        return f"{size:#x} is not a power of two of at least {ENCLAVE_SIZE_MIN:#x}"
    return None


def size_for(end: int) -> int:
    """The smallest SECS.SIZE that holds `end` bytes."""
    return max(ENCLAVE_SIZE_MIN, 1 << max(end - 1, 0).bit_length())


def frame_fault(ssaframesize: int) -> str | None:
    """SECS.SSAFRAMESIZE. Only a processor can tell whether a frame is large enough for XFRM."""
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
    shadow_stack = shadow_stack_type(flags)
    if pt not in (REG, TCS) and not shadow_stack:
        name = PT_NAMES.get(pt >> PT_SHIFT, str(pt >> PT_SHIFT))
        added = "REG, TCS, SS_FIRST and SS_REST"
        return f"{flags:#x} has page type {name}: only {added} can be added"
    if shadow_stack and flags & RWX != R | W:
        return f"{flags:#x} gives {rwx_text(flags)} to a shadow-stack page, which has rw-"
    if pt == TCS and flags & RWX:
        return f"{flags:#x} gives {rwx_text(flags)} to a TCS, which has no permissions"
    if flags & (R | W) == W:
        return f"{flags:#x} gives W without R"
    return None


def tcs_fault(page: bytes) -> Finding | None:
    """A TCS page. What EADD zeroes must be zero, because EADD does so before EEXTEND measures it.

    OCETSSA is for processors with CET; others refuse it.
    """
    tcs = TCS_PAGE.unpack(page)
    forced = (
        ("STATE", TCS_OFF_STATE, tcs.STATE),
        ("FLAGS.DBGOPTIN", TCS_OFF_FLAGS, tcs.FLAGS & TCS_DBGOPTIN),
        ("CSSA", TCS_OFF_CSSA, tcs.CSSA),
        ("AEP", TCS_OFF_AEP, tcs.AEP),
    )
    for field, offset, value in forced:
        if value:
            return Finding(field, offset, f"{value:#x}: EADD writes 0, so it must be 0")
    if tcs.OCETSSA % CETSSA_FRAME_SIZE:
        why = f"{tcs.OCETSSA:#x} is not a multiple of {CETSSA_FRAME_SIZE}"
        return Finding("OCETSSA", TCS_OFF_OCETSSA, why)
    if tcs.PREVSSP:
        return Finding("PREVSSP", TCS_OFF_PREVSSP, f"{tcs.PREVSSP:#x} is not 0")
    for offset in range(tcs_size(cet=True), PAGE_SIZE):
        if page[offset]:
            return Finding("reserved area", offset, f"{page[offset]:#x} is not 0")
    return None


def shadow_stack_fault(flags: int, page: bytes) -> Finding | None:
    """A shadow-stack page: zeros, and at the end of PT_SS_FIRST the RSTORSSP token."""
    for offset in range(_TOKEN):
        if page[offset]:
            return Finding("content", offset, f"{page[offset]:#x} is not 0")
    token = int.from_bytes(page[_TOKEN:], "little")
    if flags & PT_MASK == SS_FIRST:
        if token < PAGE_SIZE or token & PAGE_MASK & ~1:
            why = f"{token:#x} is not the address of the end of a page, and MODE64BIT"
            return Finding("RSTORSSP token", _TOKEN, why)
    elif token:
        return Finding("content", _TOKEN, f"{token:#x} is not 0")
    return None


def token_base(offset: int, page: bytes) -> int:
    """BASEADDR according to the token of the PT_SS_FIRST page at `offset` from it."""
    token = int.from_bytes(page[_TOKEN:], "little")
    return (token & ~1) - PAGE_SIZE - offset & MASK64
