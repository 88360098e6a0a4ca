"""Small replacements for what takes long, for the tests of modes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from softsgx.cdriver.build import Built
from softsgx.cdriver.errors import DriverError
from softsgx.cdriver.manifest import Manifest
from softsgx.cdriver.tree import Tree
from softsgx.cli import cluster, progress
from softsgx.cli.doctor import machine
from softsgx.cli.driver import making
from softsgx.cli.errors import UsageError
from softsgx.cli.explore import known_races, searching, shipped
from softsgx.cli.run import program
from softsgx.cli.scenarios import find
from softsgx.explore import Scenario, Violation, explore, replay_string
from softsgx.lab import validate
from softsgx.lab.prices import Profile
from softsgx.lab.validate import Target
from softsgx.runner.doctor.doctor import Check
from tests.cli.enclave_files import Shell, write_all
from tests.cli.no_front import no_front
from tests.cli.test_explore import CORRECT, COUNTER

FILE = "scenarios.py"


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for what is kept between runs."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    """Every mode is run here, also the one that removes the cache: not the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))


@pytest.fixture(autouse=True)
def _no_front(monkeypatch: pytest.MonkeyPatch) -> None:
    no_front(monkeypatch)


@pytest.fixture
def softsgx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """`softsgx` in a fresh directory with enclave files."""
    write_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys)


class Small(Scenario):
    """Two additions that are atomic or not; the name says which options it was made for."""

    def __init__(self, linux: str | None, order: str | None, atomic: bool = False) -> None:
        self.name = f"Small,{linux},{order}"
        self.atomic = atomic
        self.value = 0

    def start(self, execution: Any) -> None:
        """Start at zero."""
        self.value = 0
        for name in "AB":
            execution.spawn(self.body(), name)

    def body(self) -> Any:
        """Some steps, and the addition."""
        for _ in range(4):
            yield ("write", "x", True)
        value = self.value
        if not self.atomic:
            yield ("write", "value", True)
        self.value = value + 1

    def check(self, execution: Any) -> None:
        """Both additions counted."""
        if self.value != 2:
            raise Violation("lost update", f"value {self.value}")


class Race(NamedTuple):
    """As a KnownRace: the lost update of a counter; with its fix it is not lost."""

    number: str = "K0"
    race: str = "small"
    mainline: str = "present"
    found: bool = True
    fixed: bool = True

    def alone(self, on: bool) -> Scenario:
        """With the race or without it."""
        return Small("6.12", None, atomic=not self.found if on else self.fixed)


def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tree has the driver, but not `nowhere`; an object says what it was made of."""

    def tree(top: Path) -> Tree:
        if top.name == "nowhere":
            raise DriverError(f"{top}: No such directory")
        return Tree(top, (6, 1, 0))

    def built(tree: Tree, encls: str, former: Path | None) -> Built:
        manifest = Manifest("", tree.release, encls, {}, "")
        return Built(f"{tree.top} {former}".encode() + manifest.pack(), manifest, made=True)

    monkeypatch.setattr("softsgx.cdriver.tree.find", tree)
    monkeypatch.setattr("softsgx.cdriver.debian.source", Path)
    monkeypatch.setattr(making, "build", built)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install the replacements; returns a replay string of the counter in FILE."""
    monkeypatch.chdir(tmp_path)
    Path(FILE).write_text(COUNTER + CORRECT)
    monkeypatch.setattr(shipped, "all_shipped", lambda linux, order: [Small(linux, order)])
    monkeypatch.setattr(known_races, "KNOWN_RACES", (Race(),))
    monkeypatch.setattr(progress, "EVERY_LINE_S", 0.0)

    def processes(size: int) -> Any:
        raise UsageError(f"{size} processes")

    def others(address: str, jobs: int | None) -> Any:
        raise UsageError(f"a cluster at {address!r}, {jobs}")

    def context(how: str) -> Any:
        raise UsageError("processes")

    def told(argv: Sequence[str], options: object, *_: object) -> int:
        print(argv, options)
        return 0

    def figures(prices: Profile) -> list[Target]:
        return [Target(prices.name, "source", "s", 1.0, 1.0, 1.0)]

    monkeypatch.setattr(searching, "Processes", processes)
    monkeypatch.setattr(cluster, "Cluster", others)
    monkeypatch.setattr(multiprocessing, "get_context", context)
    monkeypatch.setattr(validate, "targets", figures)
    monkeypatch.setattr(program, "run_program", told)
    monkeypatch.setattr(
        machine, "examine", lambda: [Check("check", ok=True, detail="", remedy="", needed=True)]
    )
    no_compiler(monkeypatch)
    write_all(tmp_path)
    counter, _correct = find(FILE)
    failure = explore(counter).failure
    assert failure is not None
    return replay_string(counter, failure.choices)
