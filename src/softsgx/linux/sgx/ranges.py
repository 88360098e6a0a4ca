"""The range check that all page ioctls share. Linux 6.12, sgx/ioctl.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.linux.errno import EINVAL
from softsgx.linux.events import refused
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.linux.process import Thread
    from softsgx.linux.sgx.encl import SgxEncl


def sgx_validate_offset_length(current: Thread, encl: SgxEncl, offset: int, length: int) -> int:
    """0, or -EINVAL: page aligned, not empty, no wrap-around, last page inside the enclave."""
    if offset & PAGE_MASK:
        return refused(current, EINVAL, "sgx_validate_offset_length.offset", offset=offset)
    if not length or length & PAGE_MASK:
        return refused(current, EINVAL, "sgx_validate_offset_length.length", length=length)
    end = "sgx_validate_offset_length.end"
    if not current.kernel.races.range_overflow and offset + length > MASK64:
        return refused(current, EINVAL, end, offset=offset, length=length, size=encl.size)
    # K11: without the test above the sum may wrap and look small.
    if (offset + length - PAGE_SIZE) & MASK64 >= encl.size:
        return refused(current, EINVAL, end, offset=offset, length=length, size=encl.size)
    return 0
