"""When extended state need not be loaded again: `softsgx.runner.native.xstate.same_state`."""

import pytest

from softsgx.cpu.xstate import LEGACY_INIT, XState
from softsgx.runner.native.xstate import same_state
from softsgx.spec.ssa import FXSAVE

MASK = FXSAVE.offset_of("MXCSR_MASK")
YMM = 2


def changed(at: int) -> XState:
    legacy = bytearray(LEGACY_INIT)
    legacy[at] ^= 1
    return XState(bytes(legacy))


def test_a_copy_is_the_same() -> None:
    state = changed(FXSAVE.offset_of("XMM"))
    state.components[YMM] = bytes(256)
    assert same_state(state, XState.restored(state.key()))


@pytest.mark.parametrize("at", [0, MASK - 1, MASK + 4, 415])
def test_any_byte_that_is_loaded_counts(at: int) -> None:
    assert not same_state(XState(), changed(at))


@pytest.mark.parametrize("at", [MASK, MASK + 3])
def test_the_mask_of_mxcsr_is_not_loaded(at: int) -> None:
    """The processor's own differs from that of an SSA frame that ERESUME has read."""
    assert same_state(XState(), changed(at))


def test_components_count() -> None:
    state = XState()
    state.components[YMM] = bytes(256)
    assert not same_state(XState(), state)


def test_a_state_that_is_not_known_is_not_the_same() -> None:
    assert not same_state(XState(), None)
