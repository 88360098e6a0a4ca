"""Checks of the fields of Part and Readings: exceptions that name the field."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_types(instance: DataclassInstance) -> None:
    """TypeError unless each field has exactly the type of its default: no True for a number."""
    owner = type(instance).__name__
    for field in fields(instance):
        assert field.default is not MISSING
        kind, value = type(field.default), getattr(instance, field.name)
        if type(value) is not kind:
            raise TypeError(f"{owner}.{field.name}: {kind.__name__} is needed, not {value!r}")


def check_range(name: str, value: int, least: int, most: int) -> None:
    """ValueError unless `value` lies between `least` and `most`, both included."""
    if not least <= value <= most:
        raise ValueError(f"{name}: {value} is not in {least}..{most}")
