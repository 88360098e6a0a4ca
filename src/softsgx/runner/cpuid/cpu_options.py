"""The processor that the options ask for: --sgx1, --xfrm, --cpu-option. Raises RunnerError."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final

from softsgx.cpu import Readings
from softsgx.cpu.part import Part
from softsgx.report.near import meant
from softsgx.runner.cpuid.cpuid import Engine, native_xfrm, part_for
from softsgx.runner.errors import RunnerError
from softsgx.sim import Unmodelled
from softsgx.spec.attributes import XFRM_LEGACY

HELP: Final = "help"
_BOOLS: Final = {"1": True, "true": True, "0": False, "false": False}


def chosen(
    engine: Engine, *, sgx1: bool, xfrm: str | None, cpu_options: Sequence[str]
) -> tuple[Part, Readings]:
    """The part and the readings that the options ask for; later options win."""
    part: Any = part_for(engine, sgx1)
    readings: Any = Readings()
    features: dict[str, str] = {}  # of the part; set together, as one may need another
    if xfrm is not None:
        part = _replaced(part, "--xfrm", {"xfrm": xfrm})
        _refuse_xfrm(engine, "--xfrm", part.xfrm)
    for option in cpu_options:
        name, equals, text = option.partition("=")
        if not equals:
            raise RunnerError("--cpu-option", f"{option!r}: NAME=VALUE is needed")
        if any(f.name == name for f in fields(Readings)):
            readings = _replaced(readings, "--cpu-option", {name: text})
        elif any(f.name == name for f in fields(Part)):
            features[name] = text
        else:
            names = [f.name for kind in (Part, Readings) for f in fields(kind)]
            why = f"{name!r}: no such name{meant(name, names)}: --cpu-option {HELP} lists all"
            raise RunnerError("--cpu-option", why)
    part = _replaced(part, "--cpu-option", features)
    _refuse_xfrm(engine, "--cpu-option", part.xfrm)
    return part, readings


def listing(part: Part, readings: Readings) -> str:
    """Every NAME of --cpu-option, one a line: its value here, possible values, what it is.

    docs/readings.md explains them at length.
    """
    lines = ["# features of the processor"]
    for feature in fields(Part):
        value = getattr(part, feature.name)
        lines.append(_line(feature.name, value, "a number", feature.metadata["what"]))
    lines.append("# readings of the manual, where it is silent or contradicts itself")
    for switch in fields(Readings):
        value, most = getattr(readings, switch.name), switch.metadata["most"]
        lines.append(_line(switch.name, value, f"0 to {most}", switch.metadata["why"]))
    return "\n".join(lines) + "\n"


def _line(name: str, value: object, numbers: str, what: str) -> str:
    first, _, _ = what.partition(". ")
    shown, values = f"{value:#x}" if isinstance(value, int) and value > 255 else f"{value}", numbers
    if isinstance(value, bool):
        shown, values = str(int(value)), "0 or 1"
    elif isinstance(value, bytes):
        shown, values = value.hex(), f"{2 * len(value)} hexadecimal digits"
    return f"{name}={shown}  ({values})  {first.removesuffix('.')}"


def _refuse_xfrm(engine: Engine, option: str, xfrm: int) -> None:
    """RunnerError unless the engine can save and load all components that the part announces."""
    if engine == "unicorn" and xfrm != XFRM_LEGACY:
        why = f"xfrm={xfrm:#x}: --engine unicorn saves x87 and SSE only, which is {XFRM_LEGACY:#x}"
        raise RunnerError(option, why)
    if engine == "native" and xfrm & ~(most := native_xfrm()):
        why = f"xfrm={xfrm:#x}: --engine native can have {most:#x} on this processor"
        raise RunnerError(option, why)


def _replaced(target: Any, option: str, texts: dict[str, str]) -> Any:
    asked = ""
    values: dict[str, object] = {}
    try:
        for name, text in texts.items():
            asked = f"{name}={text}"
            values[name] = _value(getattr(target, name), text)
        asked = ", ".join(f"{name}={text}" for name, text in texts.items())
        return replace(target, **values)
    except Unmodelled:
        raise RunnerError(option, f"{asked}: not modelled") from None
    except (ValueError, TypeError) as error:
        raise RunnerError(option, f"{asked}: {error}") from None


def _value(old: object, text: str) -> object:
    """The text as a value of the type of `old`."""
    if isinstance(old, bool):
        if text.lower() not in _BOOLS:
            raise ValueError("0 or 1 is needed")
        return _BOOLS[text.lower()]
    if isinstance(old, int):
        try:
            return int(text, 0)
        except ValueError:
            raise ValueError("a number is needed") from None
    if isinstance(old, bytes):
        try:
            return bytes.fromhex(text)
        except ValueError:
            raise ValueError(f"{2 * len(old)} hexadecimal digits are needed") from None
    return text
