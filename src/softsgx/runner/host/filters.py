"""Installing a seccomp filter in this process. man 2 seccomp."""

from __future__ import annotations

import ctypes
import os

from softsgx.runner.host import nr
from softsgx.runner.host.abi import (
    PR_GET_NO_NEW_PRIVS,
    PR_GET_SECCOMP,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_SECCOMP,
    SECCOMP_MODE_FILTER,
    SECCOMP_SET_MODE_FILTER,
)


def inherited_confinement() -> tuple[int, bool]:
    """Mode of seccomp and no_new_privs of this process, which a child inherits."""
    libc = _libc()
    return libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0), bool(libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))


def install(code: bytes, by_prctl: bool, flags: int = 0) -> int:
    """Filter the system calls of this thread from now on. OSError if that is refused.

    prctl(2) and seccomp(2) do the same; container engines allow them separately. `flags` are those
    of seccomp(2); with NEW_LISTENER the result is the listener's descriptor, otherwise 0.
    """
    libc = _libc()
    block = ctypes.create_string_buffer(code, len(code))
    program = (ctypes.c_uint64 * 2)(len(code) // 8, ctypes.addressof(block))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _error("NO_NEW_PRIVS")
    if by_prctl:
        if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0):
            raise _error("PR_SET_SECCOMP")
        return 0
    result = libc.syscall(nr.SECCOMP, SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(program))
    if result < 0:
        raise _error("seccomp(2)")
    return int(result)


def _libc() -> ctypes.PyDLL:
    libc = ctypes.PyDLL(None, use_errno=True)
    libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    return libc


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
