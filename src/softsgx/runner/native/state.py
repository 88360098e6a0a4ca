"""Registers of a thread between the real processor and the model: XSAVE images, FS and GS bases."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from softsgx.cpu.part import XSAVE_COMPONENTS
from softsgx.cpu.xstate import LEGACY_INIT, XState
from softsgx.runner.host import ptrace as p
from softsgx.spec.ssa import XSAVE_LEGACY_SIZE

if TYPE_CHECKING:
    from softsgx.runner.native.armed import Arm
    from softsgx.runner.process.tracee import Tracee

_BV: Final = struct.Struct("<Q")
_SOFTWARE: Final = 464  # from here on the legacy region is software's: the kernel writes there


class Inside:
    """What the native engine knows of one thread, from its first entry on.

    `running`: it executes in the enclave, or is on its way there. `user` are its registers at the
    stop; `bases` FS and GS of the host; `blocked` the signals that are to be blocked again outside.
    `real` is the extended state that the processor has: `lp.x` differs when it is to be loaded.
    `stops` counts how often it was served, `stops_at_tick` is what that was at its last tick;
    `turn` the ticks since it was last parked or served (`native_parking`).
    """

    __slots__ = (
        *("again", "arm", "bases", "blocked", "held", "operations", "real", "running"),
        *("served", "slot", "stops", "stops_at_tick", "turn", "user", "within", "yields", "quiet"),
    )

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.running = False
        self.arm: Arm | None = None  # the last EENTER, if it can be done again
        self.within = False  # the stop was inside, not on the way
        self.user: list[int] | None = None
        self.bases: tuple[int, int] | None = None
        self.blocked = 0
        # A signal to be delivered where the thread stands, and its siginfo.
        self.held: tuple[int, bytes] | None = None
        self.real: XState | None = None
        self.operations = 0
        self.served: tuple[int, int] = (0, 0)  # the last page fault: RIP, address
        self.stops = 0
        self.stops_at_tick = 0
        self.turn = 0
        self.quiet = False  # it used all of its last period, and was not served since
        self.yields = False  # it is to make room for others if there are too many
        self.again = 0  # how often it came again

    def served_once(self) -> None:
        """It stopped for a reason of its own, not because another processor interrupted it."""
        self.stops += 1
        self.quiet = False


def read_state(t: Tracee, xfrm: int) -> XState:
    """The extended state of a stopped thread, as far as the model knows components."""
    image = p.get_xstate(t.tid)
    (present,) = _BV.unpack_from(image, XSAVE_LEGACY_SIZE)
    legacy = bytes(image[:_SOFTWARE]).ljust(XSAVE_LEGACY_SIZE, b"\0")
    # The kernel fills in the initial state of what is not present.
    state = XState(legacy)
    if legacy[:32] == LEGACY_INIT[:32] and not any(legacy[32:]):
        state.legacy = LEGACY_INIT
    for bit, (size, start) in XSAVE_COMPONENTS.items():
        if present >> bit & 1 and xfrm >> bit & 1:
            state.components[bit] = bytes(image[start : start + size])
    return state


def write_state(t: Tracee, state: XState, xfrm: int) -> None:
    """Give a stopped thread an extended state; components that the model does not know stay."""
    image = p.get_xstate(t.tid)
    (present,) = _BV.unpack_from(image, XSAVE_LEGACY_SIZE)
    image[:_SOFTWARE] = state.legacy[:_SOFTWARE]
    present |= 3
    for bit, (size, start) in XSAVE_COMPONENTS.items():
        if not xfrm >> bit & 1:
            continue
        data = state.components.get(bit)
        if data is None:
            present &= ~(1 << bit)
        else:
            present |= 1 << bit
            image[start : start + size] = data
    _BV.pack_into(image, XSAVE_LEGACY_SIZE, present)
    p.set_xstate(t.tid, image)
