"""Signals of a supervised thread: which are pending, and what their handlers must find.

A handler must find the siginfo and the frame that Linux would have written. siginfo can be replaced
only when the signal is about to be delivered, the rest of the frame only once the kernel has
written it. So `Due` is kept from the sending of a signal until these two moments.
"""

from __future__ import annotations

import os
import signal
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import SI_TKILL
from softsgx.runner.host.proc import signal_masks
from softsgx.spec import faults

if TYPE_CHECKING:
    from softsgx.linux.process import Signal

_SIGINFO: Final = struct.Struct("<iii4xQ")
_PID: Final = struct.Struct("<i")
_PID_AT: Final = 16  # si_pid
_VALUE: Final = struct.Struct("<Q")
_VALUE_AT: Final = 24  # si_value
_OURS: Final = -0x736778  # si_code: user space may use negative ones
# struct rt_sigframe: return address, then ucontext, whose registers begin at 40. ERR is the 20th
# register, TRAPNO the 21st, and CR2 the 23rd.
_FRAME_ERR: Final = 8 + 40 + 8 * 19
_FRAME_TRAPNO: Final = _FRAME_ERR + 8
_FRAME_CR2: Final = _FRAME_ERR + 24
_WORD: Final = struct.Struct("<Q")

# Linux 6.12, kernel/signal.c, sig_kernel_ignore: the kernel drops these without a handler, but
# queues them for a traced thread.
_IGNORED_BY_DEFAULT: Final = (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)


def bit(number: int) -> int:
    """The bit of a signal in a mask."""
    return 1 << (number - 1)


class SignalState(NamedTuple):
    """The masks of /proc/<tid>/status."""

    pending: int
    blocked: int
    ignored: int
    caught: int

    @property
    def waiting(self) -> int:
        """The signals that make signal_pending() true."""
        ignored = self.ignored | sum(bit(n) for n in _IGNORED_BY_DEFAULT if not self.handled(n))
        return self.pending & ~self.blocked & ~ignored

    def handled(self, number: int) -> bool:
        """Whether the program has a handler for it."""
        return bool(self.caught & bit(number))

    def has_action(self, number: int) -> bool:
        """Whether its action is not SIG_DFL."""
        return bool((self.caught | self.ignored) & bit(number))

    def blocks_or_ignores(self, number: int) -> bool:
        """Whether the thread blocks or ignores it: then an exception with this signal kills it."""
        return bool((self.blocked | self.ignored) & bit(number))


def signal_state(tid: int) -> SignalState:
    """The signals of a thread. FileNotFoundError or ProcessLookupError if it is gone."""
    masks = signal_masks(tid)
    pending = masks["SigPnd"] | masks["ShdPnd"]
    blocked, ignored, caught = masks["SigBlk"], masks["SigIgn"], masks["SigCgt"]
    held = p.HELD.get(tid)
    if held is not None:
        blocked, ignored, caught = held.masks(blocked, ignored, caught)
    return SignalState(pending, blocked, ignored, caught)


def blocks_or_ignores(tid: int, number: int) -> bool:
    """As `SignalState.blocks_or_ignores`, for the signal of an exception."""
    held = p.HELD.get(tid)
    if held is not None:
        return held.blocks_or_ignores(number)
    return signal_state(tid).blocks_or_ignores(number)


class Due(NamedTuple):
    """What the handler of a signal must find: siginfo, and ERR, TRAPNO and CR2 in its frame.

    The bits of `mask` in ERR become those of `error`. TRAPNO and CR2 stay as the kernel wrote them
    if `vector` and `cr2` are None. `sent_event` is the number of the SignalSent, 0 if none.
    """

    info: bytes
    error: int = 0
    mask: int = 0
    vector: int | None = None
    cr2: int | None = None
    sent_event: int = 0

    @classmethod
    def of(cls, found: Signal, sent_event: int = 0) -> Due:
        """For an exception that the real processor did not raise."""
        cr2 = found.address if found.vector == faults.PF else None
        return cls(siginfo(found), found.error_code, p.MASK64, found.vector, cr2, sent_event)

    @property
    def changes_frame(self) -> bool:
        """Whether the frame must be changed, too, not only siginfo."""
        return bool(self.mask) or self.vector is not None or self.cr2 is not None


def siginfo(found: Signal) -> bytes:
    """The 128 bytes that a handler gets."""
    return _SIGINFO.pack(found.number, 0, found.code, found.address).ljust(128, b"\0")


def code_and_address(info: bytes) -> tuple[int, int]:
    """si_code and si_addr."""
    _, _, code, address = _SIGINFO.unpack_from(info)
    return code, address


class DueSignals:
    """The `Due` of each signal that was sent to one thread and has not been delivered yet.

    No process may send a siginfo such as the kernel makes. So the siginfo that is sent carries a
    token, and is replaced when the signal is about to be delivered.
    """

    def __init__(self, tid: int) -> None:
        self._tid = tid
        self._due: dict[int, tuple[int, Due]] = {}  # by token, with the number of the signal
        self._last = 0  # the last token

    def send(self, pid: int, number: int, due: Due) -> None:
        """Send a signal to the stopped thread, of process `pid`; the caller resumes it."""
        self._last += 1
        self._due[self._last] = number, due
        info = bytearray(128)
        _SIGINFO.pack_into(info, 0, number, 0, _OURS, 0)
        _VALUE.pack_into(info, _VALUE_AT, self._last)
        held = p.HELD.get(self._tid)
        if held is not None and held.send(number, bytes(info)):
            return
        p.tgsigqueue(pid, self._tid, number, bytes(info))

    def take(self, number: int) -> Due | None:
        """At a signal-delivery stop: the `Due` of the signal, if it has one; sets the siginfo."""
        if not self._due:
            return None
        info = p.get_siginfo(self._tid)
        code, _ = code_and_address(info)
        token = 0
        if code == _OURS:
            (token,) = _VALUE.unpack_from(info, _VALUE_AT)
        elif code == SI_TKILL and _PID.unpack_from(info, _PID_AT)[0] == os.getpid():
            # Sent by tgkill because a filter forbids siginfo: take the first of this number.
            token = next((sent for sent, (of, _) in self._due.items() if of == number), 0)
        _, due = self._due.pop(token, (number, None))
        if due is not None:
            p.set_siginfo(self._tid, due.info)
        return due


def frame_told(tid: int, due: Due) -> bool:
    """Whether code in the process completes the frame, and knows now with what."""
    held = p.HELD.get(tid)
    if held is None:
        return False
    held.set_frame(due.error, due.mask, due.vector, due.cr2)
    return True


def complete_frame(tid: int, due: Due) -> None:
    """Write into the ucontext what the kernel writes for an exception; no ptrace request can.

    The thread is stopped at the first instruction of the handler.
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
