"""ENCLU and CPUID in code of the host program, served when they raise an exception.

The loader replaces each ENCLU that disassembly proves to be one (`code/sites.py`). Any other, in
code made at run time or in assembly without symbols, raises an exception on every processor. CPUID
raises one only with CPUID faulting (arch_prctl, ARCH_SET_CPUID), which is switched on at exec where
processor and kernel have it; then no CPUID is replaced.
"""

from __future__ import annotations

import signal
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from softsgx.linux.process import SI_KERNEL, Signal
from softsgx.runner.code.trapped import CPUID, INFO, REFUSED, from_kernel, trapped
from softsgx.runner.cpuid.cpuid import CpuidPolicy
from softsgx.runner.cpuid.faulting import CpuidTraps
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import ARCH_GET_CPUID, ARCH_SET_CPUID
from softsgx.runner.inserted.layout import END, GATE
from softsgx.runner.process import forced
from softsgx.runner.process.signals import Due, bit
from softsgx.runner.process.stops import answer, resume, run_changed, run_to_exit
from softsgx.spec import faults
from softsgx.spec.bits import MASK32
from softsgx.spec.msr import RFLAGS_RF

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.runner.process.stops import Handler
    from softsgx.runner.process.tracee import Tracee

_INT80_LENGTH: Final = 2
_REFUSAL: Final = INFO.pack(signal.SIGSEGV, 0, SI_KERNEL, 0)


class HostTraps:
    """Serves both instructions. `served` counts them by kind, for `--stats`.

    `traps` says when CPUID is an exception; `enclu(t, regs, rip)` executes an ENCLU of a stopped
    thread.
    """

    def __init__(
        self,
        policy: CpuidPolicy,
        traps: CpuidTraps,
        enclu: Callable[[Tracee, list[int], int], None],
    ) -> None:
        self.served: Counter[str] = Counter()
        self._policy = policy
        self._library = library_policy(policy)
        self._until_entry = traps is CpuidTraps.UNTIL_ENTRY
        self._enclu = enclu

    def serve(self, t: Tracee, number: int, due: Due | None = None) -> bool:
        """At a signal-delivery stop outside enclaves: True if ENCLU or CPUID caused it, and has now
        been served.

        The signal may be another of the same number, with its `due`: if it was pending and blocked,
        the kernel unblocked it for the exception, and dropped the exception's own (Linux 6.12,
        kernel/signal.c, legacy_queue). Then it is pending and blocked again.
        """
        if number not in REFUSED:
            return False
        info, regs = p.get_siginfo(t.tid), p.get_regs(t.tid)
        rip = regs[p.RIP]
        if GATE <= rip < END:
            return False
        sent = due is not None or not from_kernel(number, info)
        found = trapped(number, _REFUSAL if sent else info, rip, partial(_code, t.tid))
        if found is None or (found.kind == "cpuid" and t.cpuid_denied):
            return False
        if sent and not forced.mask_before(t, number) & bit(number):
            return False
        self.served[found.kind] += 1
        forced.undo(t, number)
        if sent:
            t.send(number, due or Due(info))
        regs[p.EFLAGS] &= ~RFLAGS_RF
        if found.kind == "enclu":
            self.enclu_at_signal(t, regs, rip)
            return True
        policy = self._library if t.space.in_library(rip) else self._policy
        regs[p.RIP] = rip + found.length
        cpuid(t, regs, regs[p.RAX], policy)
        resume(t)
        return True

    def enclu_at_signal(self, t: Tracee, regs: list[int], rip: int) -> None:
        """Serve an ENCLU whose thread is at the stop of the signal that it raised."""
        if self.faulting_ends(t):
            t.cpuid_faulting = False
            t.inject(nr.ARCH_PRCTL, ARCH_SET_CPUID, 1)
        regs[p.ORIG_RAX] = regs[p.RAX]
        self._enclu(t, regs, rip)

    def faulting_ends(self, t: Tracee) -> bool:
        """Whether CPUID faulting ends for a thread that executes ENCLU."""
        return t.cpuid_faulting and self._until_entry

    def replaced_cpuid(self, t: Tracee, regs: list[int]) -> None:
        """At the stop of the instruction that replaced a CPUID, with RIP after it and RAX in
        orig_rax."""
        if not t.cpuid_denied:
            cpuid(t, regs, regs[p.ORIG_RAX], self._policy)
        else:
            regs[p.RIP] -= len(CPUID)
            regs[p.RAX], regs[p.ORIG_RAX] = regs[p.ORIG_RAX], p.MASK64
            p.set_regs(t.tid, regs)
            refused = Signal(signal.SIGSEGV, SI_KERNEL, 0, faults.GP, 0)
            t.send(refused.number, Due.of(refused))
        resume(t)

    def handlers(self) -> dict[int, Handler]:
        """By number of the system call."""
        return {nr.ARCH_PRCTL: self._arch_prctl}

    def _arch_prctl(self, t: Tracee, regs: list[int]) -> None:
        """ARCH_GET_CPUID and ARCH_SET_CPUID: the program's own setting, which each thread has."""
        code = regs[p.RDI] & MASK32
        if code not in (ARCH_GET_CPUID, ARCH_SET_CPUID):
            resume(t)  # a filter of the program makes all calls stop
        elif not t.cpuid_faulting:
            # The real kernel serves the call; `replaced_cpuid` looks at `cpuid_denied`.
            if code == ARCH_SET_CPUID:
                run_to_exit(t, partial(_denied, denied=not regs[p.RSI]))
            else:
                resume(t)
        elif code == ARCH_GET_CPUID:
            answer(t, regs, int(not t.cpuid_denied))
        else:
            t.cpuid_denied = not regs[p.RSI]
            answer(t, regs, 0)


