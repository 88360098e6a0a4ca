"""EINIT refused: every field of SIGSTRUCT and SECS that does not match, not only the first."""

from __future__ import annotations

from typing import Final

from softsgx.cpu import measurement
from softsgx.cpu.part import Part
from softsgx.cpu.secs import Secs
from softsgx.image.sigstruct import verify_fields, verify_signature, with_right_fields
from softsgx.report.explanation import Layer
from softsgx.spec.attributes import ATTR_KSS
from softsgx.spec.flags import bit_names, flags_text
from softsgx.spec.secs import SECS
from softsgx.spec.sigstruct import SIGSTRUCT
from softsgx.system.explain.calls.create import corrected
from softsgx.system.explain.calls.refused_call import RefusedCall

# Field of both, its mask in SIGSTRUCT, the option of `softsgx sign` for it.
_MASKED: Final = (
    ("ATTRIBUTES", "ATTRIBUTEMASK", "--attributes"),
    ("XFRM", "XFRMMASK", "--xfrm"),
    ("MISCSELECT", "MISCMASK", "--miscselect"),
    ("CET_ATTRIBUTES", "CET_ATTRIBUTES_MASK", "--cet-attributes"),
)
_SIGN: Final = "sign again: softsgx sign --key PEM FILE"
_MEASURED: Final = (
    "build what was signed, or sign what is built: softsgx run --sgxs-out FILE -- ... writes it,"
    " softsgx show --diff FILE SIGNED.sgxs says where the two differ, softsgx sign FILE signs it"
)


def sigstruct_layers(call: RefusedCall, raw: bytes, secs: Secs) -> tuple[list[Layer], str]:
    """A line for each field that does not match, and what makes them match."""
    part, sig = call.kernel.processor.part, SIGSTRUCT.unpack(raw)
    layers, ways = _itself(part, raw)
    mrenclave = measurement.running(secs).digest()
    if mrenclave != sig.ENCLAVEHASH:
        layers.append(Layer("MRENCLAVE", mrenclave.hex(), "as built"))
        layers.append(Layer("ENCLAVEHASH", sig.ENCLAVEHASH.hex(), "in SIGSTRUCT"))
        built = sig.replace(ENCLAVEHASH=mrenclave).pack()
        if _SIGN in ways and not verify_signature(with_right_fields(built, cet=part.cet)):
            ways = [f"ENCLAVEHASH {mrenclave.hex()}: the signature was made with that"]
        else:
            ways.append(_MEASURED)
    if any(sig.ISVFAMILYID) and not secs.ATTRIBUTES & ATTR_KSS:
        layers.append(Layer("ISVFAMILYID", sig.ISVFAMILYID.hex(), "but no ATTRIBUTES.KSS"))
        kss = "SECS.ATTRIBUTES with KSS, or " if part.kss else ""
        ways.append(f"{kss}sign again without --isvfamilyid")
    masked, way = _masked(part, secs, sig)
    return layers + masked, "; ".join(ways + way)


def _itself(part: Part, raw: bytes) -> tuple[list[Layer], list[str]]:
    """What is wrong with the SIGSTRUCT itself, whatever the enclave."""
    fields = verify_fields(raw, cet=part.cet)
    right = with_right_fields(raw, cet=part.cet)
    # The signature may be good for the right values of fields that are wrong now.
    signature = verify_signature(right)
    layers = [
        Layer(found.field, f"at byte {found.offset}: {found.why}", "")
        for found in (*fields, *signature)
    ]
    if not layers:
        return [], []
    if signature:
        return layers, [_SIGN]
    names = dict.fromkeys(found.field for found in fields)
    sig = SIGSTRUCT.unpack(right)
    values = [f"{name} {_value(sig, name)}" for name in names]
    return layers, [f"{', '.join(values)}: the signature was made with that"]


def _value(sig: SIGSTRUCT, name: str) -> str:
    """The value of a field; 0 for reserved bytes."""
    value = getattr(sig, name, 0)
    return value.hex() if isinstance(value, bytes) else f"{value:#x}" if value else "0"


def _masked(part: Part, secs: Secs, sig: SIGSTRUCT) -> tuple[list[Layer], list[str]]:
    """The fields that must be equal where a mask has a bit."""
    layers, options, wanted = [], [], {}
    for name, mask_name, option in _MASKED:
        if name == "CET_ATTRIBUTES" and not part.cet:
            continue
        has, signed, mask = getattr(secs, name), getattr(sig, name), getattr(sig, mask_name)
        differ = (has ^ signed) & mask
        if not differ:
            continue
        bits = ", ".join(bit_names(name, differ))
        details = f"in the SECS; signed {flags_text(name, signed)}, {mask_name} {mask:#x}: {bits}"
        layers.append(Layer(name, flags_text(name, has), details))
        wanted[name] = has & ~mask | signed & mask
        options.append(f"{option} {has:#x}")
    if not layers:
        return [], []
    again = f"sign again: softsgx sign {' '.join(options)}"
    source = {n: getattr(secs, n) for n in ("BASEADDR", "SSAFRAMESIZE", *(m[0] for m in _MASKED))}
    fields = SECS(SIZE_=secs.SIZE, CONFIGID=secs.CONFIGID, CONFIGSVN=secs.CONFIGSVN)
    fields = fields.replace(**source | wanted)
    if corrected(part, fields.pack())[1]:
        return layers, [again]  # ECREATE would refuse what is signed
    values = [f"SECS.{name} {flags_text(name, value)}" for name, value in wanted.items()]
    return layers, [f"{', '.join(values)}, as signed; or {again}"]
