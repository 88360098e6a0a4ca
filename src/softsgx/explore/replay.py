"""Replay strings: version, scenario, identity of its file, schedule.

    0.1.0/FirstTouch/5f3a91c2/1:a3ba12

A schedule has a meaning only for the version and the scenario that it was made with, so a string
made with another is refused, with the reason.
"""

from __future__ import annotations

from softsgx import __version__
from softsgx.explore.failure import Kind
from softsgx.explore.record import Recording, record
from softsgx.explore.scenario import Scenario
from softsgx.sim import Choice, Follow, ScheduleMismatch, SimError, decode, encode


class ReplayRefused(SimError, ValueError):
    """A replay string that is not for this scenario; the text says why."""


def replay_string(scenario: Scenario, choices: tuple[Choice, ...]) -> str:
    """The string for these choices."""
    return f"{__version__}/{scenario.name}/{scenario.identity()}/{encode(choices)}"


def scenario_of(text: str) -> str:
    """The name of the scenario that a replay string is for."""
    return _parts(text)[1]


def choices_of(text: str, scenario: Scenario) -> list[Choice]:
    """The choices in a replay string for this scenario; ReplayRefused, ScheduleError."""
    version, name, identity, schedule = _parts(text)
    if version != __version__:
        raise ReplayRefused(f"made by softsgx {version}, this is {__version__}")
    if name != scenario.name:
        raise ReplayRefused(f"for scenario {name}, not for {scenario.name}")
    if identity != scenario.identity():
        raise ReplayRefused(f"scenario {name} has changed since ({identity} then)")
    return decode(schedule)


def replayed(text: str, scenario: Scenario) -> Recording:
    """Execute the schedule of a replay string; ReplayRefused, ScheduleError.

    Refused also if the execution ends before the schedule does.
    """
    follow = Follow(choices_of(text, scenario))
    found = record(scenario, follow)
    if found.failure is None or found.failure.kind is not Kind.NONDETERMINISM:
        try:
            follow.expect_end()
        except ScheduleMismatch as error:
            raise ReplayRefused(str(error)) from None
    return found


def _parts(text: str) -> list[str]:
    parts = text.split("/", 3)
    if len(parts) != 4:
        raise ReplayRefused("not VERSION/SCENARIO/IDENTITY/SCHEDULE")
    return parts
