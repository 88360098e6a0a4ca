"""seccomp(2), and what prctl(2) has of it: filters that a program installs itself.

The kernel gets them in another form (`process/own_filters.py`), and judges by them every call of
x86-64. It cannot tell an `int 0x80` of the program from one that replaces CPUID or ENCLU, so those
of the program are judged here.
"""

from __future__ import annotations

import os
import signal
import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import EACCES, EINVAL, ENOSYS
from softsgx.runner.calls.advice import capable
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import (
    AUDIT_ARCH_X86_64,
    BPF_MAXINSNS,
    CAP_SYS_ADMIN,
    PR_GET_NO_NEW_PRIVS,
    PR_GET_SECCOMP,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_SECCOMP,
    PR_SET_TSC,
    PR_TSC_SIGSEGV,
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_FILTER_FLAG_TSYNC,
    SECCOMP_MODE_FILTER,
    SECCOMP_MODE_STRICT,
    SECCOMP_RET_ACTION_FULL,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_DATA,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE,
    SECCOMP_RET_TRAP,
    SECCOMP_RET_USER_NOTIF,
    SECCOMP_SET_MODE_FILTER,
    SECCOMP_SET_MODE_STRICT,
    SI_SYS_SECCOMP,
    SIG_DFL,
)
from softsgx.runner.host.bpf_machine import accepted, decoded
from softsgx.runner.process import call_filters
from softsgx.runner.process.forced import ACTION_SIZE, force_sig, set_action
from softsgx.runner.process.own_filters import (
    NOTHING,
    OwnFilter,
    guarded,
    passing,
    seccomp_data,
    verdict,
)
from softsgx.runner.process.signals import Due, bit
from softsgx.runner.process.stops import (
    Handler,
    add_filter,
    answer,
    lend_filter,
    resume,
    run_instead,
    run_to_exit,
    serve_at_exit,
)
from softsgx.runner.say import say
from softsgx.spec.bits import MASK32, MASK64

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softsgx.runner.host.ptrace import SyscallInfo
    from softsgx.runner.process.tracee import Tracee

_MAX_ERRNO: Final = 4095
_SOCK_FPROG: Final = struct.Struct("<H6xQ")
_NOWHERE: Final = MASK64  # the address of no struct sock_fprog
# siginfo of SIGSYS: si_signo, si_errno, si_code, si_call_addr, si_syscall, si_arch.
_SIGSYS_INFO: Final = struct.Struct("<iii4xQII")
_STRICT: Final = (nr.READ, nr.WRITE, nr.EXIT, nr.RT_SIGRETURN)
_STRICT_I386: Final = (nr.READ_I386, nr.WRITE_I386, nr.EXIT_I386, nr.SIGRETURN_I386)


