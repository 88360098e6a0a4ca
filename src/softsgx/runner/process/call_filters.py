"""The seccomp filters of supervised processes: which system calls stop for the supervisor.

Calls from the pages between GATE and END are the supervisor's own, and pass.
"""

from __future__ import annotations

from typing import Final

from softsgx.linux.errno import EPERM
from softsgx.linux.uapi import MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE
from softsgx.runner.host import nr
from softsgx.runner.host.abi import (
    ARCH_GET_CPUID,
    ARCH_GET_GS,
    ARCH_SET_CPUID,
    ARCH_SET_GS,
    AUDIT_ARCH_X86_64,
    PR_GET_NO_NEW_PRIVS,
    PR_GET_SECCOMP,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_SECCOMP,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_TRACE,
    SECCOMP_RET_TRAP,
    SECCOMP_RET_USER_NOTIF,
    SECCOMP_SET_MODE_FILTER,
    SECCOMP_SET_MODE_STRICT,
)
from softsgx.runner.host.bpf import ARCH, IP_HIGH, IP_LOW, NR, Program, arg_high, arg_low
from softsgx.runner.host.ptrace import PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_TRACEME
from softsgx.runner.inserted.layout import END, GATE
from softsgx.runner.inserted.systrap_layout import (
    FORKED_CALL,
    SYSTRAP_BLOCKS,
    SYSTRAP_BLOCKS_SIZE,
    TRAP_DATA,
)
from softsgx.runner.process.by_stub import ANSWERED, WITH_MASK
from softsgx.runner.process.forced import WATCHED
from softsgx.runner.ways import WAYS

RANGES: Final = (
    *(nr.MPROTECT, nr.MUNMAP, nr.PKEY_MPROTECT, nr.MADVISE, nr.MSYNC),
    *(nr.MLOCK, nr.MUNLOCK, nr.MLOCK2),
)
"""Calls on a range: its start in their first argument, its length in the second."""
BUFFERS: Final = (nr.READ, nr.WRITE, nr.PREAD64, nr.PWRITE64, nr.SENDTO, nr.RECVFROM)
"""Calls with a buffer in their second argument and its length in the third."""

_ALWAYS: Final = (
    *(nr.OPEN, nr.OPENAT, nr.OPENAT2, nr.STAT, nr.LSTAT, nr.NEWFSTATAT),
    *(nr.STATX, nr.ACCESS, nr.FACCESSAT, nr.FACCESSAT2),
    *(nr.READLINK, nr.READLINKAT, nr.STATFS, nr.NAME_TO_HANDLE_AT, nr.PIDFD_GETFD),
    *(nr.GETRUSAGE, nr.TIMES, nr.GETXATTR, nr.LGETXATTR, nr.LISTXATTR, nr.LLISTXATTR),
)
# Calls on a descriptor in their first argument, by the names of linux/char_device.py.
ON_DESCRIPTOR: Final[dict[int, str]] = {
    getattr(nr, name.upper()): name
    for name in (
        *("read", "write", "pread64", "pwrite64", "readv", "writev", "preadv", "pwritev"),
        *("preadv2", "pwritev2", "lseek", "ftruncate", "fallocate", "fsync", "fdatasync"),
        *("sync_file_range", "readahead", "fcntl"),
    )
}
_FIRST_ARGUMENT: Final = (
    *ON_DESCRIPTOR,
    *(nr.IOCTL, nr.FSTAT, nr.FSTATFS, nr.FGETXATTR, nr.FSETXATTR, nr.FREMOVEXATTR),
    *(nr.DUP, nr.DUP2, nr.DUP3),
)
# Calls that filters which are added later may stop.
_LATER: Final = tuple(
    dict.fromkeys(
        (
            *(nr.MREMAP, *RANGES, nr.MLOCKALL, nr.MUNLOCKALL, *BUFFERS, *_FIRST_ARGUMENT),
            *(nr.SENDFILE, nr.SPLICE, nr.COPY_FILE_RANGE),
        )
    )
)
_GS_CODES: Final = (ARCH_SET_GS, ARCH_GET_GS)
# By label in the base filter: the first arguments with which a call stops.
_FIRST_VALUES: Final = {
    "sigaction": WATCHED,
    "cpuid": (ARCH_GET_CPUID, ARCH_SET_CPUID),
    "seccomp": (SECCOMP_SET_MODE_STRICT, SECCOMP_SET_MODE_FILTER),
    "prctl": (PR_GET_SECCOMP, PR_SET_SECCOMP, PR_GET_NO_NEW_PRIVS, PR_SET_NO_NEW_PRIVS),
}
_TIMERS: Final = (nr.TIMER_SETTIME, nr.TIMER_GETTIME, nr.TIMER_DELETE)
_BLOCKS_END: Final = SYSTRAP_BLOCKS + SYSTRAP_BLOCKS_SIZE
_FAR: Final = 16 << 20
_MAP_FIXED_ANY: Final = MAP_FIXED | MAP_FIXED_NOREPLACE


