"""Random histories of a page, an operation that is refused there, and the advice taken.

The histories of tests.system.explain.advice_states, several in a row, then several areas. A step
may not fit what was done before: then the kernel or the processor refuses it, and it is not done.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, cast

from softsgx.sim import Unmodelled
from softsgx.system import EnclaveFault, SignalRaised
from tests.system.explain.advice_states import (
    ACCESSES,
    AREAS,
    HISTORIES,
    MACHINES,
    OPERATIONS,
    SGX1,
    Case,
    possible,
)
from tests.system.explain.advised import Attempt, rig
from tests.system.explain.test_advice import check

_NOT_DONE = (AssertionError, SignalRaised, Unmodelled, IndexError)


class NotTold(Exception):
    """A history that is impossible."""


@dataclass(frozen=True)
class Story:
    """Names of tables, as `Case` has them; of histories and areas, several."""

    machine: str
    histories: tuple[str, ...]
    areas: tuple[str, ...]
    operation: str

    def attempt(self) -> Attempt:
        """The machine in that state, and the attempt to make."""
        w = rig(MACHINES[self.machine]())
        page = w.enclave.data[0]
        for history in self.histories:
            try:
                page = HISTORIES[history](w)
            except EnclaveFault as fault:
                # It keeps an SSA frame of the thread that takes the advice.
                raise NotTold from fault
            except _NOT_DONE:
                continue
        for area in self.areas:
            vma = w.mm.vma_lookup(page)
            if area == "another enclave's" and (vma is None or not vma.sgx):
                continue  # a kernel that took an EPC page for memory would free it as such
            try:
                AREAS[area](w, page)
            except EnclaveFault as fault:
                raise NotTold from fault
            except _NOT_DONE:
                continue
        return OPERATIONS[self.operation](w, page)


def random_story(random: Random) -> Story:
    """A history that is possible."""
    while True:
        machine = random.choice([*MACHINES])
        sgx1 = machine == "sgx1"
        histories = random.choices([*(SGX1 if sgx1 else HISTORIES)], k=random.randint(1, 3))
        areas = random.choices([*AREAS], k=random.randint(0, 2)) or ["as it was"]
        operation = random.choice([*(ACCESSES if sgx1 else OPERATIONS)])
        story = Story(machine, tuple(histories), tuple(areas), operation)
        pairs = ((history, area) for history in histories for area in areas)
        if all(possible(Case(machine, *pair, operation)) for pair in pairs):
            return story


def taken(story: Story) -> str:
    """Take the advice; returns what was wrong with it, or ""."""
    try:
        check(cast(Any, story))
    except NotTold:
        return ""
    except AssertionError as error:
        return str(error)
    return ""
