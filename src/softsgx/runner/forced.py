"""What a forced signal did to a program that never gets it, undone.

An exception in a thread that blocks or ignores its signal makes the kernel unblock the signal and
set its handler to SIG_DFL, and only then is the tracer asked (Linux 6.12, kernel/signal.c,
force_sig_info_to_task). Where the supervisor serves the exception, mask and handler must be as
before. Which it was shows by the handler: only these two cases reset it.
"""

from __future__ import annotations

import signal
import struct
from typing import TYPE_CHECKING, Final

from softsgx.runner import ptrace as p
from softsgx.runner.scratch import lend

if TYPE_CHECKING:
    from softsgx.runner.tracee import Tracee

# The signals whose actions are followed.
WATCHED: Final = (
    *(signal.SIGILL, signal.SIGTRAP, signal.SIGBUS),
    *(signal.SIGFPE, signal.SIGSEGV),
)
ACTION_SIZE: Final = 32  # struct sigaction of the kernel, with 8 bytes of mask
_RT_SIGACTION: Final = 13
_SIG_DFL, _SIG_IGN = 0, 1
_NEVER_BLOCKED: Final = 1 << (signal.SIGKILL - 1) | 1 << (signal.SIGSTOP - 1)
_STANDARD: Final = (1 << 31) - 1
_HANDLER: Final = struct.Struct("<Q")
_IGNORED: Final = _HANDLER.pack(_SIG_IGN).ljust(ACTION_SIZE, b"\0")


def inherited(tid: int) -> dict[int, bytes]:
    """The actions after exec: what was ignored still is, all others are SIG_DFL."""
    ignored, _ = _dispositions(tid)
    return {number: _IGNORED for number in WATCHED if ignored >> (number - 1) & 1}


def mask_before(t: Tracee, number: int) -> int:
    """The mask as it was before the exception; the handler is put back."""
    mask = p.get_sigmask(t.tid)
    bit = 1 << (number - 1)
    action = t.actions.get(number, b"")
    handler = _HANDLER.unpack_from(action)[0] if action else _SIG_DFL
    if handler != _SIG_DFL:
        ignored, caught = _dispositions(t.tid)
        if (ignored | caught) & bit:
            return mask  # neither blocked nor ignored
        set_action(t, number, action)
        if handler != _SIG_IGN:
            return mask | bit
    # Nothing shows that a signal without a handler was blocked, but for all others being blocked.
    if mask & _STANDARD | bit | _NEVER_BLOCKED == _STANDARD:
        mask |= bit
    return mask


def undo(t: Tracee, number: int) -> None:
    """The exception of a stopped thread is served: mask and handler as before."""
    before, now = mask_before(t, number), p.get_sigmask(t.tid)
    if before != now:
        p.set_sigmask(t.tid, before)


def still_ignored(t: Tracee, number: int) -> None:
    """As `undo` for a thread whose signal was not blocked."""
    action = t.actions.get(number, b"")
    if action and _HANDLER.unpack_from(action)[0] == _SIG_IGN:
        if not _dispositions(t.tid)[0] >> (number - 1) & 1:
            set_action(t, number, action)


def set_action(t: Tracee, number: int, action: bytes) -> None:
    """rt_sigaction on behalf of a stopped thread."""
    t.inject(_RT_SIGACTION, number, lend(t, action), 0, 8)


def _dispositions(tid: int) -> tuple[int, int]:
    """SigIgn and SigCgt of a process."""
    found = {}
    with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name in ("SigIgn", "SigCgt"):
                found[name] = int(value, 16)
    return found["SigIgn"], found["SigCgt"]
