"""The extended state of a thread between the real processor and the model: XSAVE images."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from softsgx.cpu.part import XSAVE_COMPONENTS
from softsgx.cpu.xstate import LEGACY_INIT, XState
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import XSAVE_SOFTWARE
from softsgx.spec.ssa import FXSAVE, XSAVE_LEGACY_SIZE

if TYPE_CHECKING:
    from softsgx.runner.process.tracee import Tracee

_BV: Final = struct.Struct("<Q")
_MASK_AT: Final = FXSAVE.offset_of("MXCSR_MASK")
_MASK_END: Final = _MASK_AT + 4


def read_state(t: Tracee, xfrm: int) -> XState:
    """The extended state of a stopped thread, of the components that the model has."""
    image = p.get_xstate(t.tid)
    (present,) = _BV.unpack_from(image, XSAVE_LEGACY_SIZE)
    legacy = bytes(image[:XSAVE_SOFTWARE]).ljust(XSAVE_LEGACY_SIZE, b"\0")
    # For a component that is not present, the kernel fills in the initial state.
    state = XState(legacy)
    if legacy[:32] == LEGACY_INIT[:32] and not any(legacy[32:]):
        state.legacy = LEGACY_INIT
    for bit, (size, start) in XSAVE_COMPONENTS.items():
        if present >> bit & 1 and xfrm >> bit & 1:
            state.components[bit] = bytes(image[start : start + size])
    return state


def same_state(one: XState, other: XState | None) -> bool:
    """Whether two states are loaded alike: all but MXCSR_MASK, which XRSTOR ignores."""
    return (
        other is not None
        and one.components == other.components
        and (
            one.legacy is other.legacy
            or (
                one.legacy[:_MASK_AT] == other.legacy[:_MASK_AT]
                and one.legacy[_MASK_END:] == other.legacy[_MASK_END:]
            )
        )
    )


def write_state(t: Tracee, state: XState, xfrm: int) -> None:
    """Set the extended state of a stopped thread, except components that the model lacks."""
    image = p.get_xstate(t.tid)
    (present,) = _BV.unpack_from(image, XSAVE_LEGACY_SIZE)
    image[:XSAVE_SOFTWARE] = state.legacy[:XSAVE_SOFTWARE]
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
