"""Finding scenarios: in a file, or among those that are shipped."""

from __future__ import annotations

import inspect
import os
import sys
from dataclasses import fields
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from softsgx.cli.errors import UsageError
from softsgx.explore import Scenario
from softsgx.image.elf import MAGIC


def find(target: str) -> list[Scenario]:
    """The scenarios that a target names, in the order of the file; never none.

    A target is a Python file, or NAME, or NAME,KERNEL,RACE=0,RACE=1,order=ORDER of a shipped
    scenario, whatever is left out having its default.
    """
    if target.endswith(".py"):
        return in_file(Path(target))
    if not is_shipped(target) and (os.sep in target or os.path.lexists(target)):
        raise UsageError(f"{target}: {_no_scenarios(target)}")
    return [shipped(target)]


def is_shipped(name: str) -> bool:
    """Whether it is the name of a shipped scenario, whatever switches follow it."""
    from softsgx.system.scenarios.catalogue import SCENARIOS

    return name.split(",")[0] in [kind.__name__ for kind in SCENARIOS]


def _no_scenarios(path: str) -> str:
    """Why a path that does not end in .py holds no scenarios, and what could be done."""
    if os.path.isdir(path):
        return "is a directory; TARGET is a Python file with scenarios, or a shipped scenario"
    if not os.path.exists(path):
        return "no such file"
    if not os.path.isfile(path):
        return "is not a regular file"
    try:
        with open(path, "rb") as file:
            is_elf = file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        return str(error.strerror)
    if is_elf:
        return "is an ELF file: a scenario of it is an ElfScenario in a Python file"
    return "is not a Python file: the name of a file with scenarios ends in .py"


def shipped(name: str) -> Scenario:
    """A shipped scenario by its name."""
    from softsgx.linux.version import VERSIONS, Races
    from softsgx.system.runtimes import ORDERS
    from softsgx.system.scenarios.catalogue import SCENARIOS
    from softsgx.system.scenarios.protect import Managed

    first, *rest = name.split(",")
    known = {kind.__name__: kind for kind in SCENARIOS}
    if first not in known:
        near = get_close_matches(first, known, 1)
        meant = f", did you mean {near[0]}?" if near else ""
        raise UsageError(f"{first}: no file, and no scenario{meant}; known are {', '.join(known)}")
    linux = rest.pop(0) if rest and "=" not in rest[0] else "6.12"
    if linux not in VERSIONS:
        raise UsageError(f"{name}: kernel {linux}: known are {', '.join(VERSIONS)}")
    races, orders = {}, {}
    for switch in rest:
        race, _, value = switch.partition("=")
        if race in races or race in orders:
            raise UsageError(f"{name}: {race} is given twice")
        if race == "order" and issubclass(known[first], Managed):
            if value not in ORDERS:
                raise UsageError(f"{name}: order {value}: known are {', '.join(ORDERS)}")
            orders[race] = value
        elif race in [field.name for field in fields(Races)] and value in ("0", "1"):
            races[race] = value == "1"
        else:
            raise UsageError(f"{name}: {switch}: not RACE=0 or RACE=1")
    return known[first](linux, races or None, **orders)


def all_shipped(linux: str | None = None, order: str | None = None) -> list[Scenario]:
    """Every shipped scenario on every kernel, where it has one in every order; or these only."""
    from softsgx.linux.version import VERSIONS
    from softsgx.system.runtimes import ORDERS
    from softsgx.system.scenarios.catalogue import SCENARIOS
    from softsgx.system.scenarios.protect import Managed

    found: list[Scenario] = []
    for kind in SCENARIOS:
        for version in [linux] if linux else VERSIONS:
            if issubclass(kind, Managed):
                found += [kind(version, None, each) for each in ([order] if order else ORDERS)]
            else:
                found.append(kind(version))
    return found


def in_file(path: Path) -> list[Scenario]:
    """Every scenario class of a Python file that can be made without arguments."""
    if not path.is_file():
        raise UsageError(f"{path}: {_no_scenarios(str(path))}")
    spec = spec_from_file_location(f"scenarios_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[module.__name__] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = _line(error, path)
        raise UsageError(f"{path}{line}: {type(error).__name__}: {error}") from None
    found = [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind)
        and issubclass(kind, Scenario)
        and kind.__module__ == module.__name__
        and not kind.__name__.startswith("_")
    ]
    if not found:
        raise UsageError(f"{path}: no class in it derives from Scenario")
    return [_made(kind, path) for kind in found]


def _made(kind: type[Scenario], path: Path) -> Scenario:
    try:
        return kind()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path}{_line(error, path)}: {kind.__name__}(): {said}") from None


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    line, trace = "", error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == path.resolve():
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line
