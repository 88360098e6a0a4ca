"""Cases that are not as on Linux, and why.

They are strict, unless they hang or depend on the machine: a case that is right again leaves the
list.
"""

from __future__ import annotations

from typing import Final

from softsgx.runner.cpuid.faulting import CpuidTraps, choose
from tests.runner.programs import ENGINES
from tests.signals.comparing import MODES, Known

_PATCHED: Final = "a CPUID that disassembly finds is replaced: the program steps over more at once"
_LAST: Final = "what is sent shows the last exception: ENCLU natively, and CPUID where that faults"
_STOPS: Final = (
    "of a traced thread an ignored signal is a stop, which ends calls that do not restart"
)
_COUNTED: Final = "/proc counts the filters of the supervisor"
_NOT_STOPPED: Final = "the emulator goes on with a thread of a process that is stopped"

_DESCRIPTOR: Final = "signalfd does not get signals with the numbers of exceptions"
_SWALLOWED: Final = "a signal that is ignored ends calls that the kernel does not make again"
_TIMERS: Final = (
    "a timer that is set anew or deleted takes its pending signal back, in newer kernels"
)
_TAKEN_INSIDE: Final = "a thread inside may take it first, and it is kept until that is outside"
_BUSY: Final = "on a busy machine the signal may come before the call"
_STATUS: Final = "/proc shows the stub's handlers and masks"


def _cpuid_faults() -> bool:
    return choose("auto") is CpuidTraps.ALWAYS


def _systrap(
    why: str, *cases: str, modes: tuple[str, ...] = MODES, always: bool = False
) -> tuple[Known, ...]:
    return tuple(Known("systrap", case, why, modes, always) for case in cases)


KNOWN: Final[dict[str, tuple[Known, ...]]] = {
    "faults": (
        Known("ptrace", "step_cpuid", _PATCHED),
        Known("ptrace", "sent_before_any", _LAST, MODES if _cpuid_faults() else ("native",)),
        *_systrap(_PATCHED, "step_cpuid"),
    ),
    "filters": (
        Known("ptrace", "modes", _COUNTED),
        *_systrap(_COUNTED, "modes"),
    ),
    "inside": (
        Known("ptrace", "stopped", _NOT_STOPPED, ENGINES, always=False),
        Known("ptrace", "taken_elsewhere", _TAKEN_INSIDE, ("native",), always=False),
        *_systrap(_NOT_STOPPED, "stopped", modes=("unicorn",)),
    ),
    "masks": (
        *_systrap(_DESCRIPTOR, "by_descriptor", "by_descriptor_elsewhere", always=True),
        *_systrap(_DESCRIPTOR, "descriptor_that_waits"),
    ),
    "processes": (
        Known("ptrace", "debugger", "the tracer is softsgx already"),
        *_systrap(_STATUS, "state_in_proc", always=True),
        *_systrap("a child that is traced stops by SIGSYS at calls of the stub", "debugger"),
    ),
    "restarts": (
        Known("ptrace", "ignored", _STOPS),
        *(
            Known(supervisor, case, _BUSY, always=False)
            for case in ("restarted", "restarted_twice", "restarted_segv", "restarted_sys")
            for supervisor in ("ptrace", "systrap")
        ),
        Known("ptrace", "interrupted_trap", _BUSY, always=False),
        *_systrap(_SWALLOWED, "ignored", always=True),
    ),
    "timers": (*_systrap(_TIMERS, "overrun", "deleted_while_pending"),),
}
