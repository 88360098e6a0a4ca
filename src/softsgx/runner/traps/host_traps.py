"""ENCLU and CPUID of the host program that nobody replaced: what stops when they are executed.

`sites` replaces the ENCLUs that disassembly proves. All others raise an exception on every
processor, so they are served when they are executed: code made at run time, assembly without
symbols. CPUID raises one only with CPUID faulting (arch_prctl, ARCH_SET_CPUID), which is switched
on at exec where processor and kernel have it; then no CPUID is replaced.
"""

from __future__ import annotations

import signal
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from softsgx.linux.process import SI_KERNEL, Signal
from softsgx.runner.code.trapped import CPUID, REFUSED, trapped
from softsgx.runner.cpuid.cpuid import CpuidPolicy
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.probes import ARCH_SET_CPUID
from softsgx.runner.inserted.layout import END, GATE
from softsgx.runner.process import bpf, forced
from softsgx.runner.process.signals import Due
from softsgx.runner.process.stops import answer, go_on, to_exit
from softsgx.runner.traps import cpuid_traps
from softsgx.runner.traps.cpuid_traps import CpuidTraps
from softsgx.spec import faults
from softsgx.spec.bits import MASK32
from softsgx.spec.msr import RFLAGS_RF

if TYPE_CHECKING:
    from softsgx.runner.process.stops import Handler
    from softsgx.runner.process.tracee import Tracee
    from softsgx.runner.supervisor.supervisor import Supervisor

ARCH_GET_CPUID: Final = 0x1011


class HostTraps:
    """Serves both. `served` counts them by kind, for `--stats`."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.served: Counter[str] = Counter()
        self._library = library_policy(supervisor.loader.policy)

    def serve(self, t: Tracee, number: int) -> bool:
        """A signal-delivery stop outside of enclaves: True if it was one of the two."""
        if number not in REFUSED:
            return False
        info, regs = p.get_siginfo(t.tid), p.get_regs(t.tid)
        rip = regs[p.RIP]
        if GATE <= rip < END:
            return False
        found = trapped(number, info, rip, partial(_code, t.tid))
        if found is None or (found.kind == "cpuid" and t.cpuid_denied):
            return False
        self.served[found.kind] += 1
        forced.undo(t, number)
        regs[p.EFLAGS] &= ~RFLAGS_RF
        if found.kind == "enclu":
            if self.end(t):
                cpuid_traps.end(t)
            regs[p.ORIG_RAX] = regs[p.RAX]
            self.supervisor.enclu(t, regs, rip)
            return True
        policy = self._library if t.space.in_library(rip) else self.supervisor.loader.policy
        regs[p.RIP] = rip + found.length
        cpuid(t, regs, regs[p.RAX], policy)
        go_on(t)
        return True

    def end(self, t: Tracee) -> bool:
        """At a thread's ENCLU: whether its CPUID is to be an exception no longer."""
        return t.cpuid_faulting and self.supervisor.loader.traps is CpuidTraps.UNTIL_ENTRY

    def replaced_cpuid(self, t: Tracee, regs: list[int]) -> None:
        """The stop of what stands where CPUID stood; RIP is behind it, RAX is in orig_rax."""
        if not t.cpuid_denied:
            cpuid(t, regs, regs[p.ORIG_RAX], self.supervisor.loader.policy)
        else:
            regs[p.RIP] -= len(CPUID)
            regs[p.RAX], regs[p.ORIG_RAX] = regs[p.ORIG_RAX], p.MASK64
            p.set_regs(t.tid, regs)
            refused = Signal(signal.SIGSEGV, SI_KERNEL, 0, faults.GP, 0)
            t.send(refused.number, Due.of(refused))
        go_on(t)

    def handlers(self) -> dict[int, Handler]:
        """By number of the system call."""
        return {bpf.ARCH_PRCTL: self._arch_prctl}

    def _arch_prctl(self, t: Tracee, regs: list[int]) -> None:
        """ARCH_GET_CPUID and ARCH_SET_CPUID: the program's own wish, which is its thread's."""
        if not t.cpuid_faulting:
            # The real kernel does it, for its thread; what is replaced looks at `cpuid_denied`.
            if regs[p.RDI] & MASK32 == ARCH_SET_CPUID:
                to_exit(t, partial(_denied, denied=not regs[p.RSI]))
            else:
                go_on(t)
        elif regs[p.RDI] & MASK32 == ARCH_GET_CPUID:
            answer(t, regs, int(not t.cpuid_denied))
        else:
            t.cpuid_denied = not regs[p.RSI]
            answer(t, regs, 0)


def _denied(t: Tracee, result: int, *, denied: bool) -> None:
    if result == 0:
        t.cpuid_denied = denied


def cpuid(t: Tracee, regs: list[int], leaf: int, policy: CpuidPolicy) -> None:
    """Give a stopped thread what CPUID returns; RIP is behind it already."""
    a, b, c, d = policy.cpuid(leaf & MASK32, regs[p.RCX] & MASK32)
    regs[p.RAX], regs[p.RBX], regs[p.RCX], regs[p.RDX] = a, b, c, d
    regs[p.ORIG_RAX] = p.MASK64
    p.set_regs(t.tid, regs)


def library_policy(policy: CpuidPolicy) -> CpuidPolicy:
    """What the C library sees: SGX, and otherwise the real processor.

    Its string functions and its dynamic linker run natively. The linker saves registers by XSAVE
    with the XCR0 of the real processor; told of a smaller one, it would reserve too little.
    """
    return CpuidPolicy(policy.part, policy.sections, "native", None, policy.native)


def _code(tid: int, address: int, size: int) -> bytes:
    """Bytes of a process, as far as they can be read, execute-only code too."""
    found = p.read_memory(tid, address, size)
    if found is not None:
        return found
    try:
        with open(f"/proc/{tid}/mem", "rb", buffering=0) as mem:
            mem.seek(address)
            return mem.read(size) or b""
    except (OSError, ValueError, OverflowError):
        return b""
