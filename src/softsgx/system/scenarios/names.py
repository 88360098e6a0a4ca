"""Shipped scenarios by name: NAME, or NAME,KERNEL,RACE=0,RACE=1,order=ORDER.

The name of a scenario holds all that it is made from (`MachineScenario.name`), so that a replay
string can name it. Here it is parsed; what is left out has its default.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from softsgx.linux.version import EXPLORED, VERSION_DEFAULT, VERSIONS, Races
from softsgx.system.runtimes import ORDERS
from softsgx.system.scenarios.catalogue import SCENARIOS
from softsgx.system.scenarios.protect import Managed
from softsgx.system.scenarios.scenario import AT_ACCESSES, DRIVER, ONLY, MachineScenario

KINDS: dict[str, type[MachineScenario]] = {kind.__name__: kind for kind in SCENARIOS}


def is_shipped(name: str) -> bool:
    """Whether a name, without its switches, is that of a shipped scenario."""
    return name.split(",")[0] in KINDS


def scenario_named(name: str) -> MachineScenario:
    """The scenario of a name that `is_shipped`. ValueError for an unknown switch."""
    first, *switches = name.split(",")
    kind = KINDS[first]
    linux = switches.pop(0) if switches and "=" not in switches[0] else VERSION_DEFAULT
    if linux not in VERSIONS:
        raise ValueError(f"{name}: kernel {linux}: known are {', '.join(VERSIONS)}")
    known = [field.name for field in fields(Races)]
    races: dict[str, bool] = {}
    options: dict[str, Any] = {}
    rule = ""
    # On which driver object it ran, and how: the caller has that object, or has not.
    switches = [
        switch
        for switch in switches
        if not switch.startswith(f"{DRIVER}=") and switch != AT_ACCESSES
    ]
    for switch in switches:
        key, _, value = switch.partition("=")
        if key in races or key in options:
            raise ValueError(f"{name}: {key} is given twice")
        if key == "order" and issubclass(kind, Managed):
            if value not in ORDERS:
                raise ValueError(f"{name}: order {value}: known are {', '.join(ORDERS)}")
            options[key] = value
        elif key == ONLY and value:
            rule = value.replace("-", " ")
        elif key in known and value in ("0", "1"):
            races[key] = value == "1"
        else:
            raise ValueError(f"{name}: {switch}: not RACE=0 or RACE=1")
    found = kind(linux, races or None, **options)
    return found.only(rule) if rule else found


def all_shipped(linux: str | None = None, order: str | None = None) -> list[MachineScenario]:
    """Every scenario on every kernel of EXPLORED, and with every order if it has a manager.

    Or only on the kernel, or with the order, that is named.
    """
    found: list[MachineScenario] = []
    for kind in SCENARIOS:
        for version in [linux] if linux else EXPLORED:
            if issubclass(kind, Managed):
                found += [kind(version, None, each) for each in ([order] if order else ORDERS)]
            else:
                found.append(kind(version))
    return found
