"""What the ioctls on a range of pages share: arguments, range, results. Linux 6.12, sgx/ioctl.c.

`count` of an argument block is the number of bytes done, and `result` the status of the leaf that
refused. Both are written back on failure, too: the page at offset + count is the one that failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softsgx.linux.errno import EFAULT, EINVAL, ENODEV
from softsgx.linux.sgx import encl as e
from softsgx.linux.sgx import main as m
from softsgx.linux.trace import refused, trace_arguments, trace_results
from softsgx.linux.uaccess import copy_from_user, copy_to_user
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SIZE
from softsgx.spec.paging import SECINFO

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.linux.process import Thread
    from softsgx.linux.sgx.encl import SgxEncl
    from softsgx.sim import Steps
    from softsgx.spec.structure import Structure


def sgx_ioc_sgx2_ready(current: Thread, encl: SgxEncl) -> int:
    """0 if the pages of the enclave can be changed: the processor has SGX2, and INIT succeeded."""
    if not current.kernel.has_sgx2:
        return refused(current, ENODEV, "sgx_ioc_sgx2_ready.sgx2")
    if not encl.flags & e.SGX_ENCL_INITIALIZED:
        return refused(current, EINVAL, "sgx_ioc_sgx2_ready.initialised", **e.sgx_encl_state(encl))
    return 0


def sgx_validate_offset_length(current: Thread, encl: SgxEncl, offset: int, length: int) -> int:
    """0, or -EINVAL: page aligned, not empty, no wrap-around, last page inside the enclave."""
    if offset & PAGE_MASK:
        return refused(current, EINVAL, "sgx_validate_offset_length.offset", offset=offset)
    if not length or length & PAGE_MASK:
        return refused(current, EINVAL, "sgx_validate_offset_length.length", length=length)
    end = "sgx_validate_offset_length.end"
    if not current.kernel.races.range_overflow and offset + length > MASK64:
        return refused(current, EINVAL, end, offset=offset, length=length, size=encl.size)
    # K11: without the test above the sum may wrap and pass.
    if (offset + length - PAGE_SIZE) & MASK64 >= encl.size:
        return refused(current, EINVAL, end, offset=offset, length=length, size=encl.size)
    return 0


def sgx2_arguments(
    current: Thread, encl: SgxEncl, arg: int, structure: type[Any]
) -> Steps[Any | int]:
    """The argument block of an ioctl that changes pages, if SGX2 is ready and the range is good."""
    ret = sgx_ioc_sgx2_ready(current, encl)
    if ret:
        return ret
    raw = yield from copy_from_user(current, arg, structure.SIZE)
    if raw is None:
        return -EFAULT
    params = structure.unpack(raw)
    trace_arguments(current, params)
    return sgx_validate_offset_length(current, encl, params.offset, params.length) or params


def for_each_page(
    current: Thread,
    encl: SgxEncl,
    params: Any,
    flags: int,
    one: Callable[[int, int], Steps[int]],
) -> Steps[int]:
    """Call `one(address, secinfo)` for each page until a call fails; set `count`. 0, or the error.

    `secinfo` is the address of a SECINFO with these FLAGS in kernel memory. If EPC is short, pages
    are reclaimed before each call.
    """
    kernel = current.kernel
    block = kernel.get_operands()
    kernel.processor.memory.write(block.physical, SECINFO(FLAGS=flags).pack())
    first = encl.base + params.offset
    ret, done = 0, 0
    while done < params.length:
        yield from m.sgx_reclaim_direct(current)
        ret = yield from one(first + done, block.address)
        if ret:
            break
        done += PAGE_SIZE
    params.count = done
    kernel.put_operands(block)
    return ret


def write_back(current: Thread, arg: int, params: Structure, ret: int) -> Steps[int]:
    """Copy the block, now with `result` and `count`, back to user memory: `ret`, or -EFAULT."""
    trace_results(current, params)
    return (yield from copy_to_user(current, arg, params.pack())) or ret
