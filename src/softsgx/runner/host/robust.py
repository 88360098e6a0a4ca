"""A word that the kernel marks when this thread dies: set_robust_list(2). Linux 6.12, futex.h.

kill(pid, 0) does not tell: a zombie still answers, and in another pid namespace there is no pid.
"""

import ctypes
import errno
from typing import Final

from softsgx.runner.host import nr


class _Head(ctypes.Structure):
    """struct robust_list_head. Linux 6.12, include/uapi/linux/futex.h."""

    _fields_ = (
        ("list", ctypes.c_void_p),
        ("futex_offset", ctypes.c_long),
        ("list_op_pending", ctypes.c_void_p),
    )


_syscall: Final = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t)
# The kernel reads them when the thread dies. One node, whose successor is the head again.
_head: Final = _Head()
_node: Final = ctypes.c_void_p(ctypes.addressof(_head))


def mark_death(word: int, tid: int) -> None:
    """Have bit 30 (FUTEX_OWNER_DIED) of the 32-bit word at this address set when thread `tid` dies.

    `tid` is the calling thread, whose robust mutexes of the C library are no longer served; Python
    has none. The word must stay mapped.
    """
    _head.list = ctypes.addressof(_node)
    _head.futex_offset = word - ctypes.addressof(_node)
    ctypes.c_uint32.from_address(word).value = tid
    if _syscall(nr.SET_ROBUST_LIST, ctypes.byref(_head), ctypes.sizeof(_head)):
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EPERM, errno.EACCES):
            raise OSError(code, "set_robust_list")
