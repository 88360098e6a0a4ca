"""`softsgx` on another processor than this one: python -m tests.runner.other_processor KIND run ...

KIND is what the processor should be like:

    without-sgx   ENCLU is #UD
    with-sgx      ENCLU is what silicon answered outside of an enclave: #GP for most leaves, #PF at
                  the last byte of the page at RBX for EENTER and ERESUME
    no-faulting   without CPUID faulting: arch_prctl(ARCH_SET_CPUID) is ENODEV, by a filter

The first two change the stop by which the supervisor learns of an ENCLU, and its siginfo, before
the supervisor sees them. Where the processor is of that kind already, nothing changes. What the
kernel did to the handler and the mask of the signal that really came is undone for that signal.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from softsgx.cli.main import main
from softsgx.linux.process import ILL_ILLOPN, SEGV_ACCERR, SEGV_MAPERR, SI_KERNEL
from softsgx.runner.code.trapped import INFO, REFUSED, trapped
from softsgx.runner.host import bpf, nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import (
    ARCH_SET_CPUID,
    PR_SET_NO_NEW_PRIVS,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_SET_MODE_FILTER,
)
from softsgx.runner.process import forced
from softsgx.runner.process.tracee import Tracee
from softsgx.runner.supervisor.loading import maps
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE
from softsgx.spec.leaves import EENTER, ERESUME

KINDS: Final = ("without-sgx", "with-sgx", "no-faulting")
_USER_END: Final = 1 << 47


def siginfo(kind: str, tid: int, regs: list[int]) -> bytes:
    """What the signal of an ENCLU outside of an enclave says on a processor of this kind."""
    rip, rbx, rcx = regs[p.RIP], regs[p.RBX], regs[p.RCX]
    if kind == "without-sgx":
        return INFO.pack(signal.SIGILL, 0, ILL_ILLOPN, rip)
    canonical = rbx < _USER_END and (rcx < _USER_END or rcx >= -_USER_END & p.MASK64)
    if regs[p.RAX] & 0xFFFFFFFF not in (EENTER, ERESUME) or rbx & PAGE_MASK or not canonical:
        return INFO.pack(signal.SIGSEGV, 0, SI_KERNEL, 0)
    last = rbx + PAGE_SIZE - 1
    mapped = any(start <= rbx < end for start, end, *_ in maps(tid))
    return INFO.pack(signal.SIGSEGV, 0, SEGV_ACCERR if mapped else SEGV_MAPERR, last)


def _code(tid: int, address: int, size: int) -> bytes:
    with open(f"/proc/{tid}/mem", "rb", buffering=0) as mem:
        mem.seek(address)
        return mem.read(size) or b""


def play(kind: str) -> None:
    """Make this process supervise as if on that processor."""
    wait = os.waitpid
    real: dict[int, int] = {}  # tid -> the signal of its last ENCLU

    def waitpid(pid: int, options: int) -> tuple[int, int]:
        tid, status = wait(pid, options)
        number = os.WSTOPSIG(status)
        if not tid or not os.WIFSTOPPED(status) or status >> 16 or number not in REFUSED:
            return tid, status
        try:
            regs, info = p.get_regs(tid), p.get_siginfo(tid)
            found = trapped(number, info, regs[p.RIP], partial(_code, tid))
            if found is None or found.kind != "enclu":
                return tid, status
            new = siginfo(kind, tid, regs)
            real[tid] = number
            p.set_siginfo(tid, new.ljust(128, b"\0"))
        except (p.NoSuchTracee, OSError):
            return tid, status
        return tid, status & 0xFF | INFO.unpack(new)[0] << 8

    os.waitpid = waitpid
    for name in ("undo", "restore_ignored"):
        setattr(forced, name, _for_the_real_signal(getattr(forced, name), real))


def _for_the_real_signal(
    undo: Callable[[Tracee, int], None], real: dict[int, int]
) -> Callable[[Tracee, int], None]:
    return lambda t, number: undo(t, real.pop(t.tid, number))


def without_faulting() -> None:
    """A filter for this process and its children."""
    program = bpf.Program()
    program.load(0)
    program.equal(nr.ARCH_PRCTL, no="allow")
    program.load(bpf.arg_low(0))
    program.equal(ARCH_SET_CPUID, no="allow")
    program.ret(SECCOMP_RET_ERRNO | errno.ENODEV)
    program.label("allow")
    program.ret(SECCOMP_RET_ALLOW)
    code = program.assemble()
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.syscall(nr.SECCOMP, SECCOMP_SET_MODE_FILTER, 0, ctypes.c_char_p(fprog)) == 0


if __name__ == "__main__":
    _, kind, *arguments = sys.argv
    assert kind in KINDS, kind
    if kind == "no-faulting":
        without_faulting()
    else:
        play(kind)
    sys.exit(main(arguments))
