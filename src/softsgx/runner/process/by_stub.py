"""System calls that the stub without a tracer answers itself, in the process."""

from typing import Final

from softsgx.runner.host import nr

ANSWERED: Final = (
    *(nr.RT_SIGPROCMASK, nr.SIGALTSTACK, nr.RT_SIGRETURN, nr.RT_SIGPENDING, nr.RT_SIGSUSPEND),
    *(nr.RT_SIGTIMEDWAIT, nr.SIGNALFD, nr.SIGNALFD4, nr.CLONE, nr.CLONE3, nr.FORK, nr.VFORK),
    *(nr.RT_SIGQUEUEINFO, nr.RT_TGSIGQUEUEINFO, nr.EXIT, nr.EXIT_GROUP),
)
"""They concern signals or threads."""
WITH_MASK: Final = {
    nr.PPOLL: 3,
    nr.EPOLL_PWAIT: 4,
    nr.EPOLL_PWAIT2: 4,
    nr.PSELECT6: 5,
    nr.IO_PGETEVENTS: 5,
}
"""Calls with a pointer to a mask, in this argument: it answers them only if that is not NULL."""
BY_STUB: Final = frozenset((*ANSWERED, *WITH_MASK, nr.RT_SIGACTION, nr.ARCH_PRCTL))
"""What the stub without a tracer may answer itself."""
