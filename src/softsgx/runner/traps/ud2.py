"""UD2 instead of `int 0x80`, on machines where the latter does not stop for the tracer.

It replaces CPUID, ENCLU, and the ENCLU of the stub.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from softsgx.runner.code.trapped import from_kernel
from softsgx.runner.host import ptrace as p
from softsgx.runner.inserted.stub import INT80
from softsgx.runner.process import forced
from softsgx.runner.ways import UD2, WAYS

if TYPE_CHECKING:
    from softsgx.runner.process.tracee import Tracee
    from softsgx.runner.traps.host_traps import HostTraps


def served(traps: HostTraps, t: Tracee, number: int, vdso_enclu: int) -> bool:
    """At a signal-delivery stop: True if such a UD2 caused the signal, and has now been served.

    The UD2 in the stub stands for the ENCLU of the vDSO, at `vdso_enclu`.
    """
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
    if kind == "cpuid":
        regs[p.ORIG_RAX] = regs[p.RAX]
        regs[p.RIP] += len(UD2)
        traps.replaced_cpuid(t, regs)
    else:
        traps.enclu_at_signal(t, regs, vdso_enclu if in_stub else rip)
    return True
