"""Tracking against a history: epochs must answer as a model that remembers who was inside when.

The model has no epochs. It keeps, for every stamped page, who was inside at the stamp and who at
the first ETRACK after it, and removes each that leaves. Verified after every step: the status of
ETRACK, and for every page whether it is tracked. Not verified: that EWB and EACCEPT ask (see
test_tracking_consequences).
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softsgx.cpu import Readings
from softsgx.cpu.tracking import tracked
from tests.cpu.epochs import data, etrack, etrackc, lps, machine_with
from tests.cpu.paging import Paged


@dataclass
class Stamped:
    """A stamped page: who was inside at the stamp, and at the first ETRACK since; not yet left."""

    at_stamp: set[int]
    at_etrack: set[int] | None = None


@dataclass
class History:
    """Who is inside, and who of them the last ETRACK waits for."""

    readings: Readings
    inside: set[int] = field(default_factory=set)
    waited_for: set[int] = field(default_factory=set)
    pages: dict[int, Stamped] = field(default_factory=dict)

    def leave(self, who: int) -> None:
        self.inside.discard(who)
        self.waited_for.discard(who)
        for page in self.pages.values():
            page.at_stamp.discard(who)
            if page.at_etrack is not None:
                page.at_etrack.discard(who)

    def etrack(self) -> int:
        if self.waited_for:
            return 17
        self.waited_for = set(self.inside)
        for page in self.pages.values():
            if page.at_etrack is None:
                page.at_etrack = set(self.inside)
        return 0

    def stamp(self, page: int) -> None:
        self.pages[page] = Stamped(set(self.inside))
        if not self.readings.etrack_needed_when_empty and not self.inside:
            del self.pages[page]  # nobody to wait for

    def tracked(self, page: int) -> bool:
        stamped = self.pages.get(page)
        if stamped is None:
            return True
        if not self.readings.etrack_needed_when_empty and not self.inside:
            return True
        if stamped.at_etrack is None:
            return False
        if not self.readings.late_entry_counts and not stamped.at_stamp:
            return True
        return not stamped.at_etrack


class Run:
    """One machine and the history it must agree with."""

    def __init__(self, machine: Paged, readings: Readings) -> None:
        self.machine = machine
        self.history = History(readings)
        self.interrupted = [False] * len(lps(machine))

    def step(self, action: str, which: int) -> None:
        m, history = self.machine, self.history
        if action in ("EEXIT", "AEX"):
            self._move(which, interrupt=action == "AEX")
        elif action in ("ETRACK", "ETRACKC"):
            assert (etrack(m) if action == "ETRACK" else etrackc(m)) == history.etrack()
        elif action == "EBLOCK":
            page = data(m, which % 2)
            if m.bare.eblock(page) == 0 or history.readings.repeated_eblock_restamps:
                history.stamp(page)
        else:
            page = m.enclave.pages[m.enclave.scratch]
            assert m.bare.emodpr(page, which % 2) == 0
            history.stamp(page)

    def _move(self, which: int, *, interrupt: bool) -> None:
        """Leave by EEXIT or AEX; enter by EENTER or, after an AEX, by ERESUME."""
        lp, enclave = lps(self.machine)[which], self.machine.enclave
        if lp.secs is None:
            enter = enclave.resume if self.interrupted[which] else enclave.enter
            enter(lp, which)
            self.history.inside.add(which)
            return
        self.interrupted[which] = interrupt
        if interrupt:
            lp.interrupt()
        else:
            enclave.exit(lp)
        self.history.leave(which)

    def verify(self) -> None:
        m = self.machine
        secs = m.bare.processor.secs[m.enclave.secs]
        assert secs.inside == len(self.history.inside)
        assert secs.previous == len(self.history.waited_for)
        for page in m.enclave.pages.values():
            assert tracked(m.bare.processor, secs, page) == self.history.tracked(page), page


ACTIONS = ("EEXIT", "AEX", "EEXIT", "AEX", "ETRACK", "ETRACKC", "EBLOCK", "EMODPR")
READINGS = [
    Readings(),
    Readings(etrack_needed_when_empty=False),
    Readings(late_entry_counts=False),
    Readings(late_entry_counts=False, etrack_needed_when_empty=False),
    Readings(repeated_eblock_restamps=True),
]
MACHINES = [machine_with(readings) for readings in READINGS]
EMPTY = [machine.bare.processor.snapshot() for machine in MACHINES]


@pytest.mark.parametrize("number", range(len(READINGS)))
@settings(max_examples=150)
@given(steps=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2)), max_size=60))
def test_epochs_agree_with_the_history(number: int, steps: list[tuple[str, int]]) -> None:
    machine = MACHINES[number]
    machine.bare.processor.restore(EMPTY[number])
    run = Run(machine, READINGS[number])
    for action, which in steps:
        run.step(action, which)
        run.verify()
