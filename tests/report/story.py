"""The events of a short story with a fixed seed: a page is written, restricted, refused, accepted.

The clock stands in for that of the runner: a microsecond an event. Events are numbered as they
come, while the log also counts the model's own steps.
"""

from __future__ import annotations

from functools import cache

from softsgx.sim import (
    Drawn,
    Event,
    LockReleased,
    LockTaken,
    Stepped,
    Steps,
    TaskEnded,
    TaskSpawned,
)
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PR, REG, R
from softsgx.system import EnclaveThread, Machine
from tests.linux.world import world

INTERNAL = (Drawn, LockReleased, LockTaken, Stepped, TaskEnded, TaskSpawned)
Story = tuple[tuple[int, int, Event], ...]


def store(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"x")


def accept(t: EnclaveThread) -> Steps[None]:
    assert (yield from t.eaccept(t.args, REG | PR | R)) == 0


@cache
def story() -> Story:
    """(nanoseconds, number, event), without what the scheduler does."""
    machine = Machine(cpus=1, epc="1M", seed=7)
    log = machine.processor.log
    events: list[tuple[int, int, Event]] = []

    def hear(event: Event) -> None:
        if not isinstance(event, INTERNAL):
            number = len(events) + 1
            events.append((1000 * number, number, event))

    log.subscribe(hear)
    w = world(machine)
    page = w.enclave.data[0]
    w.call(store, page)
    assert w.do(w.enclave.restrict(w.host, page, PAGE_SIZE, R))[0] == 0
    w.fault(store, page)
    w.call(accept, page)
    return tuple(events)


def last_part(count: int = 60) -> Story:
    """The end of the story, short enough to read."""
    return story()[-count:]
