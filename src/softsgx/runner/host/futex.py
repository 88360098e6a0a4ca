"""futex(2): words that are shared between processes. Linux 6.12, include/uapi/linux/futex.h."""

import ctypes
import errno
from collections.abc import Callable
from functools import cache
from struct import pack
from typing import Final, cast

from softsgx.runner.host import nr
from softsgx.runner.host.abi import FUTEX_WAIT, FUTEX_WAKE
from softsgx.runner.host.native_code import MachineCode


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


def _futex(library: ctypes.CDLL) -> Callable[..., int]:
    function = library.syscall
    word, pointer = ctypes.c_long, ctypes.c_void_p
    function.argtypes = (word, pointer, word, word, pointer, pointer, word)
    function.restype = word
    return cast(Callable[..., int], function)


@cache
def _timespec(timeout: float) -> _Timespec:
    """Made once for each timeout, of which there are few: that takes longer than the rest."""
    seconds = int(timeout)
    return _Timespec(seconds, int((timeout - seconds) * 1e9))


_wait: Final = _futex(ctypes.CDLL(None, use_errno=True))


def wait(address: int, value: int, timeout: float | None = None) -> None:
    """Sleep while the word at `address` is `value`, at most `timeout` seconds.

    May return early, as futexes do: check the word again.
    """
    time = None if timeout is None else ctypes.byref(_timespec(timeout))
    # The kernel compares 32 bits.
    if _wait(nr.FUTEX, address, FUTEX_WAIT, value, time, 0, 0) < 0:
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
            raise OSError(code, f"futex wait at {address:#x}")


def wake(address: int, waiters: int = 1) -> int:
    """Wake up to `waiters` threads that sleep on the word at `address`; returns their number."""
    woken = int(_waker().call(address, waiters))
    if woken < 0:
        raise OSError(-woken, f"futex wake at {address:#x}")
    return woken


@cache
def _waker() -> MachineCode:
    """The system call with two arguments: seven, by ctypes, take 0.5 us more than these.

    It keeps the GIL: releasing it and taking it again would cost more.
    """
    code = b"\xb8" + pack("<I", nr.FUTEX)  # mov eax,FUTEX
    code += b"\x89\xf2"  # mov edx,esi
    code += b"\xbe" + pack("<I", FUTEX_WAKE)  # mov esi,FUTEX_WAKE
    code += b"\x4d\x31\xd2\x0f\x05\xc3"  # xor r10,r10; syscall; ret
    return MachineCode(code, ctypes.c_long, ctypes.c_void_p, ctypes.c_int, keeps_gil=True)
