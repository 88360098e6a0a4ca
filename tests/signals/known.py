"""Cases that are not as on Linux, and why.

Those of `--supervisor ptrace` are strict, unless they hang: a case that is right again leaves the
list. Those of systrap may be right, until its stub has settled.
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

_OPEN_THREAD: Final = "a signal of the process is not handed to a thread that has it open"
_ONE_PENDING: Final = "one signal waits of each number; Linux keeps one for thread and process each"
_READY: Final = (
    "a signal that waits ends the call although something is ready, or no time is to pass"
)
_DESCRIPTOR: Final = "signalfd does not get signals with the numbers of exceptions"
_FORGED: Final = "a signal that was sent with the code of an exception is taken for one"
_RESTARTED: Final = "calls go on after a handler without SA_RESTART of an exception's number"
_SWALLOWED: Final = "a signal that is ignored ends calls that do not restart"
_CALLS: Final = "calls that the stub makes for the program show other registers, or end otherwise"
_EXEC: Final = "exec delivers in another order what is pending; from another thread it hangs"
_TIMERS: Final = "a timer that is set anew or deleted does not take its pending signal back"
_BUSY: Final = "on a busy machine the signal may come before the call"
_STATUS: Final = "/proc shows the stub's handlers and masks"


def _cpuid_faults() -> bool:
    return choose("auto") is CpuidTraps.ALWAYS


def _systrap(why: str, *cases: str, modes: tuple[str, ...] = MODES) -> tuple[Known, ...]:
    return tuple(Known("systrap", case, why, modes, always=False) for case in cases)


KNOWN: Final[dict[str, tuple[Known, ...]]] = {
    "altstack": (*_systrap("the handler's change of uc_stack is not looked at", "set_by_return"),),
    "faults": (
        Known("ptrace", "step_cpuid", _PATCHED),
        Known("ptrace", "sent_before_any", _LAST, MODES if _cpuid_faults() else ("native",)),
        *_systrap(_PATCHED, "step_cpuid"),
        *_systrap(_LAST, "sent_before_any"),
    ),
    "filters": (
        Known("ptrace", "modes", _COUNTED),
        *_systrap(_COUNTED, "modes"),
    ),
    "inside": (
        Known("ptrace", "stopped", _NOT_STOPPED, ENGINES, always=False),
        *_systrap(_OPEN_THREAD, "of_the_process"),
        *_systrap(_NOT_STOPPED, "stopped", modes=("unicorn",)),
    ),
    "masks": (
        *_systrap(_ONE_PENDING, "inherited", "order_of_delivery", "taken"),
        *_systrap(_READY, "with_a_mask_segv", "with_a_mask_sys", "with_a_mask_trap"),
        *_systrap(_DESCRIPTOR, "by_descriptor", "by_descriptor_elsewhere", "descriptor_that_waits"),
    ),
    "processes": (
        Known("ptrace", "debugger", "the tracer is softsgx already"),
        *_systrap(_EXEC, "executed", "executed_by_a_thread"),
        *_systrap(_FORGED, "exit_signals"),
        *_systrap(_STATUS, "state_in_proc"),
        *_systrap("a child that is traced stops by SIGSYS at calls of the stub", "debugger"),
    ),
    "queued": (
        *_systrap(
            _ONE_PENDING, "blocked_then_handled", "blocked_then_taken", "order", "from_the_child"
        ),
        *_systrap(_FORGED, "forged", "forged_ignored"),
        *_systrap(_OPEN_THREAD, "to_the_open_thread", "to_the_first_that_opens"),
    ),
    "restarts": (
        Known("ptrace", "ignored", _STOPS),
        *(
            Known("ptrace", case, _BUSY, always=False)
            for case in ("restarted", "restarted_twice", "restarted_segv", "restarted_sys")
        ),
        *_systrap(_RESTARTED, "interrupted_segv", "interrupted_trap", "left_by_jump"),
        *_systrap(_SWALLOWED, "ignored"),
        *_systrap(
            _CALLS,
            "restarted",
            "restarted_twice",
            "interrupted",
            "interrupted_realtime",
            "restarted_segv",
            "restarted_sys",
        ),
    ),
    "threads": (
        *_systrap("hangs on a machine that is busy", "threads_in_a_storm", "programs_in_a_storm"),
    ),
    "timers": (*_systrap(_TIMERS, "overrun", "deleted_while_pending"),),
}
