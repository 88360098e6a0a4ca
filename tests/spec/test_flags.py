"""Flag fields as text and back: every defined bit has its name."""

import pytest

from softsgx.spec import attributes, tcs
from softsgx.spec.bits import MASK64
from softsgx.spec.cet import CET_ATTRIBUTES_DEFINED
from softsgx.spec.flags import FLAG_NAMES, bit_names, flags_text, flags_value


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("ATTRIBUTES", 0, "0x0"),
        ("ATTRIBUTES", 0x404, "0x404 MODE64BIT AEXNOTIFY"),
        ("ATTRIBUTES", 0x88, "0x88 bit3 KSS"),
        ("XFRM", 0xE7, "0xe7 X87 SSE AVX OPMASK ZMM_HI256 HI16_ZMM"),
        ("XFRM", 0x60203, "0x60203 X87 SSE PKRU XTILECFG XTILEDATA"),
        ("MISCSELECT", 3, "0x3 EXINFO CPINFO"),
        ("CET_ATTRIBUTES", 0x25, "0x25 SH_STK_EN ENDBR_EN SUPPRESS_DIS"),
        ("TCS.FLAGS", 3, "0x3 DBGOPTIN AEXNOTIFY"),
        ("ATTRIBUTEMASK", MASK64, "0xffffffffffffffff all bits"),
        ("ATTRIBUTEMASK", (1 << 64) - 3, "0xfffffffffffffffd all but DEBUG"),
        ("XFRMMASK", 7, "0x7 X87 SSE AVX"),
        ("MISCMASK", 0xFFFFFFFE, "0xfffffffe all but EXINFO"),
        ("CET_ATTRIBUTES_MASK", 0, "0x0"),
    ],
)
def test_text(field: str, value: int, text: str) -> None:
    assert flags_text(field, value) == text


@pytest.mark.parametrize("field", FLAG_NAMES)
def test_names_are_read_back(field: str) -> None:
    everything = sum(FLAG_NAMES[field])
    assert flags_value(field, ",".join(bit_names(field, everything))) == everything
    assert flags_value(field, bit_names(field, 2)[0].lower()) == 2


def test_no_defined_bit_lacks_its_name() -> None:
    assert sum(FLAG_NAMES["TCS.FLAGS"]) == tcs.TCS_FLAGS_DEFINED
    assert sum(FLAG_NAMES["CET_ATTRIBUTES"]) == CET_ATTRIBUTES_DEFINED
    known = sum(FLAG_NAMES["XFRM"])
    assert known & attributes.XFRM_AVX512 == attributes.XFRM_AVX512
    assert known & attributes.XFRM_AMX == attributes.XFRM_AMX


def test_masks_have_the_names_of_their_field_and_unknown_ones_are_refused() -> None:
    assert flags_value("ATTRIBUTEMASK", "KSS,DEBUG") == 0x82
    with pytest.raises(ValueError, match=r"^NX: none of X87, SSE, AVX, "):
        flags_value("XFRM", "SSE,NX")