def base_filter(supervisor: int, everything: bool = False) -> bytes:
    """The filter of every supervised process from its start.

    Attempts to trace the process `supervisor` fail: it would stop, and with it every thread that it
    serves. Linux with Yama answers -EPERM to a child that tries, too.
    `everything`: no filter can be added later, so the calls that those would stop always stop.

    `int 0x80` always stops: it replaces CPUID and ENCLU. Without a tracer, those of the program are
    made in a block of the stub.
    """
    p = Program()
    _begun(p, other_arch="stop" if WAYS.traced else "i386")
    for number in (*_LATER, *_TIMERS) if everything else ():
        p.equal(number, yes="trace")
    _for_stub(p)
    p.equal(nr.IOCTL, yes="ioctl")
    p.equal(nr.MMAP, yes="mmap")
    for number in (nr.CLOCK_GETTIME, nr.CLOCK_NANOSLEEP, nr.TIMER_CREATE):
        p.equal(number, yes="clock")
    for number in (nr.SETITIMER, nr.GETITIMER):
        p.equal(number, yes="interval")
    p.equal(nr.RT_SIGACTION, yes="sigaction" if WAYS.traced else "trace")
    p.equal(nr.ARCH_PRCTL, yes="cpuid")
    p.equal(nr.PTRACE, yes="ptrace")
    p.equal(nr.SECCOMP, yes="seccomp")
    p.equal(nr.PRCTL, yes="prctl")
    for number in _ALWAYS:
        p.equal(number, yes="trace")
    p.ret(SECCOMP_RET_ALLOW)
    p.label("ioctl")
    p.load(arg_low(1))
    p.and_(0xFF00)
    p.equal(0xA400, yes="trace", no="allow")
    p.label("mmap")
    # New anonymous memory at an address that the kernel chooses cannot replace enclave memory.
    p.load(arg_low(3))
    p.has(_MAP_FIXED_ANY, yes="trace")
    p.has(MAP_ANONYMOUS, yes="allow", no="trace")
    for label, values in _FIRST_VALUES.items():
        p.label(label)
        p.load(arg_low(0))
        for value in (*values, *(_GS_CODES if label == "cpuid" and not WAYS.traced else ())):
            p.equal(value, yes="trace")
        p.ret(SECCOMP_RET_ALLOW)
    _ptrace(p, supervisor)
    _masks_and_exec(p)
    p.label("interval")
    # ITIMER_VIRTUAL and ITIMER_PROF
    p.load(arg_low(0))
    p.equal(1, yes="trace")
    p.equal(2, yes="trace", no="allow")
    p.label("clock")
    # CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, and those of processes and threads
    p.load(arg_low(0))
    p.has(1 << 31, yes="trace")
    p.equal(2, yes="trace")
    p.equal(3, yes="trace", no="allow")
    return _ended(p)


def _for_stub(p: Program) -> None:
    """Calls about signals and threads, which the stub answers, and exec."""
    if WAYS.traced:
        return
    for number in (nr.EXECVE, nr.EXECVEAT):
        p.equal(number, yes="exec")
    p.equal(nr.BRK, yes="brk")
    for number in ANSWERED:
        p.equal(number, yes="trace")
    for number, argument in WITH_MASK.items():
        p.equal(number, yes=f"mask {argument}")


def _masks_and_exec(p: Program) -> None:
    if WAYS.traced:
        return
    p.label("i386")
    _within(p, IP_LOW, IP_HIGH, SYSTRAP_BLOCKS, _BLOCKS_END, no="stop", yes="allow")
    for argument in dict.fromkeys(WITH_MASK.values()):
        p.label(f"mask {argument}")
        p.load(arg_low(argument))
        p.greater(0, yes="trace")
        p.load(arg_high(argument))
        p.greater(0, yes="trace", no="allow")
    # brk(NULL) is the first call of a new program: planted.py. FORKED_CALL is that of a process.
    p.label("brk")
    p.load(arg_low(0))
    p.greater(0, yes="allow")
    p.load(arg_high(0))
    p.equal(FORKED_CALL >> 32, yes="exec")
    p.greater(0, yes="allow")
    p.label("exec")
    p.ret(SECCOMP_RET_USER_NOTIF)


def _ptrace(p: Program, supervisor: int) -> None:
    p.label("ptrace")
    if not WAYS.traced:
        p.load(arg_low(0))
        p.equal(PTRACE_TRACEME, yes="trace")
    p.load(arg_low(1))
    p.equal(supervisor, no="allow")
    p.load(arg_low(0))
    p.equal(PTRACE_ATTACH, yes="refused")
    p.equal(PTRACE_SEIZE, yes="refused", no="allow")
    p.label("refused")
    p.ret(SECCOMP_RET_ERRNO | EPERM)


def everything_filter() -> bytes:
    """All calls that later filters may stop, for a process that can get none any more."""
    p = Program()
    _begun(p)
    for number in (*_LATER, *_TIMERS):
        p.equal(number, yes="trace")
    p.ret(SECCOMP_RET_ALLOW)
    return _ended(p)


