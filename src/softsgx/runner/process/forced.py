"""What a forced signal changes in a program, and how that is undone if it is not delivered.

On an exception in a thread that blocks or ignores its signal, the kernel unblocks the signal and
sets its handler to SIG_DFL before it asks the tracer (Linux 6.12, kernel/signal.c,
force_sig_info_to_task). If the supervisor serves the exception, mask and handler must be as before.
The handler shows whether they were changed: it is reset only in these two cases.
"""

from __future__ import annotations

import signal
import struct
from typing import TYPE_CHECKING, Final

from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import SIG_DFL, SIG_IGN
from softsgx.runner.process.scratch import lend
from softsgx.runner.process.signals import bit, blocks_or_ignores, signal_state

if TYPE_CHECKING:
    from softsgx.runner.process.tracee import Tracee

# The signals whose actions are remembered.
WATCHED: Final = (
    *(signal.SIGILL, signal.SIGTRAP, signal.SIGBUS),
    *(signal.SIGFPE, signal.SIGSEGV),
)
ACTION_SIZE: Final = 32  # struct sigaction of the kernel, with 8 bytes of mask
_SA_RESETHAND: Final = 0x80000000
_NEVER_BLOCKED: Final = bit(signal.SIGKILL) | bit(signal.SIGSTOP)
_STANDARD: Final = (1 << 31) - 1
_HANDLER: Final = struct.Struct("<Q")
_FLAGS_AT: Final = 8
_IGNORED: Final = _HANDLER.pack(SIG_IGN).ljust(ACTION_SIZE, b"\0")


def actions_after_exec(tid: int) -> dict[int, bytes]:
    """The actions after exec: signals that were ignored still are, the others have SIG_DFL."""
    ignored = signal_state(tid).ignored
    return {number: _IGNORED for number in WATCHED if ignored & bit(number)}


def mask_before(t: Tracee, number: int) -> int:
    """The mask as it was before the exception."""
    mask = p.get_sigmask(t.tid)
    handler = _handler(t, number)
    if handler != SIG_DFL:
        if signal_state(t.tid).has_action(number):
            return mask  # neither blocked nor ignored
        if handler != SIG_IGN:
            return mask | bit(number)
    # Nothing shows whether a signal without a handler was blocked. Assume that it was if all others
    # are, or if otherwise the mask is the one that the program began with: ld.so executes CPUID.
    blocked = mask | bit(number)
    if blocked & _STANDARD | _NEVER_BLOCKED == _STANDARD or blocked == t.exec_mask:
        return blocked
    return mask


def restore_handlers(t: Tracee, but: int = 0) -> None:
    """Set the program's handlers again where the kernel has reset them, except for signal `but`."""
    if t.tid in p.HELD:
        return  # handlers of their own process serve the exceptions
    own = {n: action for n, action in t.actions.items() if n != but and _handler(t, n) != SIG_DFL}
    state = signal_state(t.tid) if own else None
    for number, action in own.items():
        if state is not None and not state.has_action(number):
            set_action(t, number, action)


def undo(t: Tracee, number: int) -> None:
    """Restore mask and handler of a stopped thread whose exception has been served."""
    mask = mask_before(t, number)
    restore_handlers(t)
    if mask != p.get_sigmask(t.tid):
        p.set_sigmask(t.tid, mask)


def restore_ignored(t: Tracee, number: int) -> None:
    """As `undo`, for a thread that did not block the signal, but may have ignored it."""
    if t.tid in p.HELD:
        return  # the kernel has reset no handler of the program's
    if _handler(t, number) == SIG_IGN and not signal_state(t.tid).ignored & bit(number):
        set_action(t, number, t.actions[number])


def force_sig(t: Tracee, number: int) -> None:
    """As in the kernel: a thread that blocks or ignores the signal of an exception is killed by it.

    The thread must be stopped where calls can be injected.
    """
    if blocks_or_ignores(t.tid, number):
        set_action(t, number, bytes(ACTION_SIZE))
        p.set_sigmask(t.tid, p.get_sigmask(t.tid) & ~bit(number))


def drop_if_reset(t: Tracee, number: int) -> None:
    """Forget the handler of a signal that is being delivered, if SA_RESETHAND resets it."""
    action = t.actions.get(number)
    if action is not None and _HANDLER.unpack_from(action, _FLAGS_AT)[0] & _SA_RESETHAND:
        del t.actions[number]


def set_action(t: Tracee, number: int, action: bytes) -> None:
    """rt_sigaction on behalf of a stopped thread."""
    held = p.HELD.get(t.tid)
    if held is not None:
        held.set_action(number, action)
        return
    t.inject(nr.RT_SIGACTION, number, lend(t.tid, action), 0, 8)


def _handler(t: Tracee, number: int) -> int:
    """sa_handler as the program set it."""
    held = p.HELD.get(t.tid)
    action = t.actions.get(number) if held is None else held.action(number)
    return SIG_DFL if action is None else int(_HANDLER.unpack_from(action)[0])
