"""One event of every class, so that no writer forgets one."""

from __future__ import annotations

from typing import Any, get_type_hints

from softsgx.events import cpu, kernel
from softsgx.sim import IpiSent, IpiTaken


class Task:
    """As much of a task as an event shows."""

    name = "A"
    cpu = 3

    def __str__(self) -> str:
        return "a 'A'"


def _value(name: str, kind: Any) -> Any:
    if name == "access":
        return 2
    if kind is bool:
        return True
    if kind is str:
        return 'a "quoted" name'
    return (("prot", 3), ("address", 0x7000)) if kind is not int else 0x123


def every_event() -> list[Any]:
    """Processor, kernel and interrupts; the values are made up."""
    task: Any = Task()
    found: list[Any] = [IpiSent(task, (1, 2)), IpiTaken(task, 1)]
    for module in (cpu, kernel):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, tuple) and kind is not tuple:
                hints = get_type_hints(kind)
                found.append(kind(*(_value(name, hint) for name, hint in hints.items())))
    return found
