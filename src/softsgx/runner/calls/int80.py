"""System calls of i386 that a 64-bit program makes by `int 0x80`, where it is not traced.

The real kernel gets them, except for those of threads and signals: it would do with them what the
stub keeps for the program, and let a new thread run on the stack of its maker's signal handlers.
Numbers: Linux 6.12, arch/x86/entry/syscalls/syscall_32.tbl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import ENOSYS
from softsgx.runner.host import ptrace as p
from softsgx.runner.process.stops import answer, resume
from softsgx.runner.say import say
from softsgx.spec.bits import MASK32

if TYPE_CHECKING:
    from softsgx.runner.process.tracee import Tracee

# fmt: off
_REFUSED: Final = {
    2: "fork", 120: "clone", 190: "vfork", 435: "clone3",
    48: "signal", 67: "sigaction", 68: "sgetmask", 69: "ssetmask",
    72: "sigsuspend", 73: "sigpending", 119: "sigreturn", 126: "sigprocmask",
    186: "sigaltstack", 173: "rt_sigreturn", 174: "rt_sigaction", 175: "rt_sigprocmask",
    176: "rt_sigpending", 177: "rt_sigtimedwait", 179: "rt_sigsuspend",
    421: "rt_sigtimedwait_time64",
    308: "pselect6", 309: "ppoll", 319: "epoll_pwait", 441: "epoll_pwait2",
    413: "pselect6_time64", 414: "ppoll_time64", 321: "signalfd", 327: "signalfd4",
}
# fmt: on


def serve_int80(t: Tracee, regs: list[int]) -> None:
    """Let the kernel have a call that its filters allow, or refuse it."""
    name = _REFUSED.get(regs[p.ORIG_RAX] & MASK32) if t.tid in p.HELD else None
    if name is None:
        resume(t)
        return
    say(f"softsgx: run: process {t.pid}: {name} by int 0x80 needs --supervisor ptrace: ENOSYS\n")
    answer(t, regs, -ENOSYS)