class SeccompCalls:
    """Serves these calls, and judges stopped calls by the filters of the program.

    `tracees` are all supervised threads by tid.
    """

    def __init__(self, tracees: Mapping[int, Tracee]) -> None:
        self._tracees = tracees
        # Called with a process before its threads count: those that are not traced may be unknown.
        self.learn: Callable[[int], None] = lambda _pid: None

    def handlers(self) -> dict[int, Handler]:
        """By number of the system call."""
        return {nr.SECCOMP: self._seccomp, nr.PRCTL: self._prctl}

    # Calls

    def _seccomp(self, t: Tracee, regs: list[int]) -> None:
        operation, flags = regs[p.RDI] & MASK32, regs[p.RSI] & MASK32
        if operation == SECCOMP_SET_MODE_FILTER:
            serve_at_exit(t, regs, partial(self._set_filter, regs=regs, flags=flags))
        elif operation == SECCOMP_SET_MODE_STRICT:
            if flags or regs[p.RDX]:
                answer(t, regs, -EINVAL)
            else:
                self._set_strict(t, regs)
        else:
            resume(t)

    def _prctl(self, t: Tracee, regs: list[int]) -> None:
        option = regs[p.RDI] & MASK32
        if option == PR_GET_SECCOMP:
            answer(t, regs, t.seccomp.mode)
        elif option == PR_SET_SECCOMP and regs[p.RSI] == SECCOMP_MODE_FILTER:
            serve_at_exit(t, regs, partial(self._set_filter, regs=regs, flags=0))
        elif option == PR_SET_SECCOMP and regs[p.RSI] == SECCOMP_MODE_STRICT:
            self._set_strict(t, regs)
        elif option == PR_SET_NO_NEW_PRIVS:
            run_to_exit(t, _no_new_privs)
        elif option == PR_GET_NO_NEW_PRIVS and not any(regs[n] for n in _OTHERS):
            answer(t, regs, int(t.seccomp.no_new_privs))
        else:
            resume(t)

    def _set_filter(self, t: Tracee, regs: list[int], flags: int) -> int:
        """seccomp_set_mode_filter, at the exit stop of a call in its place.

        The kernel is asked for every answer, but looks for CAP_SYS_ADMIN only without
        no_new_privs, which is always set here.
        """
        call = partial(t.inject, regs[p.ORIG_RAX], regs[p.RDI], regs[p.RSI])
        fprog = p.read_memory(t.tid, regs[p.RDX], _SOCK_FPROG.size)
        if fprog is None:
            return call(_NOWHERE)
        count, place = _SOCK_FPROG.unpack(fprog)
        if not 0 < count <= BPF_MAXINSNS:
            return -EINVAL
        if not t.seccomp.no_new_privs and not capable(t, CAP_SYS_ADMIN):
            return -EINVAL if call(_NOWHERE) == -EINVAL else -EACCES
        code = p.read_memory(t.tid, place, 8 * count) if place else b""
        if code is None:
            return call(_NOWHERE)
        program = decoded(code)
        if not accepted(program):
            return -EINVAL
        for_kernel = guarded(program)
        if for_kernel is None and flags & SECCOMP_FILTER_FLAG_NEW_LISTENER:
            what = f"process {t.pid}: a filter of {count} instructions with a listener"
            say(f"softsgx: run: {what} has no room for those that softsgx adds: EINVAL\n")
            return -EINVAL
        own = OwnFilter(program, in_kernel=for_kernel is not None)
        return self._install(t, own, for_kernel or call_filters.stopping(), flags, call)

    def _set_strict(self, t: Tracee, regs: list[int]) -> None:
        """seccomp_set_mode_strict. A filter stops what is not allowed; `allowed` kills then."""
        if t.seccomp.mode:
            answer(t, regs, -EINVAL)
            return
        call = partial(t.inject, nr.PRCTL, PR_SET_SECCOMP, SECCOMP_MODE_FILTER)
        if regs[p.ORIG_RAX] == nr.SECCOMP:
            call = partial(t.inject, nr.SECCOMP, SECCOMP_SET_MODE_FILTER, 0)

        def install(t: Tracee) -> int:
            t.confine(NOTHING)
            self._divide(t)
            result = call(lend_filter(t, call_filters.stopping(*_STRICT)))
            if result == 0:
                t.seccomp = t.seccomp._replace(mode=SECCOMP_MODE_STRICT)
                t.inject(nr.PRCTL, PR_SET_TSC, PR_TSC_SIGSEGV)
            return result

        serve_at_exit(t, regs, install)

    def _install(
        self, t: Tracee, own: OwnFilter, code: bytes, flags: int, call: Callable[[int], int]
    ) -> int:
        everywhere = bool(flags & SECCOMP_FILTER_FLAG_TSYNC)
        for other in self._threads(t) if everywhere else (t,):
            other.confine(NOTHING)
        if not everywhere:
            self._divide(t)
        result = call(lend_filter(t, code))
        if result == 0 or (flags & SECCOMP_FILTER_FLAG_NEW_LISTENER and result > 0):
            t.seccomp = t.seccomp.with_filter(own)
            for other in self._threads(t) if everywhere else ():
                no_new_privs = other.seccomp.no_new_privs or t.seccomp.no_new_privs
                other.seccomp = t.seccomp._replace(no_new_privs=no_new_privs)
        for other in self._threads(t):
            other.confine(passing(other.seccomp))
        return result

    def _divide(self, t: Tracee) -> None:
        """Before one thread of several gets a filter: afterwards none of ours can be added to all
        of them, or they would get the thread's filters as well."""
        threads = self._threads(t)
        if len(threads) > 1 and not t.all_stops:
            add_filter(t, call_filters.everything_filter())
            for each in threads:
                each.all_stops = True

    def _threads(self, t: Tracee) -> list[Tracee]:
        self.learn(t.pid)
        return [other for other in self._tracees.values() if other.pid == t.pid]

    # Judging

    def allowed(self, t: Tracee, regs: list[int]) -> bool:
        """Whether a call at its seccomp stop goes on; if not, it has been answered, or the thread
        killed."""
        if not t.seccomp.confines:
            return True
        call = p.syscall_info(t.tid)
        if t.seccomp.strict:
            passes = _STRICT if call.arch == AUDIT_ARCH_X86_64 else _STRICT_I386
            if call.number in passes:
                return True
            self._end(t, regs, call, signal.SIGKILL)
            return False
        if not t.seccomp.judged_here(call.arch):
            return True
        return self._judged(t, regs, call)

    def _judged(self, t: Tracee, regs: list[int], call: SyscallInfo) -> bool:
        """Do what __seccomp_filter does (Linux 6.12, kernel/seccomp.c); True if the call goes on.

        A listener cannot be asked from here: USER_NOTIF is as without one.
        """
        value = verdict(t.seccomp.filters, seccomp_data(*call))
        action, data = value & SECCOMP_RET_ACTION_FULL, value & SECCOMP_RET_DATA
        if action in (SECCOMP_RET_ALLOW, SECCOMP_RET_LOG):
            return True
        if action == SECCOMP_RET_ERRNO:
            answer(t, regs, -min(data, _MAX_ERRNO))
        elif action in (SECCOMP_RET_TRACE, SECCOMP_RET_USER_NOTIF):
            answer(t, regs, -ENOSYS)
        elif action == SECCOMP_RET_TRAP:
            _rolled_back(t, regs, partial(_trap, info=_siginfo(call, data)))
        elif action == SECCOMP_RET_KILL_THREAD:
            self._end(t, regs, call, signal.SIGSYS)
        else:
            _rolled_back(t, regs, partial(_die, info=_siginfo(call, data)))
        return False

    def _end(self, t: Tracee, regs: list[int], call: SyscallInfo, number: signal.Signals) -> None:
        """End a thread as do_exit(`number`) does; the last one ends its process by this signal."""
        if len(self._threads(t)) > 1:
            exits = nr.EXIT if call.arch == AUDIT_ARCH_X86_64 else nr.EXIT_I386
            run_instead(t, regs, exits, {}, lambda _t, _result: None)
        elif number == signal.SIGKILL:
            os.kill(t.pid, number)
        else:
            _rolled_back(t, regs, partial(_die, info=_siginfo(call, 0)))


