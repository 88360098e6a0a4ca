"""The supervisor's wait: a request that comes at the worst moment is still seen at once."""

from collections.abc import Callable, Iterator

import pytest

from softsgx.runner.host import futex
from softsgx.runner.inserted.box import REQUEST
from softsgx.runner.inserted.mailboxes import Mailboxes
from tests.patience import LIMIT_S
from tests.runner.ringing import ring

Arrive = Callable[[], None]


@pytest.fixture
def mailboxes() -> Iterator[Mailboxes]:
    made = Mailboxes()
    yield made
    made.close()


def arrival(mailboxes: Mailboxes, woken: list[bool]) -> Arrive:
    """What a thread does, once; and whether the supervisor told it to wake it."""

    def arrive() -> None:
        if not woken:
            mailboxes.control.set_state(9, REQUEST)
            ring(mailboxes)
            woken.append(mailboxes.control.sleeping)

    return arrive


@pytest.mark.parametrize("moment", ["after the look", "before the sleep"])
def test_a_request_after_the_look_is_not_slept_over(
    mailboxes: Mailboxes, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    woken: list[bool] = []
    slept: list[bool] = []
    arrive = arrival(mailboxes, woken)
    take, wait = mailboxes.control.take, futex.wait

    def take_then() -> list[int]:
        taken = take()
        if moment == "after the look":
            arrive()
        return taken

    def wait_after(address: int, value: int, timeout: float | None = None) -> None:
        arrive()
        slept.append(value == mailboxes.control.doorbell)
        wait(address, value, 0.0)

    monkeypatch.setattr(mailboxes.control, "take", take_then)
    monkeypatch.setattr(futex, "wait", wait_after)
    assert mailboxes.wait(LIMIT_S) == [9]
    assert slept == [False], "the kernel would have found the old value, and slept"
    assert woken == [moment == "before the sleep"], "and it says when it must be woken"
    assert not mailboxes.control.sleeping


def test_wait_ends_by_itself(mailboxes: Mailboxes) -> None:
    assert mailboxes.wait(0.0) == []
    assert mailboxes.wait(0.001) == []
