"""Cases that are not as on Linux, and why: strict, a case that is right again leaves the list."""

from __future__ import annotations

from typing import Final

from tests.signals.comparing import Known

_PATCHED: Final = "a CPUID that disassembly finds is replaced: the program steps over more at once"
_LAST: Final = "what is sent shows the last exception, and natively ENCLU is one, which nobody saw"
_STOPS: Final = (
    "of a traced thread an ignored signal is a stop, which ends calls that do not restart"
)
_STRICT: Final = "strict mode is refused to a process that has a filter"
_NOT_STOPPED: Final = "the emulator goes on with a thread of a process that is stopped"
_HANGS: Final = "hangs: the number of an exception is sent to a thread that blocks it, inside"

KNOWN: Final[dict[str, tuple[Known, ...]]] = {
    "faults": (
        Known("ptrace", "step_cpuid", _PATCHED),
        Known("ptrace", "sent_before_any", _LAST, ("native",)),
    ),
    "filters": (
        Known("ptrace", "traces", "the tracer that answers a filter's TRACE is softsgx"),
        Known("ptrace", "allow_list", "CPUID is a stop by a system call, which the filter kills"),
        Known("ptrace", "strict", _STRICT),
        Known("ptrace", "strict_breaks", _STRICT),
        Known("ptrace", "modes", "the filters of the supervisor are counted"),
    ),
    "inside": (
        Known("ptrace", "stopped", _NOT_STOPPED, ("unicorn",)),
        Known("ptrace", "mask_through_the_context", _HANGS, ("native",)),
        Known("ptrace", "blocked", _HANGS, ("native",)),
    ),
    "processes": (Known("ptrace", "debugger", "the tracer is softsgx already"),),
    "restarts": (Known("ptrace", "ignored", _STOPS),),
}