_OTHERS: Final = (p.RSI, p.RDX, p.R10, p.R8)


def _no_new_privs(t: Tracee, result: int) -> None:
    if result == 0:
        t.seccomp = t.seccomp._replace(no_new_privs=True)


def _siginfo(call: SyscallInfo, data: int) -> bytes:
    """What force_sig_seccomp makes."""
    info = _SIGSYS_INFO.pack(signal.SIGSYS, data, SI_SYS_SECCOMP, call.ip, call.number, call.arch)
    return info.ljust(128, b"\0")


def _rolled_back(t: Tracee, regs: list[int], then: Callable[[Tracee], None]) -> None:
    """Skip the call; at its exit stop, with the registers as they were before, call `then(t)`."""
    regs[p.RAX], regs[p.ORIG_RAX] = regs[p.ORIG_RAX], MASK64
    p.set_regs(t.tid, regs)
    t.at_exit = then
    p.request(p.PTRACE_SYSCALL, t.tid)


def _trap(t: Tracee, info: bytes) -> None:
    force_sig(t, signal.SIGSYS)
    t.send(signal.SIGSYS, Due(info))


def _die(t: Tracee, info: bytes) -> None:
    """SIGSYS by the kernel's default, whatever the program has set."""
    set_action(t, signal.SIGSYS, struct.pack("<Q", SIG_DFL).ljust(ACTION_SIZE, b"\0"))
    p.set_sigmask(t.tid, p.get_sigmask(t.tid) & ~bit(signal.SIGSYS))
    t.send(signal.SIGSYS, Due(info))
