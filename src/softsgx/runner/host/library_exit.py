"""When a library ends the process: exit(3) in the middle of the work, without an exception.

Unicorn calls exit(1) when it gets no memory. Code 1 means a finding, or is the exit code of the
program that was run, so a handler of exit(3) prints a line and ends with another code. The handler
is machine code: Python may have no memory either, and is still inside a call. Tracees die with
their tracer (PTRACE_O_EXITKILL). The handler is disarmed when Python itself exits, or a forked
child ends.
"""

from __future__ import annotations

import atexit
import ctypes
import mmap
import os
import struct
from typing import Final

LINE: Final = "the emulator ended the process: out of memory: ulimit -v unlimited, or a smaller EPC"

# cmp dword [armed], 0; jne 1f; ret; 1: mov eax, 1; mov edi, 2; lea rsi, [text];
# mov edx, [length]; syscall; mov edi, [code]; mov eax, 231; syscall
_HANDLER: Final = bytes.fromhex(
    "833d390000000075 01c3 b801000000 bf02000000 488d3535000000"
    "8b1527000000 0f05 8b3d1b000000 b8e7000000 0f05"
)
_ARMED: Final = 64
_NUMBERS: Final = "<III"  # armed, exit code, length of the text
_TEXT: Final = 80
# "Not done" of cli/errors.py; `run` sets its own (`ends_with`).
_name, _code = "softsgx", 2
_page: mmap.mmap | None = None


def ends_with(name: str, code: int) -> None:
    """Set what the line begins with, and the exit code."""
    global _name, _code
    _name, _code = name, code
    if _page is not None:
        _write(_page)


def arm() -> None:
    """From now on an exit(3) that is not Python's own prints the line."""
    global _page
    if _page is not None or os.uname().machine != "x86_64":
        return
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        page = mmap.mmap(
            -1, mmap.PAGESIZE, flags, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        )
    except OSError:
        return  # no memory can be both written and executed: the exit code stays 1
    page[: len(_HANDLER)] = _HANDLER
    # The C library will call it after Python is gone, so it must never be unmapped.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(page))
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    _write(page)
    register = ctypes.PyDLL(None).__cxa_atexit
    register.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    register(address, None, None)
    atexit.register(_disarm)
    _page = page


def _write(page: mmap.mmap) -> None:
    text = f"{_name}: {LINE}\n".encode()
    page[_TEXT : _TEXT + len(text)] = text
    struct.pack_into(_NUMBERS, page, _ARMED, 1, _code, len(text))


def _disarm() -> None:
    assert _page is not None
    struct.pack_into("<I", _page, _ARMED, 0)
