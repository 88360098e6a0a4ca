"""The SSA frame: sizes of its parts, offsets that AEX and entry write, what EXITINFO reports."""

import pytest

from softsgx.spec import ssa
from softsgx.spec.registers import REGISTER_NAMES
from softsgx.spec.ssa import FXSAVE, GPRSGX, compute_xsave_size, misc_size

# CPUID leaf 0DH of parts that ship: component -> (size, offset in the standard format).
COMPONENTS = {
    2: (256, 576),
    5: (64, 1088),
    6: (512, 1152),
    7: (1024, 1664),
    9: (8, 2688),
}


@pytest.mark.parametrize(
    ("xfrm", "size"),
    [
        (0b11, 576),
        (0b111, 832),
        (0xE7, 2688),
        (0x2E7, 2696),
        (0x203, 2696),  # a hole stays: the offset is that of the component
        (0x23, 1152),
    ],
)
def test_xsave_size(xfrm: int, size: int) -> None:
    assert compute_xsave_size(xfrm, COMPONENTS) == size


def test_xsave_size_with_a_component_inside_an_earlier_one() -> None:
    # The printed loop moves on only when the next component starts after the last end.
    assert compute_xsave_size(0b1111, {2: (256, 576), 3: (64, 600)}) == 832


@pytest.mark.parametrize(("miscselect", "size"), [(0, 0), (1, 16), (2, 16), (3, 16)])
def test_misc_size(miscselect: int, size: int) -> None:
    assert misc_size(miscselect) == size


def test_sizes() -> None:
    assert ssa.GPRSGX_SIZE == 184
    assert (ssa.XSAVE_LEGACY_SIZE, ssa.XSAVE_HEADER_SIZE, ssa.XSAVE_MINIMUM) == (512, 64, 576)
    assert (ssa.FCW_INIT, ssa.MXCSR_INIT) == (0x037F, 0x1F80)
    assert FXSAVE.offset_of("MXCSR") == 24


def test_gprs_are_the_registers_in_their_order() -> None:
    assert GPRSGX.NAMES[: len(REGISTER_NAMES)] == REGISTER_NAMES
    assert ssa.GPRS.size == 8 * len(REGISTER_NAMES) == GPRSGX.offset_of("URSP")


def test_exitinfo() -> None:
    assert (ssa.EXIT_TYPE_SHIFT, ssa.EXIT_VALID) == (8, 1 << 31)
    # #DE #DB #BP #BR #UD #MF #AC #XM: hardware exceptions (3), but #BP a software one (6).
    reported = {0: 3, 1: 3, 3: 6, 5: 3, 6: 3, 16: 3, 17: 3, 19: 3}
    assert reported == ssa.REPORTED_ALWAYS
    assert ssa.REPORTED_WITH_EXINFO == (13, 14)
