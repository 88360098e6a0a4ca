"""Finding scenarios: in a Python file, or among those shipped."""

from __future__ import annotations

import inspect
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from softsgx.cli.errors import UsageError
from softsgx.explore import Scenario
from softsgx.image.elf_format import MAGIC
from softsgx.report.near import meant


def find(
    target: str, driver: str | None = None, *, accesses: bool = False, kind: str = ""
) -> list[Scenario]:
    """The scenarios that a target names, at least one, in the order of the file.

    A target is a Python file, or the name of a shipped scenario (`system.scenarios.names`); with
    `kind` only that class of the file. With `driver` they run on that driver object, and if so
    asked with points at its accesses.
    """
    return [on_driver(scenario, driver, accesses=accesses) for scenario in _found(target, kind)]


def split(target: str) -> tuple[str, str]:
    """A target as FILE.py::CLASS, as in pytest: the file and the class; "" if none is named."""
    file, _, kind = target.partition("::")
    return (file, kind) if file.endswith(".py") else (target, "")


def on_driver(scenario: Scenario, driver: str | None, *, accesses: bool = False) -> Scenario:
    """A scenario on a driver object, if there is one. UsageError if it cannot run there."""
    if driver is None:
        return scenario
    from softsgx.cdriver.errors import DriverError
    from softsgx.system.scenarios.scenario import MachineScenario

    if not isinstance(scenario, MachineScenario):
        raise UsageError(f"--driver: {scenario.name}: has no machine: not a MachineScenario")
    try:
        return scenario.on(driver, accesses=accesses)
    except (DriverError, ValueError) as error:
        raise UsageError(f"--driver: {error}") from None


def driver_of(scenario: Scenario) -> str | None:
    """The driver object on which a scenario runs."""
    driver = getattr(scenario, "driver", None)
    return None if driver is None else os.fspath(driver)


def _found(target: str, kind: str) -> list[Scenario]:
    if target.endswith(".py"):
        return in_file(Path(target), kind)
    # Not at the top: a user's file may not need the shipped scenarios.
    from softsgx.system.scenarios.names import KINDS, is_shipped, scenario_named

    if is_shipped(target):
        try:
            return [scenario_named(target)]
        except ValueError as error:
            raise UsageError(str(error)) from None
    if os.sep in target or os.path.lexists(target):
        raise UsageError(f"{target}: {_no_scenarios(target)}")
    name = target.split(",")[0]
    near, known = meant(name, KINDS), ", ".join(KINDS)
    raise UsageError(f"{name}: neither a file nor a scenario{near}; known are {known}")


def _no_scenarios(path: str) -> str:
    """Why a path is not a file of scenarios, and what would be."""
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


def in_file(path: Path, kind: str = "") -> list[Scenario]:
    """An instance of every scenario class in a Python file, or of the one that is named."""
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
    return [_made(each, path) for each in _named(found, kind, path)]


def _named(found: list[type[Scenario]], kind: str, path: Path) -> list[type[Scenario]]:
    if not kind:
        return found
    has = [each.__name__ for each in found]
    if kind not in has:
        said = meant(kind, has).removeprefix(", ") or f"it has {', '.join(has)}"
        raise UsageError(f"{path}: has no scenario {kind}: {said}")
    return [found[has.index(kind)]]


def _made(kind: type[Scenario], path: Path) -> Scenario:
    try:
        made = kind()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path}{_line(error, path)}: {kind.__name__}(): {said}") from None
    refused = made.refusal()
    if refused:
        raise UsageError(f"{path}: {kind.__name__}: {refused}")
    return made


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    line, trace = "", error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == path.resolve():
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line