def stopping(*passing: int) -> bytes:
    """All calls but those of the numbers `passing`, for a filter that the kernel cannot have."""
    p = Program()
    _begun(p, other_arch="trace")
    for number in passing:
        p.equal(number, yes="allow")
    p.at_least(0, yes="trace")
    return _ended(p)


def timer_filter() -> bytes:
    """For a process with a timer on a processor clock: calls on POSIX timers."""
    p = Program()
    _begun(p)
    for number in _TIMERS:
        p.equal(number, yes="trace")
    p.ret(SECCOMP_RET_ALLOW)
    return _ended(p)


def range_filter(low: int, high: int, code: tuple[int, int] | None = None) -> bytes:
    """For an enclave area [low, high): calls that change it, or whose buffer begins in it.

    RANGES and mremap stop if they might reach into the area: if they begin in it or up to 16 MiB
    below it, or are 16 MiB or longer. So short calls far away cost nothing. Every system call that
    is made in the range `code` stops, because SYSCALL is #UD inside an enclave.
    """
    p = Program()
    _begun(p)
    if code is not None:
        _within(p, IP_LOW, IP_HIGH, *code, no="calls")
        p.label("calls")
        p.load(NR)
    p.equal(nr.MREMAP, yes="mremap")
    for number in RANGES:
        p.equal(number, yes="range")
    for number in (nr.MLOCKALL, nr.MUNLOCKALL):
        p.equal(number, yes="trace")
    for number in BUFFERS:
        p.equal(number, yes="buffer")
    p.ret(SECCOMP_RET_ALLOW)
    p.label("mremap")  # its target, too
    _within(p, arg_low(4), arg_high(4), max(low - _FAR, 0), high, no="new length")
    p.label("new length")
    _long(p, 2)
    p.label("range")
    _long(p, 1)
    _inside(p, 0, max(low - _FAR, 0), high)
    p.label("buffer")
    _inside(p, 1, low, high)
    return _ended(p)


def descriptor_filter(fd: int | None) -> bytes:
    """Calls that the file at descriptor `fd`, which stands for another, would answer differently.

    None: such calls on any descriptor.
    """
    p = Program()
    _begun(p)
    for number in _FIRST_ARGUMENT:
        p.equal(number, yes="first")
    p.equal(nr.SENDFILE, yes="second")
    p.equal(nr.SPLICE, yes="third")
    p.equal(nr.COPY_FILE_RANGE, yes="third")
    p.ret(SECCOMP_RET_ALLOW)
    for label, argument in (("second", 1), ("third", 2)):
        p.label(label)
        _descriptor(p, argument, fd, no="first")
    p.label("first")
    _descriptor(p, 0, fd, no="allow")
    return _ended(p)


def _descriptor(p: Program, argument: int, fd: int | None, no: str) -> None:
    p.load(arg_low(argument))
    if fd is None:
        p.at_least(0, yes="trace")
    else:
        p.equal(fd, yes="trace", no=no)


def _begun(p: Program, other_arch: str = "allow") -> None:
    """Load the number of the call into A; calls of another architecture go to `other_arch`."""
    p.load(ARCH)
    p.equal(AUDIT_ARCH_X86_64, no=other_arch)
    p.load(NR)


def _ended(p: Program) -> bytes:
    """Append the common end, and assemble. Calls from the gate pass: they are the supervisor's.

    This is tested last, after the numbers: for a number that a filter allows whatever else is in
    the call, the kernel (since 5.11) does not run the filter at all.
    """
    p.label("trace")
    p.load(IP_HIGH)
    p.equal(GATE >> 32, no="stop")
    p.load(IP_LOW)
    p.at_least(GATE & 0xFFFFFFFF, no="stop")
    p.at_least(END & 0xFFFFFFFF, yes="stop")
    p.label("allow")
    p.ret(SECCOMP_RET_ALLOW)
    p.label("stop")
    p.ret(SECCOMP_RET_TRACE if WAYS.traced else SECCOMP_RET_TRAP | TRAP_DATA)
    return p.assemble()


def _long(p: Program, argument: int) -> None:
    """Stop if a length is _FAR or more: such a range may reach anywhere."""
    p.load(arg_high(argument))
    p.greater(0, yes="trace")
    p.load(arg_low(argument))
    p.at_least(_FAR, yes="trace")


def _inside(p: Program, argument: int, low: int, high: int) -> None:
    """End the filter: stop if low <= argument < high, else let the call pass."""
    _within(p, arg_low(argument), arg_high(argument), low, high, no="allow")


def _within(
    p: Program, word: int, upper: int, low: int, high: int, *, no: str, yes: str = "trace"
) -> None:
    """Go on at `yes` if the 64 bits at `word` and `upper` are in [low, high), else at `no`."""
    name = f"from {word}"
    p.load(upper)
    p.greater(high >> 32, yes=no)
    p.equal(high >> 32, no=name)
    p.load(word)
    p.at_least(high & 0xFFFFFFFF, yes=no)
    p.label(name)
    p.load(upper)
    p.greater(low >> 32, yes=yes)
    p.equal(low >> 32, no=no)
    p.load(word)
    p.at_least(low & 0xFFFFFFFF, yes=yes, no=no)
