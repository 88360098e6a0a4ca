"""The state of a thread that only the native engine has."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from softsgx.runner.host import ptrace as p
from softsgx.runner.native.slots import Again
from softsgx.runner.process.signals import bit
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.ssa import GPR_OFF_URSP, GPRSGX_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.cpu.state import LastEntry
    from softsgx.cpu.xstate import XState
    from softsgx.runner.process.overdue import Overdue
    from softsgx.runner.process.tracee import Tracee

_PLACE_SHIFT: Final = 7  # the code of a loop around a lock, or of a part of it


class Arm:
    """An EENTER that may be repeated. `exits`: RIP and physical address of the EEXITs after it.

    `stack_at` is the physical address at which it stores RSP and RBP.
    """

    __slots__ = ("aep", "bases", "cssa", "entry", "exits", "last", "stack_at", "tcs")

    def __init__(self, last: LastEntry, tcs: int, aep: int) -> None:
        self.last = last
        self.tcs = tcs
        self.aep = aep
        self.entry, self.cssa = last.entry, last.cssa
        self.bases = (last.fsbase, last.gsbase)
        self.stack_at = last.frame[-1] | PAGE_SIZE - GPRSGX_SIZE + GPR_OFF_URSP
        self.exits: dict[int, int] = {}

    def again(self, stack_at: int) -> Again:
        """What the slot needs to know; `stack_at` is an address in the process."""
        return Again(self.tcs, self.entry, self.cssa, self.bases, self.aep, stack_at)


class Inside:
    """One thread, from its first entry on.

    `catch` stops `t` where its logical processor is to be interrupted.
    `running`: it executes in the enclave, or is on its way there. `user` are its registers at the
    stop; `bases` FS and GS of the host; `blocked` the signals to be blocked again outside.
    `real` is the extended state that the processor has; if `lp.x` is another, it must be loaded.
    `stops` counts its own stops, `stops_at_tick` is their number at its last tick; `turn` counts
    the ticks since it was last parked or had such a stop (`parking.py`).
    """

    __slots__ = (
        *("again", "arm", "arms", "asked", "bases", "blocked", "catch", "filled", "held", "kept"),
        *("operations", "places", "quiet", "real", "refused", "running", "served", "served_exits"),
        *("slot", "stops", "stops_at_tick", "stayed", "t", "ticked", "turn", "user"),
        *("within", "yields"),
    )

    def __init__(self, t: Tracee, slot: int, catch: Callable[[Inside], None]) -> None:
        self.t = t
        self.slot = slot
        self.catch = partial(catch, self)
        self.running = False
        self.arm: Arm | None = None  # the EENTER for which the thread is armed
        self.arms: dict[int, Arm] = {}  # by CSSA
        # What the slot says of entering without asking: for which EENTER, and how many exits.
        self.filled: tuple[Arm, int] | None = None
        self.within = False  # the stop was inside, not on the way
        self.user: list[int] | None = None
        self.bases: tuple[int, int] | None = None
        self.blocked = 0
        # Signals that were sent and that the program blocks, with their siginfo. Inside, those of
        # exceptions cannot be blocked; and while one is pending, the kernel drops an exception's
        # own (Linux 6.12, kernel/signal.c, legacy_queue). So they are pending again outside.
        self.kept: list[tuple[int, bytes]] = []
        # A signal to be delivered where the thread stands, and its siginfo.
        self.held: tuple[int, bytes] | None = None
        self.real: XState | None = None
        self.operations = 0
        self.refused = -1  # RIP of its last ENCLU that raised an exception
        self.served: tuple[int, int] = (0, 0)  # the last page fault: RIP, address
        # It could have left by itself, and stopped inside instead: it does other things for now.
        self.stayed = False
        self.served_exits = 0  # SERVED of its slot when it could first leave by itself
        self.stops = 0
        self.stops_at_tick = 0
        self.asked: Overdue | None = None  # to stop for its tick
        self.ticked = 0.0  # processor time used at its last tick
        self.turn = 0
        self.quiet = (
            False  # its last period passed without a stop of its own, and there was none since
        )
        self.yields = False  # is to be parked if too many threads compute
        self.places: set[int] = set()  # where ticks have found it since its last stop of its own
        self.again = 0  # how often that was repeated

    def keeps(self, number: int, info: bytes) -> bool:
        """Whether the program blocks a sent signal: then it is kept until the thread is outside."""
        blocked = bool(self.blocked & bit(number))
        if blocked:
            self.kept.append((number, info))
        return blocked

    def served_once(self) -> None:
        """Count a stop for a reason of its own, not an interruption."""
        self.stops += 1
        self.quiet = False
        self.places.clear()
        if self.asked is not None:
            self.asked.reported()

    def goes_round(self) -> bool:
        """At a tick: whether an earlier one has found it here, as one that spins."""
        assert self.user is not None
        place = self.user[p.RIP] >> _PLACE_SHIFT
        known = place in self.places
        self.places.add(place)
        return known
