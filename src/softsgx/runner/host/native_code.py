"""Machine code as a function of this process, for instructions that Python cannot execute."""

from __future__ import annotations

import ctypes
import mmap
import os
from functools import cache
from typing import Any, Final

from softsgx.runner.errors import RunnerError

# mov eax, 15; syscall: rt_sigreturn, where a signal handler returns to.
RESTORER: Final = bytes.fromhex("b80f0000000f05")

_PAGE: Final = mmap.PAGESIZE


class MachineCode:
    """A page with code in it, callable with the System V calling convention.

    The page is first writable, then executable, never both, as hardened kernels require.
    `keeps_gil`: the code may call back Python, or returns soon.
    """

    def __init__(self, code: bytes, restype: Any, *argtypes: Any, keeps_gil: bool = False) -> None:
        if len(code) > _PAGE:
            raise ValueError(f"MachineCode: {len(code)} bytes do not fit a page")
        self._page = mmap.mmap(-1, _PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._page.write(code)
        self._view = ctypes.c_char.from_buffer(self._page)  # keeps the mapping
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        address = ctypes.addressof(self._view)
        if libc.mprotect(address, _PAGE, mmap.PROT_READ | mmap.PROT_EXEC):
            why = os.strerror(ctypes.get_errno())
            raise RunnerError("mprotect", f"new code cannot be made executable here: {why}")
        kind = ctypes.PYFUNCTYPE if keeps_gil else ctypes.CFUNCTYPE
        self.call = kind(restype, *argtypes)(address)


@cache
def compare_and_swap() -> MachineCode:
    """A function (address, old, new) that replaces a 32-bit word if it is `old`; it returns what
    was there, atomically."""
    # mov eax,esi; lock cmpxchg [rdi],edx; ret
    code = bytes.fromhex("89f0f00fb117c3")
    word = ctypes.c_uint32
    return MachineCode(code, word, ctypes.c_void_p, word, word, keeps_gil=True)
