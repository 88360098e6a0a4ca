"""Signals of a supervised thread: which wait for it, and what the supervisor owes it.

A handler must find what Linux would have told it. siginfo can be replaced only where the signal is
about to be delivered, the rest of the frame only behind that. So whoever decides on a signal says
here what is due, and the supervisor pays when the signal comes.
"""

from __future__ import annotations

import os
import signal
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import SI_TKILL
from softsgx.spec import faults

if TYPE_CHECKING:
    from softsgx.linux.process import Signal

_SIGINFO: Final = struct.Struct("<iii4xQ")
_PID: Final = struct.Struct("<i")
_PID_AT: Final = 16  # si_pid
_VALUE: Final = struct.Struct("<Q")
_VALUE_AT: Final = 24  # si_value
_OURS: Final = -0x736778  # si_code: negative ones are anybody's
# struct rt_sigframe: return address, then ucontext, whose registers begin at 40. Of those ERR is
# the 20th, TRAPNO the 21st, and CR2 the 23rd.
_FRAME_ERR: Final = 8 + 40 + 8 * 19
_FRAME_TRAPNO: Final = _FRAME_ERR + 8
_FRAME_CR2: Final = _FRAME_ERR + 24
_WORD: Final = struct.Struct("<Q")

# Linux 6.12, kernel/signal.c, sig_kernel_ignore: without a handler nobody hears of them. A traced
# thread gets them all the same, so that they stand among the pending ones here.
_IGNORED_BY_DEFAULT: Final = (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)


def bit(number: int) -> int:
    """A signal in a mask."""
    return 1 << (number - 1)


class SignalState(NamedTuple):
    """The masks of /proc/<tid>/status."""

    pending: int
    blocked: int
    ignored: int
    caught: int

    @property
    def waiting(self) -> int:
        """Those that make signal_pending() true."""
        unheard = self.ignored | sum(bit(n) for n in _IGNORED_BY_DEFAULT if not self.handled(n))
        return self.pending & ~self.blocked & ~unheard

    def handled(self, number: int) -> bool:
        """Whether the program has a handler for it."""
        return bool(self.caught & bit(number))

    def set_to(self, number: int) -> bool:
        """Whether its action is not SIG_DFL."""
        return bool((self.caught | self.ignored) & bit(number))

    def refuses(self, number: int) -> bool:
        """Whether it is blocked or ignored: then an exception kills the program."""
        return bool((self.blocked | self.ignored) & bit(number))


def signal_state(tid: int) -> SignalState:
    """The signals of a thread. FileNotFoundError or ProcessLookupError if it is gone."""
    words: dict[str, int] = {}
    with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith(("Sig", "ShdPnd")):
                name, value = line.split()
                words[name] = int(value, 16) if name != "SigQ:" else 0
    pending = words["SigPnd:"] | words["ShdPnd:"]
    return SignalState(pending, words["SigBlk:"], words["SigIgn:"], words["SigCgt:"])


class Due(NamedTuple):
    """What the handler of a signal is to find: siginfo, and in its frame ERR, TRAPNO and CR2.

    Bits of `mask` in ERR become those of `error`. A vector or an address that is None stays as the
    kernel has it. `told` is the number of the SignalSent that told of it, 0 if nobody did.
    """

    info: bytes
    error: int = 0
    mask: int = 0
    vector: int | None = None
    cr2: int | None = None
    told: int = 0

    @classmethod
    def of(cls, found: Signal, told: int = 0) -> Due:
        """Of an exception that the real processor knows nothing of."""
        cr2 = found.address if found.vector == faults.PF else None
        return cls(siginfo(found), found.error_code, p.MASK64, found.vector, cr2, told)

    @property
    def changes_frame(self) -> bool:
        """Whether siginfo is not all."""
        return bool(self.mask) or self.vector is not None or self.cr2 is not None


def siginfo(found: Signal) -> bytes:
    """The 128 bytes that a handler gets."""
    return _SIGINFO.pack(found.number, 0, found.code, found.address).ljust(128, b"\0")


def code_and_address(info: bytes) -> tuple[int, int]:
    """si_code and si_addr."""
    _, _, code, address = _SIGINFO.unpack_from(info)
    return code, address


class DueSignals:
    """What goes with signals that were sent to one thread and have not been delivered yet.

    Another process can send no siginfo of the kernel's. So what is sent is a token, and siginfo is
    put in its place when the signal is about to be delivered.
    """

    def __init__(self, tid: int) -> None:
        self._tid = tid
        self._due: dict[int, tuple[int, Due]] = {}  # by token, with the number of the signal
        self._last = 0  # the last token

    def send(self, pid: int, number: int, due: Due) -> None:
        """Send one; the thread, of process `pid`, is stopped, and the caller lets it go on."""
        self._last += 1
        self._due[self._last] = number, due
        info = bytearray(128)
        _SIGINFO.pack_into(info, 0, number, 0, _OURS, 0)
        _VALUE.pack_into(info, _VALUE_AT, self._last)
        p.tgsigqueue(pid, self._tid, number, bytes(info))

    def take(self, number: int) -> Due | None:
        """A signal is about to be delivered: what is due with it, its siginfo in place already."""
        if not self._due:
            return None
        info = p.get_siginfo(self._tid)
        code, _ = code_and_address(info)
        token = 0
        if code == _OURS:
            (token,) = _VALUE.unpack_from(info, _VALUE_AT)
        elif code == SI_TKILL and _PID.unpack_from(info, _PID_AT)[0] == os.getpid():
            # A filter forbids siginfo: then it is the first of its number.
            token = next((sent for sent, (of, _) in self._due.items() if of == number), 0)
        _, due = self._due.pop(token, (number, None))
        if due is not None:
            p.set_siginfo(self._tid, due.info)
        return due


def complete_frame(tid: int, due: Due) -> None:
    """What the kernel puts into ucontext of an exception, and no ptrace request can set.

    The thread is stopped at the first instruction of its handler.
    """
    frame = p.get_regs(tid)[p.RSP]
    if due.mask:
        raw = p.read_memory(tid, frame + _FRAME_ERR, 8)
        if raw is not None:
            (error,) = _WORD.unpack(raw)
            error = error & ~due.mask | due.error & due.mask
            p.write_memory(tid, frame + _FRAME_ERR, _WORD.pack(error))
    if due.vector is not None:
        p.write_memory(tid, frame + _FRAME_TRAPNO, _WORD.pack(due.vector))
    if due.cr2 is not None:
        p.write_memory(tid, frame + _FRAME_CR2, _WORD.pack(due.cr2))
