"""ECREATE refused the SECS: every field that is wrong, what is permitted, and a SECS that passes.

Each field is corrected in turn until the processor's own checks pass, so the advice is known to
work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from softsgx.cpu.fault import Fault
from softsgx.cpu.leaf.ecreate import check_source
from softsgx.cpu.part import Part, xsave_size
from softsgx.report.explanation import Layer
from softsgx.spec.attributes import (
    ATTR_CET,
    ATTR_INIT,
    ATTR_KSS,
    ATTR_MODE64BIT,
    XFRM_AMX,
    XFRM_AVX,
    XFRM_AVX512,
    XFRM_LEGACY,
    legal_xcr0,
)
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SIZE, canonical
from softsgx.spec.cet import CET_ATTRIBUTES_DEFINED
from softsgx.spec.flags import flags_text, has_flags
from softsgx.spec.rules import RULES
from softsgx.spec.secs import SECS, SECS_SOURCE_RESERVED, SECS_SOURCE_RESERVED_CET
from softsgx.spec.ssa import GPRSGX_SIZE, misc_size
from softsgx.system.explain.calls.refused_call import RefusedCall

SECS_RULES: Final = frozenset(
    rule for rule in RULES if "ECREATE.11" <= rule <= "ECREATE.23" or "CET.01" <= rule <= "CET.06"
)
_RESERVED: Final = "reserved"
_NAMES: Final = {"SIZE_": "SIZE"}
_CANONICAL: Final = (1 << 47) - 1


class Fix(NamedTuple):
    """What one check wants: the field, a value that passes, and in words what is permitted."""

    field: str
    value: int
    permitted: str


def secs_layers(call: RefusedCall, source: bytes) -> tuple[list[Layer], str]:
    """A line for each field that ECREATE refuses, and the fields of a SECS that it accepts."""
    part = call.kernel.processor.part
    secs = SECS.unpack(source)
    raw, fixes = corrected(part, source)
    permitted: dict[str, list[str]] = {}
    for fix in fixes:
        permitted.setdefault(fix.field, []).append(fix.permitted)
    layers, ways = [], []
    for field, texts in permitted.items():
        name = _NAMES.get(field, field)
        if field == _RESERVED:
            layers.append(Layer(name, texts[0], ""))
            ways.append("reserved bytes 0")
        else:
            given = _text(name, getattr(secs, field))
            layers.append(Layer(name, given, f"permitted: {'; '.join(texts)}"))
            ways.append(f"{name} {_text(name, getattr(SECS.unpack(raw), field))}")
    return layers, ", ".join(ways) + _more_xfrm(call, part, secs)


def _text(name: str, value: int | bytes) -> str:
    if isinstance(value, bytes):
        return "0" if not any(value) else value.hex()
    return flags_text(name, value) if has_flags(name) else f"{value:#x}"


def _more_xfrm(call: RefusedCall, part: Part, secs: SECS) -> str:
    """How to get a processor that has all of XFRM, if there is one."""
    most, how = call.history.more_xfrm
    if not secs.XFRM & ~part.xfrm or secs.XFRM & ~most or not legal_xcr0(secs.XFRM):
        return ""
    needed = _frame_pages(secs)
    frame = f" and SSAFRAMESIZE {needed:#x}" if needed > secs.SSAFRAMESIZE else ""
    return f"; or XFRM as it is{frame}, with {how.format(xfrm=secs.XFRM)}"


def corrected(part: Part, source: bytes) -> tuple[bytes, list[Fix]]:
    """The SECS with every refused field corrected, and the corrections in order."""
    fixes: list[Fix] = []
    rule = first_refusal(part, source)
    while rule:
        fix = _FIXES[rule](part, SECS.unpack(source), source)
        assert len(fixes) <= len(SECS_RULES), f"{rule}: {fix} does not pass its own test"
        fixes.append(fix)
        source = _with(part, source, fix)
        rule = first_refusal(part, source)
    return source, fixes


def first_refusal(part: Part, source: bytes) -> str:
    """The first rule by which ECREATE refuses a SECS; empty if it accepts it."""
    try:
        check_source(part, source)
    except Fault as fault:
        return fault.rule
    return ""


def _with(part: Part, source: bytes, fix: Fix) -> bytes:
    if fix.field == _RESERVED:
        raw = bytearray(source)
        for start, end in _reserved(part):
            raw[start:end] = bytes(end - start)
        return bytes(raw)
    field = next(field for field in SECS.FIELDS if field.name == fix.field)
    at = field.offset
    return source[:at] + fix.value.to_bytes(field.width, "little") + source[at + field.width :]


def _reserved(part: Part) -> tuple[tuple[int, int], ...]:
    return SECS_SOURCE_RESERVED_CET if part.cet else SECS_SOURCE_RESERVED


def _frame_pages(secs: SECS) -> int:
    size = xsave_size(secs.XFRM) + GPRSGX_SIZE + misc_size(secs.MISCSELECT)
    return -(-size // PAGE_SIZE)


# What the field must be, a function for each rule


def _legacy(part: Part, secs: SECS, _source: bytes) -> Fix:
    return Fix("XFRM", secs.XFRM | XFRM_LEGACY, "X87 and SSE are always set")


def _xfrm(part: Part, secs: SECS, _source: bytes) -> Fix:
    value = secs.XFRM & part.xfrm
    if value & XFRM_AVX512 != XFRM_AVX512 or not value & XFRM_AVX:
        value &= ~XFRM_AVX512
    if value & XFRM_AMX != XFRM_AMX:
        value &= ~XFRM_AMX
    whole = "AVX-512 needs AVX and all its own bits, AMX both of its"
    more = f"; {whole}" if not secs.XFRM & ~part.xfrm else ""
    return Fix("XFRM", value, f"{flags_text('XFRM', part.xfrm)} (CPUID.12H.1:ECX, EDX){more}")


def _miscselect(part: Part, secs: SECS, _source: bytes) -> Fix:
    permitted = flags_text("MISCSELECT", part.miscselect)
    return Fix("MISCSELECT", secs.MISCSELECT & part.miscselect, f"{permitted} (CPUID.12H.0:EBX)")


def _frame(part: Part, secs: SECS, _source: bytes) -> Fix:
    pages = _frame_pages(secs)
    size, misc = xsave_size(secs.XFRM), misc_size(secs.MISCSELECT)
    sum_ = f"{size} bytes XSAVE area + {GPRSGX_SIZE} GPRSGX + {misc} MISC"
    return Fix("SSAFRAMESIZE", pages, f"{pages:#x} pages or more: {sum_}")


def _canonical(part: Part, secs: SECS, _source: bytes) -> Fix:
    limit = _CANONICAL & ~(max(secs.SIZE_, 1) - 1)
    return Fix("BASEADDR", secs.BASEADDR & limit, "a canonical address of user space")


def _wide(part: Part, secs: SECS, _source: bytes) -> Fix:
    value = secs.ATTRIBUTES | ATTR_MODE64BIT
    return Fix("ATTRIBUTES", value, "MODE64BIT is set where BASEADDR is above 4 GiB")


def _below_limit(part: Part, secs: SECS, _source: bytes) -> Fix:
    bits = part.max_size_64 if secs.ATTRIBUTES & ATTR_MODE64BIT else part.max_size_32
    return Fix("SIZE_", 1 << bits - 1, f"below {1 << bits:#x} (CPUID.12H.0:EDX)")


def _two_pages(part: Part, secs: SECS, _source: bytes) -> Fix:
    return Fix("SIZE_", 2 * PAGE_SIZE, "two pages or more")


def _power(part: Part, secs: SECS, _source: bytes) -> Fix:
    return Fix("SIZE_", 1 << secs.SIZE_.bit_length(), "a power of two")


def _aligned(part: Part, secs: SECS, _source: bytes) -> Fix:
    permitted = f"a multiple of SIZE {secs.SIZE_:#x}"
    return Fix("BASEADDR", secs.BASEADDR & ~(secs.SIZE_ - 1), permitted)


def _attributes(part: Part, secs: SECS, _source: bytes) -> Fix:
    permitted = f"{flags_text('ATTRIBUTES', part.attributes)} (CPUID.12H.1:EAX, EBX)"
    if secs.ATTRIBUTES & ATTR_INIT:
        permitted += "; only EINIT sets INIT"
    return Fix("ATTRIBUTES", secs.ATTRIBUTES & part.attributes, permitted)


def _reserved_bytes(part: Part, secs: SECS, source: bytes) -> Fix:
    wrong = [at for start, end in _reserved(part) for at in range(start, end) if source[at]]
    rest = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return Fix(_RESERVED, 0, f"byte {wrong[0]}{rest} must be 0, it is {source[wrong[0]]:#x}")


def _config(part: Part, secs: SECS, _source: bytes) -> Fix:
    if part.kss:
        value = secs.ATTRIBUTES | ATTR_KSS
        return Fix("ATTRIBUTES", value, "KSS is set where CONFIGID or CONFIGSVN is not 0")
    field = "CONFIGID" if any(secs.CONFIGID) else "CONFIGSVN"
    return Fix(field, 0, "0 on a processor without KSS")


def _cet(part: Part, secs: SECS, _source: bytes) -> Fix:
    permitted = "CET is set where CET_ATTRIBUTES or CET_LEG_BITMAP_OFFSET is not 0"
    return Fix("ATTRIBUTES", secs.ATTRIBUTES | ATTR_CET, permitted)


def _bitmap(part: Part, secs: SECS, source: bytes) -> Fix:
    """It lies at BASEADDR plus the offset; if BASEADDR itself is wrong, that must change."""
    if secs.ATTRIBUTES & ATTR_MODE64BIT and not canonical(secs.BASEADDR):
        return _canonical(part, secs, source)
    if not secs.ATTRIBUTES & ATTR_MODE64BIT and secs.BASEADDR >> 32:
        return _wide(part, secs, source)
    permitted = "BASEADDR plus the offset must be an address in the enclave's mode"
    return Fix("CET_LEG_BITMAP_OFFSET", 0, permitted)


def _cet_defined(part: Part, secs: SECS, _source: bytes) -> Fix:
    value = secs.CET_ATTRIBUTES & CET_ATTRIBUTES_DEFINED
    return Fix("CET_ATTRIBUTES", value, flags_text("CET_ATTRIBUTES", CET_ATTRIBUTES_DEFINED))


def _bitmap_aligned(part: Part, secs: SECS, _source: bytes) -> Fix:
    value = secs.CET_LEG_BITMAP_OFFSET & ~PAGE_MASK & MASK64
    return Fix("CET_LEG_BITMAP_OFFSET", value, "a multiple of 4096")


_FIXES: Final[dict[str, Callable[[Part, SECS, bytes], Fix]]] = {
    "ECREATE.11": _legacy,
    "ECREATE.12": _xfrm,
    "ECREATE.13": _miscselect,
    "ECREATE.14": _frame,
    "ECREATE.15": _canonical,
    "ECREATE.16": _wide,
    "ECREATE.17": _below_limit,
    "ECREATE.18": _two_pages,
    "ECREATE.19": _power,
    "ECREATE.20": _aligned,
    "ECREATE.21": _attributes,
    "ECREATE.22": _reserved_bytes,
    "ECREATE.23": _config,
    "CET.01": _cet,
    "CET.02": _cet,
    "CET.03": _bitmap,
    "CET.04": _bitmap,
    "CET.05": _cet_defined,
    "CET.06": _bitmap_aligned,
}
