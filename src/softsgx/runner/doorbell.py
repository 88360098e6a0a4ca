"""The doorbell: one word that changes whenever the supervisor should look up.

It lies in memory shared with the supervised processes. Mailboxes ring it, and so does SIGCHLD, by
a signal handler in machine code that Python never sees: the emulator stops at its next block, and
a FUTEX_WAIT on the word cannot miss it.
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import struct
from typing import Any, Final

# handler: mov rax,[rip+4]; lock inc dword [rax]; ret; .quad doorbell; restorer: rt_sigreturn
_HANDLER: Final = bytes.fromhex("488b0504000000f0ff00c3")
_RESTORER: Final = bytes.fromhex("b80f0000000f05")

_SA_RESTORER: Final = 0x0400_0000
_SA_ONSTACK: Final = 0x0800_0000
_SYS_RT_SIGACTION: Final = 13
_SYS_FUTEX: Final = 202
_FUTEX_WAIT: Final = 0
_FUTEX_WAKE: Final = 1

_libc = ctypes.CDLL(None, use_errno=True)  # FUTEX_WAIT blocks: without the GIL


class Timespec(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Doorbell:
    """`address` of a 32-bit word in memory of this process; `seen` is its value last looked at."""

    def __init__(self, word: Any, sleeping: Any = None) -> None:
        self._word = word
        self.address = ctypes.addressof(word)
        self._sleeping = sleeping
        self.seen = word.value
        self._code: mmap.mmap | None = None

    def look(self) -> None:
        """What happened so far will be handled now."""
        self.seen = self._word.value

    @property
    def rung(self) -> bool:
        """Whether it rang since `look`."""
        return bool(self._word.value != self.seen)

    def wait(self, seconds: float | None = None) -> None:
        """Sleep until it differs from `seen`, a signal arrives, or the time is over."""
        if self.rung:
            return
        timeout = None
        if seconds is not None:
            whole = int(seconds)
            timeout = ctypes.byref(Timespec(whole, int((seconds - whole) * 1e9)))
        if self._sleeping is not None:
            self._sleeping.value = 1
        _libc.syscall(
            _SYS_FUTEX, ctypes.c_void_p(self.address), _FUTEX_WAIT, ctypes.c_uint32(self.seen),
            timeout, None, 0,
        )  # fmt: skip
        if self._sleeping is not None:
            self._sleeping.value = 0

    def install(self, number: int = signal.SIGCHLD) -> None:
        """Have a signal ring it."""
        code = self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=7)
        code[0 : len(_HANDLER)] = _HANDLER
        at = len(_HANDLER)
        code[at : at + 8] = struct.pack("<Q", self.address)
        at += 8
        code[at : at + len(_RESTORER)] = _RESTORER
        base = ctypes.addressof(ctypes.c_char.from_buffer(code))
        action = struct.pack("<QQQQ", base, _SA_RESTORER, base + at, 0)
        result = _libc.syscall(_SYS_RT_SIGACTION, number, action, None, 8)
        assert result == 0, "rt_sigaction failed"
