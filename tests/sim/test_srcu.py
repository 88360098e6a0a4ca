"""Srcu: synchronize() waits for readers that began before, and for no others."""

import pytest

from softsgx.sim import Srcu, Steps, run
from tests.sim.builders import at, follow


def reads(srcu: Srcu, trace: list[str], name: str) -> Steps[None]:
    with (yield from srcu.read_lock()):
        trace.append(f"{name} begins")
        yield at("p")
        trace.append(f"{name} ends")


def synchronizes(srcu: Srcu, trace: list[str]) -> Steps[None]:
    yield from srcu.synchronize()
    trace.append("grace")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # B begins before, C after: only B is waited for.
        ("1:bacba", "B begins, C begins, B ends, grace, C ends"),
        # Both begin before.
        ("1:bcab", "B begins, C begins, B ends, C ends, grace"),
        # Neither does.
        ("1:a", "grace, B begins, B ends, C begins, C ends"),
    ],
)
def test_synchronize_waits_for_earlier_readers_only(schedule: str, expected: str) -> None:
    srcu, trace = Srcu("encl->srcu"), list[str]()
    bodies = synchronizes(srcu, trace), reads(srcu, trace, "B"), reads(srcu, trace, "C")
    follow(schedule, *bodies).run()
    assert ", ".join(trace) == expected
    assert srcu.idle


def test_readings_nest() -> None:
    srcu = Srcu("encl->srcu")

    def body() -> Steps[None]:
        with (yield from srcu.read_lock()), (yield from srcu.read_lock()):
            pass

    run(body())
    assert srcu.idle


def test_a_reader_must_not_synchronize() -> None:
    srcu = Srcu("encl->srcu")

    def body() -> Steps[None]:
        with (yield from srcu.read_lock()):
            yield from srcu.synchronize()

    with pytest.raises(AssertionError, match="a 'main' synchronizes 'encl->srcu', which it reads"):
        run(body())


def test_a_reading_ends_once() -> None:
    srcu = Srcu("encl->srcu")

    def body() -> Steps[None]:
        reader = yield from srcu.read_lock()
        srcu.read_unlock(reader)
        srcu.read_unlock(reader)

    with pytest.raises(AssertionError, match="second read_unlock"):
        run(body())
