"""UD2 where `int 0x80` does not stop for us: what stands for CPUID, for ENCLU, and in the stub."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from softsgx.runner.code.trapped import from_kernel
from softsgx.runner.host import ptrace as p
from softsgx.runner.inserted.stub import INT80
from softsgx.runner.process import forced
from softsgx.runner.traps import cpuid_traps
from softsgx.runner.ways import UD2, WAYS

if TYPE_CHECKING:
    from softsgx.runner.process.tracee import Tracee
    from softsgx.runner.supervisor.supervisor import Supervisor


def served(supervisor: Supervisor, t: Tracee, number: int) -> bool:
    """A signal is about to be delivered. True if it was a UD2 of ours, which is served."""
    if number != signal.SIGILL or UD2 not in (WAYS.cpuid, WAYS.enclu):
        return False
    if not from_kernel(number, p.get_siginfo(t.tid)):
        return False
    regs = p.get_regs(t.tid)
    rip = regs[p.RIP]
    kind = t.space.sites.get(rip)
    in_stub = rip == INT80 and WAYS.enclu == UD2
    if not in_stub and (kind is None or getattr(WAYS, kind) != UD2):
        return False
    forced.undo(t, number)
    regs[p.ORIG_RAX] = regs[p.RAX]
    if kind == "cpuid":
        regs[p.RIP] += len(UD2)
        supervisor.traps.replaced_cpuid(t, regs)
    else:
        if supervisor.traps.end(t):
            cpuid_traps.end(t)
        supervisor.enclu(t, regs, supervisor.loader.vdso.enclu if in_stub else rip)
    return True
