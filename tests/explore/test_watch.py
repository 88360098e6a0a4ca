"""What a step led to, the locks that are held, what was preempted: in tables and pages.

The story: the last row of a table was the fatal step without its outcome.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import NamedTuple

import pytest

from softsgx.explore import Scenario, Violation
from softsgx.explore.html import Story, page
from softsgx.explore.record import Recording, record
from softsgx.explore.table import formatted, table
from softsgx.sim import Event, Execution, Log, Mutex, Steps
from softsgx.system.scenarios.first_touch import FirstTouch

SCHEDULE = [0, 0, 1]  # A holds the lock and is preempted


class Told(NamedTuple):
    """An event of what the tasks work on."""

    what: str


class Locked(Scenario):
    """A takes a lock and is preempted by B, which fails."""

    def __init__(self) -> None:
        self.told = Log()

    def start(self, execution: Execution) -> None:
        self.lock = Mutex("page_lock")
        self.value = 0
        execution.spawn(self.a(), "A")
        execution.spawn(self.b(), "B")

    def a(self) -> Steps[None]:
        yield from self.lock.acquire()
        yield ("write", "value", True)
        self.value = 1
        if self.told.on:
            self.told.emit(Told("<b>stored</b>"))
        yield ("read", "value", False)
        self.lock.release()

    def b(self) -> Steps[None]:
        yield ("read", "value", False)
        raise Violation("too early", "B reads </script> while A writes")

    def state(self) -> str:
        return f"value {self.value}"

    def states(self) -> dict[str, dict[str, str]]:
        return {"page": {"value": str(self.value)}}

    def told_by(self) -> Log:
        return self.told

    def event_texts(self, event: Event) -> tuple[str, str]:
        return (
            (f"told {event.what}", f"all of {event.what}") if isinstance(event, Told) else ("", "")
        )


@pytest.fixture
def seen() -> Recording:
    return record(Locked(), SCHEDULE, watched=True)


def test_a_table_says_what_a_step_led_to_and_what_was_preempted(seen: Recording) -> None:
    assert formatted(seen) == (
        "      A                       B             value 0\n"
        "   1   lock page_lock\n"
        "   2   write value                          value 1\n"
        "       = told <b>stored</b>\n"
        "      -- A is preempted, holding page_lock\n"
        "   3                          *read value\n"
        "      ! VIOLATION too early: B reads </script> while A writes\n"
        "        then A holds page_lock\n"
    )


def test_what_is_listened_to_is_given_back(seen: Recording) -> None:
    scenario = Locked()
    record(scenario, SCHEDULE, watched=True)
    assert scenario.log is None
    assert not scenario.told.on
    plain = record(scenario, SCHEDULE)
    assert plain.recorder.watch is None
    assert plain.trace == seen.trace


def test_the_last_step_of_a_shipped_scenario_has_its_outcome() -> None:
    """SIGBUS for the page that the other thread has just added."""
    lost = FirstTouch()
    told = table(lost, [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0])
    last = told.splitlines()[-4:]
    assert re.fullmatch(r" +13 +EREMOVE of EPC page \d+", last[0])
    assert [line.split() for line in last[1:3]] == [
        "= page fault: SIGBUS BUS_ADRERR".split(),
        "= SIGBUS BUS_ADRERR".split(),
    ]
    assert last[3].startswith("      ! VIOLATION spurious fault: reader 1 gets SIGBUS")
    assert "-- reader 1 is preempted, holding mmap_lock (read)" in told


class Parsed(HTMLParser):
    """The scripts of a page, its steps, its text, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.loads: list[str] = []
        self.scripts: list[str] = []
        self.said: list[str] = []
        self._in: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in.append(tag)
        for name, value in attrs:
            if name == "data-step":
                self.steps.append(int(value or -1))
            if name in ("src", "href"):
                self.loads.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        (self.scripts if self._in[-1:] == ["script"] else self.said).append(data)


def test_a_page_has_the_state_and_the_locks_at_each_step(seen: Recording) -> None:
    parsed = Parsed(page([Story("Locked", seen, ["softsgx explore ..."])]))
    assert parsed.steps == [0, 1, 2, 3]
    assert not parsed.loads
    moments = json.loads(parsed.scripts[0])
    assert [moment["state"]["page"]["value"] for moment in moments] == ["0", "0", "1", "1"]
    assert [moment["held"] for moment in moments] == [{}, *[{"A": ["page_lock"]}] * 3]
    assert moments[2]["events"] == ["all of <b>stored</b>"]
    text = " ".join(parsed.said)
    assert "B reads </script> while A writes" in text
    assert "A is preempted, holding page_lock" in text
    assert len(parsed.scripts) == 2, "text of the scenario ended a script"


def test_a_page_about_nothing_says_so() -> None:
    parsed = Parsed(page([], "nothing found in <5> executions"))
    assert "nothing found in <5> executions" in " ".join(parsed.said)
