"""The doorbell: one word that changes whenever there is something for the supervisor to do.

It lies in memory shared with the supervised processes. Threads ring it for their mailboxes, and
signals ring it, by a handler in machine code that Python never sees: the emulator stops at its next
block, and a FUTEX_WAIT on the word cannot miss it. A handler in Python could do neither, and its
exception would be lost inside a callback of ctypes.
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import struct
from typing import TYPE_CHECKING, Final

from softsgx.runner.host import futex, nr
from softsgx.runner.host.abi import SA_RESTORER
from softsgx.runner.host.native_code import RESTORER

if TYPE_CHECKING:
    from softsgx.runner.inserted.records import AnyMailboxes

# handler: lock inc dword [rip+count]; mov rax,[rip+all]; lock inc dword [rax];
# mov rax,[rip+doorbell]; lock inc dword [rax]; ret;
# .long count; .quad doorbell, all; RESTORER
_HANDLER: Final = bytes.fromhex("f0ff0515000000 488b051a000000 f0ff00 488b0508000000 f0ff00 c3")

ENDING: Final = frozenset({signal.SIGTERM, signal.SIGHUP})
"""Signals that end a run: a user stops it, or its terminal is gone."""

_NONE: Final = bytes(4)

_libc = ctypes.PyDLL(None, use_errno=True)


class Doorbell:
    """The doorbell; `seen` is its value at the last `look`."""

    def __init__(self, mailboxes: AnyMailboxes) -> None:
        self._control = mailboxes.control
        self.address = mailboxes.doorbell
        self.seen = 0
        self._code: list[mmap.mmap] = []
        self._all = memoryview(bytearray(4)).cast("I")  # how many signals came
        self._all_seen = 0
        self._counts: dict[int, memoryview] = {}  # how often each signal came
        self._last: dict[int, bytes] = {}  # the counts at the last `came`

    def signalled(self) -> bool:
        """Whether any installed signal came since the last call."""
        count = self._all[0]
        if count == self._all_seen:
            return False
        self._all_seen = count
        return True

    def stopped(self) -> bool:
        """Whether SIGCHLD came since the last call: some tracee has stopped or ended."""
        return self.came(signal.SIGCHLD)

    def came(self, number: int) -> bool:
        """Whether an installed signal came since the last call for it."""
        count = bytes(self._counts[number])
        if count == self._last.get(number, _NONE):
            return False
        self._last[number] = count
        return True

    @property
    def terminated(self) -> int:
        """An installed signal of ENDING that came; 0 if none came."""
        for number in ENDING:
            if number in self._counts and any(self._counts[number]):
                return number
        return 0

    def look(self) -> None:
        """Note the present value: everything that rang so far is about to be handled."""
        self.seen = self._control.doorbell

    @property
    def rung(self) -> bool:
        """Whether it rang since `look`."""
        return self._control.doorbell != self.seen

    def wait(self, timeout: float | None = None) -> None:
        """Sleep until the value differs from `seen`, a signal comes, or `timeout` seconds pass."""
        if self.rung:
            return
        self._control.sleeping = True
        if not self.rung:
            futex.wait(self.address, self.seen, timeout)
        self._control.sleeping = False

    def install(self, number: int = signal.SIGCHLD) -> None:
        """Let a signal ring, and count it; unblock it, as our caller may have blocked it."""
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=7)
        self._code.append(code)
        code[0 : len(_HANDLER)] = _HANDLER
        at = len(_HANDLER)
        self._counts[number] = memoryview(code)[at : at + 4]
        everything = ctypes.addressof(ctypes.c_char.from_buffer(self._all))
        code[at : at + 20] = struct.pack("<IQQ", 0, self.address, everything)
        at += 20
        code[at : at + len(RESTORER)] = RESTORER
        base = ctypes.addressof(ctypes.c_char.from_buffer(code))
        action = struct.pack("<QQQQ", base, SA_RESTORER, base + at, 0)
        result = _libc.syscall(nr.RT_SIGACTION, number, action, None, 8)
        assert result == 0, "rt_sigaction failed"
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})

    def ring_every(self, period: float) -> None:
        """Ring by SIGALRM every `period` seconds; 0 stops that."""
        if signal.SIGALRM not in self._counts:
            self.install(signal.SIGALRM)
        signal.setitimer(signal.ITIMER_REAL, period, period)

    def close(self) -> None:
        """Remove the handlers, so that their memory can be freed."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in self._counts:
            ending = number in ENDING and self.terminated
            signal.signal(number, signal.SIG_IGN if ending else signal.SIG_DFL)
