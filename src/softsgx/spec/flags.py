"""The names of the bits of flag fields, and values as text with them.

SDM 3D, 38.7 "SGX Enclave Control Structure (SECS)", 38.8 "Thread Control Structure (TCS)"; the
components of XFRM are those of XCR0 and IA32_XSS, SDM 1, 13.1 "XSAVE-Supported Features and
State-Component Bitmaps".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from softsgx.spec import attributes, cet, tcs


def _named(module: object, prefix: str) -> dict[int, str]:
    """Bit -> name, for constants that start with `prefix` and are single bits."""
    constants = {v: n for n, v in vars(module).items() if n.startswith(prefix)}
    return {v: n.removeprefix(prefix) for v, n in constants.items() if not v & (v - 1)}


_XFRM: Final = (
    *("X87", "SSE", "AVX", "BNDREGS", "BNDCSR", "OPMASK", "ZMM_HI256", "HI16_ZMM", "PT", "PKRU"),
    *("PASID", "CET_U", "CET_S", "HDC", "UINTR", "LBR", "HWP", "XTILECFG", "XTILEDATA", "APX"),
)
_CET: Final = "SH_STK_EN WR_SHSTK_EN ENDBR_EN LEG_IW_EN NO_TRACK_EN SUPPRESS_DIS".split()

FLAG_NAMES: Final[Mapping[str, Mapping[int, str]]] = {
    "ATTRIBUTES": _named(attributes, "ATTR_"),
    "XFRM": {1 << bit: name for bit, name in enumerate(_XFRM)},
    "MISCSELECT": _named(attributes, "MISC_"),
    "CET_ATTRIBUTES": {getattr(cet, name): name for name in _CET},
    "TCS.FLAGS": {tcs.TCS_DBGOPTIN: "DBGOPTIN", tcs.TCS_AEXNOTIFY: "AEXNOTIFY"},
}
"""Field -> the names of its single bits."""

# Masks of SIGSTRUCT, by the field whose bits they choose.
_MASKS: Final = {
    "ATTRIBUTEMASK": ("ATTRIBUTES", 64),
    "XFRMMASK": ("XFRM", 64),
    "MISCMASK": ("MISCSELECT", 32),
    "CET_ATTRIBUTES_MASK": ("CET_ATTRIBUTES", 8),
}


def bit_names(field: str, value: int) -> list[str]:
    """The names of the bits that are set, lowest first; a bit without a name is `bit3`."""
    names = FLAG_NAMES[field]
    bits = [1 << bit for bit in range(64) if value >> bit & 1]
    return [names.get(bit, f"bit{bit.bit_length() - 1}") for bit in bits]


def flags_text(field: str, value: int) -> str:
    """A value with the names of its bits, as '0x6 DEBUG MODE64BIT'; a mask with many bits says
    which it lacks, as '0xfffffffffffffffd all but DEBUG'. KeyError for a field without flags."""
    if field not in _MASKS:
        return " ".join([f"{value:#x}", *bit_names(field, value)])
    field, width = _MASKS[field]
    missing = ~value & (1 << width) - 1
    if not missing:
        return f"{value:#x} all bits"
    if missing.bit_count() <= width // 2:
        return " ".join([f"{value:#x} all but", *bit_names(field, missing)])
    return " ".join([f"{value:#x}", *bit_names(field, value)])


def has_flags(field: str) -> bool:
    """Whether `flags_text` knows the field."""
    return field in FLAG_NAMES or field in _MASKS


def flags_value(field: str, text: str) -> int:
    """The value of names joined by commas, as 'MODE64BIT,DEBUG'. ValueError names a bad one."""
    values = {name: bit for bit, name in FLAG_NAMES[_MASKS.get(field, (field, 0))[0]].items()}
    found = 0
    for name in text.split(","):
        if name.upper() not in values:
            raise ValueError(f"{name}: none of {', '.join(values)}")
        found |= values[name.upper()]
    return found
