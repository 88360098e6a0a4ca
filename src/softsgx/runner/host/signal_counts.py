"""How often each signal came to another process of ours: whether a signal went to its group.

A process cannot ask whether a signal that it got was sent to it alone or to its process group. But
of a group, every member gets it, and the kernel signals the youngest member first (Linux 6.12,
kernel/pid.c, attach_pid). So a younger member counts its signals, by a handler in machine code, in
memory that both share; and the older one asks whether the count has changed.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from contextlib import suppress
from typing import Final

# lea rdx, [rip + pointer]; mov rdx, [rdx]; mov eax, edi; lock inc dword [rdx + rax * 4]; ret;
# restorer at 0x14: mov eax, 15; syscall
_HANDLER: Final = bytes.fromhex("488d1519000000 488b12 89f8 f0ff0482 c3").ljust(0x14, b"\x90")
_RESTORER: Final = bytes.fromhex("b80f000000 0f05").ljust(12, b"\x90")
_SA_RESTART: Final = 0x1000_0000

_ANSWER: Final = signal.SIGRTMAX
"""Delivered after every other signal that is pending, as its number is the highest."""
_ANSWER_S: Final = 4.0

# Signals that the supervisor uses or ignores itself, those of its own faults, and the answer.
_OTHERS: Final = frozenset(
    {
        *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGALRM, signal.SIGPROF),
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP),
        *(signal.SIGSYS, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTIN, signal.SIGTTOU),
        _ANSWER,
    }
)
COUNTED: Final = frozenset(signal.valid_signals()) - _OTHERS


class SignalCounts:
    """Made before the fork; the child counts (`count`), the parent asks (`to_both`)."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._counts = memoryview(self._page).cast("I")
        self._seen: dict[int, int | None] = {}

    def count(self) -> None:
        """Count the signals of this process from now on, instead of what they would do."""
        import ctypes

        from softsgx.runner.host import nr
        from softsgx.runner.host.abi import SA_RESTORER
        from softsgx.spec.bits import MASK64

        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        base = ctypes.addressof(ctypes.c_char.from_buffer(code))
        counts = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        code[: len(_HANDLER) + len(_RESTORER) + 8] = (
            _HANDLER + _RESTORER + struct.pack("<Q", counts)
        )
        # While one is counted all others wait, the answer too.
        flags = SA_RESTORER | _SA_RESTART
        action = struct.pack("<QQQQ", base, flags, base + len(_HANDLER), MASK64)
        syscall = ctypes.PyDLL(None, use_errno=True).syscall
        for number in (*COUNTED, _ANSWER):
            result = syscall(nr.RT_SIGACTION, int(number), action, None, 8)
            assert result == 0, "rt_sigaction failed"
        # Signals come until the process ends, when Python has unmapped what it knows of.
        for page in (code, self._page):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(page))

    def to_both(self, number: int, child: int) -> bool:
        """Whether the counted signal that this process has just got went to the child, too.

        False for once if the child does not answer.
        """
        answered = self._counts[_ANSWER]
        with suppress(ProcessLookupError):
            os.kill(child, _ANSWER)
        end = time.monotonic() + _ANSWER_S
        while self._counts[_ANSWER] == answered:
            if time.monotonic() > end:
                self._seen[number] = None
                return False
            time.sleep(0.0001)
        seen, count = self._seen.get(number, 0), self._counts[number]
        new = 0 if seen is None else count - seen
        # The child may have got the next one already, which waits here.
        next_too = new > 1 and number in signal.sigpending()
        self._seen[number] = count - next_too
        return new > 0
