"""Threads that enter without asking: the states of a slot, and stops on the way in."""

from threading import Timer

import pytest

from softsgx.runner.host import ptrace as p
from softsgx.runner.inserted.layout import SLOT_STRIDE
from softsgx.runner.native import armed as na
from softsgx.runner.native.slots import ARMED, CLAIMED, LEAVING, SLOT_AT, UNARMED, Again, Slots
from softsgx.spec.leaves import EENTER, ERESUME

AEP = 0x1137
AGAIN = Again(0x1000, 0x2000, 0, (0x3000, 0x4000), 0x5000, 0x6000)


@pytest.fixture
def slots() -> Slots:
    return Slots()


def claim(slots: Slots, slot: int) -> None:
    """As native.s does."""
    slots._words[(slot * SLOT_STRIDE + SLOT_AT["ARM"]) // 4] = CLAIMED


def test_a_thread_that_is_disarmed_has_not_entered(slots: Slots) -> None:
    slot = slots.take()
    assert slot
    slots.arm(slot, 77, AGAIN, [])
    assert slots.armed(slot) == ARMED
    assert slots.disarm(slot)
    assert slots.armed(slot) == UNARMED


def test_a_thread_that_has_claimed_is_taken_over(slots: Slots) -> None:
    slot = slots.take()
    assert slot
    slots.arm(slot, 77, AGAIN, [])
    claim(slots, slot)
    assert not slots.disarm(slot)
    assert slots.armed(slot) == UNARMED


def test_an_exit_that_the_stub_carries_out_is_waited_for(slots: Slots) -> None:
    """Between CLAIMED and ARMED the stub still writes to the slot."""
    slot = slots.take()
    assert slot
    slots.arm(slot, 77, AGAIN, [])
    at = (slot * SLOT_STRIDE + SLOT_AT["ARM"]) // 4
    slots._words[at] = LEAVING
    Timer(0.05, slots._words.__setitem__, (at, ARMED)).start()
    assert slots.disarm(slot)
    assert slots.armed(slot) == UNARMED


def test_the_tid_of_a_thread_that_is_gone_is_forgotten(slots: Slots) -> None:
    slot = slots.take()
    assert slot
    at = 77 * 16
    slots.arm(slot, 77, AGAIN, [])
    assert int.from_bytes(slots._view[at : at + 8], "little") == 77
    slots.forget(78)
    assert int.from_bytes(slots._view[at : at + 8], "little") == 77
    slots.forget(77)
    assert not any(slots._view[at : at + 16])


@pytest.mark.parametrize(
    ("label", "leaf", "expected"),
    [
        ("arrive", ERESUME, ERESUME),  # it goes to the stub, which knows both leaves
        ("asked", 186, EENTER),
        ("absent", 1, EENTER),
        ("claimed", 1, EENTER),
    ],
)
def test_before_its_registers_are_saved_a_thread_goes_back_to_its_enclu(
    slots: Slots, label: str, leaf: int, expected: int
) -> None:
    regs = list(range(100, 127))
    regs[p.RIP], regs[p.RAX] = na.LABELS[label], leaf
    before = list(regs)
    assert na.Armed(slots, AEP).roll_back(regs)
    assert (regs[p.RIP], regs[p.RAX]) == (AEP, expected)
    assert regs[p.ORIG_RAX] == p.MASK64
    if expected == EENTER:
        assert regs[p.RCX] == AEP
    changed = {n for n in range(27) if regs[n] != before[n]}
    assert changed <= {p.RIP, p.RAX, p.RCX, p.ORIG_RAX}


@pytest.mark.parametrize("label", ["enter", "registers", "saved", "end"])
def test_elsewhere_a_thread_is_left_alone(slots: Slots, label: str) -> None:
    regs = list(range(100, 127))
    regs[p.RIP] = na.LABELS[label]
    before = list(regs)
    assert not na.Armed(slots, AEP).roll_back(regs)
    assert regs == before