def end_faulting(t: Tracee, regs: list[int]) -> None:
    """End CPUID faulting for a thread at the seccomp stop of an `int 0x80` that replaces ENCLU.

    The stop becomes a call of arch_prctl; then the `int 0x80` is executed again.
    """
    t.cpuid_faulting = False
    rax = regs[p.ORIG_RAX] & MASK32

    def again(t: Tracee, _result: int) -> int:
        after = p.get_regs(t.tid)
        after[p.RIP] -= _INT80_LENGTH
        after[p.ORIG_RAX] = p.MASK64
        p.set_regs(t.tid, after)
        return rax

    changes = {p.ORIG_RAX: nr.ARCH_PRCTL_I386, p.RAX: nr.ARCH_PRCTL_I386}
    run_changed(t, regs, {**changes, p.RBX: ARCH_SET_CPUID, p.RCX: 1}, again)


def _denied(t: Tracee, result: int, *, denied: bool) -> None:
    if result == 0:
        t.cpuid_denied = denied


def cpuid(t: Tracee, regs: list[int], leaf: int, policy: CpuidPolicy) -> None:
    """Set the registers of a stopped thread to the result of CPUID; RIP is already after it."""
    a, b, c, d = policy.cpuid(leaf & MASK32, regs[p.RCX] & MASK32)
    regs[p.RAX], regs[p.RBX], regs[p.RCX], regs[p.RDX] = a, b, c, d
    regs[p.ORIG_RAX] = p.MASK64
    p.set_regs(t.tid, regs)


def library_policy(policy: CpuidPolicy) -> CpuidPolicy:
    """What the C library sees: SGX, and otherwise the real processor.

    Its string functions and its dynamic linker run natively. The linker saves registers by XSAVE
    with the XCR0 of the real processor; shown a smaller one, it would reserve too little memory.
    """
    return CpuidPolicy(policy.part, policy.sections, "native", None, policy.native)


def _code(tid: int, address: int, size: int) -> bytes:
    """Bytes of a process, as many as can be read, from execute-only code as well."""
    found = p.read_memory(tid, address, size)
    if found is not None:
        return found
    try:
        with open(f"/proc/{tid}/mem", "rb", buffering=0) as mem:
            mem.seek(address)
            return mem.read(size) or b""
    except (OSError, ValueError, OverflowError):
        return b""
