"""The range check that all page ioctls share. Linux 6.12, sgx/ioctl.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.linux.errno import EINVAL
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.linux.kernel import Kernel
    from softsgx.linux.sgx.encl import SgxEncl


def sgx_validate_offset_length(kernel: Kernel, encl: SgxEncl, offset: int, length: int) -> int:
    """0, or -EINVAL: page aligned, not empty, no wrap-around, last page inside the enclave."""
    if offset & PAGE_MASK:
        return -EINVAL
    if not length or length & PAGE_MASK:
        return -EINVAL
    if not kernel.races.range_overflow and offset + length > MASK64:
        return -EINVAL
    # K11: without the test above the sum may wrap and look small.
    if (offset + length - PAGE_SIZE) & MASK64 >= encl.size:
        return -EINVAL
    return 0
