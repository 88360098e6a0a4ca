"""Threads that enter without asking: the states of a slot, and stops on the way in."""

from __future__ import annotations

import os
import signal
from threading import Timer
from types import SimpleNamespace
from typing import cast

import pytest

from softsgx.runner.host import ptrace as p
from softsgx.runner.inserted.layout import SLOT_STRIDE
from softsgx.runner.native import armed as na
from softsgx.runner.native.slots import ARMED, CLAIMED, LEAVING, SLOT_AT, UNARMED, Again, Slots
from softsgx.runner.native.state import Inside
from softsgx.runner.process.tracee import Tracee
from softsgx.spec.epcm import BLOCKED
from softsgx.spec.leaves import EENTER, ERESUME
from softsgx.spec.registers import RDI, RIP
from tests.cpu.thread import Thread, thread

AEP = 0x1137
AGAIN = Again(0x1000, 0x2000, 0, (0x3000, 0x4000), 0x5000, 0x6000)


@pytest.fixture
def slots() -> Slots:
    return Slots()


def claim(slots: Slots, slot: int) -> None:
    """As native.s does."""
    slots._set_word(slot, "ARM", CLAIMED)


def test_a_thread_that_is_disarmed_has_not_entered(slots: Slots) -> None:
    slot = slots.take()
    assert slot
    slots.arm(slot, 77, AGAIN, [])
    slots.rearm(slot)
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
    slots._files[0].words[at] = LEAVING
    Timer(0.05, slots._files[0].words.__setitem__, (at, ARMED)).start()
    assert slots.disarm(slot)
    assert slots.armed(slot) == UNARMED


def test_the_tid_of_a_thread_that_is_gone_is_forgotten(slots: Slots) -> None:
    slot = slots.take()
    assert slot
    at = 77 * 16
    slots.arm(slot, 77, AGAIN, [])
    assert int.from_bytes(slots._files[0].view[at : at + 8], "little") == 77
    slots.forget(78, None)
    assert int.from_bytes(slots._files[0].view[at : at + 8], "little") == 77
    slots.forget(77, None)
    assert not any(slots._files[0].view[at : at + 16])


class Fake:
    """In place of a Tracee."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


class Armable:
    """A thread of the model with two SSA frames, and what `Armed` needs of its process."""

    def __init__(self, slots: Slots) -> None:
        self.thread: Thread = thread(frames=2)
        epc = self.thread.bare.processor.epc
        memory = SimpleNamespace(first=epc.first, touched=bytearray(epc.pages))
        self.calls = 0  # system calls that the thread had to make
        fake = Fake(
            tid=77,
            lp=self.thread.lp,
            space="space",
            world=SimpleNamespace(memory=memory),
            inside=False,
            inject=self._inject,
            runs_inside=lambda inside: None,
            native_slot=lambda address: None,
        )
        self.t = cast(Tracee, fake)
        self.slots = slots
        self.armed = na.Armed(slots, AEP)
        slot = slots.take()
        assert slot
        self.state = Inside(self.t, slot, lambda state: None)

    def _inject(self, *_arguments: int) -> int:
        self.calls += 1
        return 0

    def call(self, cssa: int = 0) -> bool:
        """Enter and leave by EEXIT; whether the thread is armed for the same again."""
        self.thread.enter()
        rip = self.thread.lp.regs[RIP]
        self.thread.exit()
        return self._arm(cssa, rip)

    def interrupted(self) -> bool:
        """Enter and leave by an AEX; whether the thread is armed for the entry of a handler."""
        self.thread.enter()
        self.thread.lp.interrupt()
        return self._arm(1)

    def _arm(self, cssa: int, rip: int = -1) -> bool:
        self.armed.settle()
        self.armed.arm(self.t, self.state, self.thread.tcs_address, self.thread.rcx, rip)
        arm = self.state.arm
        assert (arm is not None) == (self.t in self.armed.threads)
        assert arm is None or arm.cssa == cssa
        return arm is not None


@pytest.fixture
def armable(slots: Slots) -> Armable:
    return Armable(slots)


def test_a_thread_is_armed_for_an_entry_that_it_has_made(armable: Armable) -> None:
    assert armable.call()
    assert armable.call()
    assert armable.calls == 1  # the page where EENTER stores RSP is writable from then on


def test_after_an_aex_it_is_armed_for_the_handler_if_that_has_entered_before(
    armable: Armable,
) -> None:
    assert not armable.interrupted()
    assert armable.call(cssa=1)
    armable.thread.resume()
    armable.thread.exit()
    calls = armable.calls
    assert armable.interrupted()
    assert armable.calls == calls  # it may stand where it must not make one


def test_after_an_aex_it_makes_no_system_call(armable: Armable) -> None:
    """It may stand at a system call, which one of the supervisor's would end."""
    armable.thread.enter()
    armable.thread.lp.interrupt()
    armable.thread.enter()
    armable.thread.exit()
    armable.thread.resume()
    armable.thread.exit()
    assert not armable.interrupted()
    assert not armable.calls


def test_it_is_not_armed_once_what_eenter_tests_has_changed(armable: Armable) -> None:
    assert armable.call()
    armable.thread.enter()
    armable.thread.exit()
    processor = armable.thread.bare.processor
    page = armable.thread.tcs_page
    word = processor.epcm.state[page]
    processor.epcm.put(page, word | BLOCKED)
    assert not armable._arm(0)
    processor.epcm.put(page, word)
    assert armable.call()


def test_it_is_not_armed_while_anyone_listens(armable: Armable) -> None:
    """Events of its entries would be missing."""
    with armable.thread.bare.processor.log.record():
        assert not armable.call()
    assert armable.call()


class Held:
    """In place of a `HeldThread`; `asked` are its requests."""

    def __init__(self, *, reports: bool = True) -> None:
        self.reports = reports
        self.asked: list[int] = []

    def request(self, what: int, _data: int) -> int:
        """As Held.request."""
        self.asked.append(what)
        return 0

    def runs_inside(self, inside: bool) -> None:
        """As Held.runs_inside."""

    def stopped(self) -> bool:
        """As Held.stopped."""
        return self.reports


@pytest.fixture
def inside(armable: Armable, monkeypatch: pytest.MonkeyPatch) -> Armable:
    """A thread inside that may leave by itself."""
    monkeypatch.setitem(p.HELD, 77, cast(p.Held, Held()))
    assert armable.call()
    armable.armed.settle()
    armable.thread.enter()
    armable.t.inside = armable.state.running = True
    assert armable.armed.let_leave(armable.t, armable.state, None)
    return armable


def exits(slots: Slots, slot: int, *, enters: bool) -> None:
    """As the stub does at an EEXIT that it knows, and perhaps at the EENTER after it."""
    at = slot * SLOT_STRIDE
    slots._files[0].words[(at + SLOT_AT["SERVED"]) // 4] += 1
    slots._files[0].words[(at + SLOT_AT["KEPT"]) // 4] = enters
    slots._files[0].words[(at + SLOT_AT["ARM"]) // 4] = CLAIMED if enters else ARMED


def test_a_thread_that_may_leave_but_has_not_is_inside(inside: Armable) -> None:
    inside.armed.look(inside.t)
    assert inside.thread.lp.enclave_mode
    assert inside.t.inside
    assert inside.slots.armed(inside.state.slot) == UNARMED
    assert not inside.slots.kept(inside.state.slot)


def test_a_thread_that_has_stayed_asks_until_it_has_left(inside: Armable) -> None:
    """One that accepts page after page pays for each permission, and uses none."""
    inside.armed.look(inside.t)
    assert not inside.armed.let_leave(inside.t, inside.state, None)
    rip = inside.thread.lp.regs[RIP]
    inside.thread.exit()
    assert inside._arm(0, rip)
    inside.armed.settle()
    inside.thread.enter()
    assert inside.armed.let_leave(inside.t, inside.state, None)


def test_a_thread_that_has_left_by_itself_is_outside_in_the_model(inside: Armable) -> None:
    exits(inside.slots, inside.state.slot, enters=False)
    inside.armed.look(inside.t)
    assert not inside.thread.lp.enclave_mode
    assert not inside.t.inside
    assert not inside.state.running
    assert inside.slots.armed(inside.state.slot) == UNARMED


def test_a_thread_that_has_left_and_entered_is_inside_by_its_new_entry(inside: Armable) -> None:
    before = inside.thread.lp.regs[:]
    inside.thread.lp.regs[RDI] += 1  # what it has in registers now, is of its new entry
    exits(inside.slots, inside.state.slot, enters=True)
    inside.armed.settle()
    assert inside.thread.lp.enclave_mode
    assert inside.t.inside
    assert inside.state.running
    assert inside.thread.lp.regs[RDI] == 0  # HOST of the slot
    assert inside.thread.lp.regs[RIP] == before[RIP]


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_a_thread_that_enters_no_further_is_not_waited_for(
    inside: Armable, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It had claimed its slot and kept nothing there, when it was killed, or stopped by SIGSTOP.

    The supervisor waited long, and then killed its process. One that was gone by then was an error,
    which left another thread, whose stop was being served, where it was.
    """
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGSTOP if way == "stopped" else signal.SIGKILL)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    inside.t.tid = inside.t.pid = child
    held = Held(reports=False)
    monkeypatch.setitem(p.HELD, child, cast(p.Held, held))
    exits(inside.slots, inside.state.slot, enters=True)
    at = inside.state.slot * SLOT_STRIDE + SLOT_AT["KEPT"]
    inside.slots._files[0].words[at // 4] = 0
    yields: list[None] = []
    monkeypatch.setattr("os.sched_yield", lambda: yields.append(None))
    inside.armed.settle()
    assert not inside.state.running
    assert not yields
    assert held.asked == [p.PTRACE_INTERRUPT]  # before its next instruction, if there is one
    if way == "stopped":
        os.kill(child, signal.SIGCONT)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("bases", [(1, 2), None])
def test_native_code_has_room_for_the_bases_of_one_entry(
    inside: Armable, bases: tuple[int, int] | None
) -> None:
    """It loads those of the slot on the way in, and a thread that has left enters with them."""
    inside.armed.look(inside.t)
    inside.state.stayed = False
    assert inside.armed.let_leave(inside.t, inside.state, bases) == (bases is None)


def test_a_thread_may_not_leave_by_itself_once_its_next_entry_may_be_refused(
    inside: Armable,
) -> None:
    inside.armed.look(inside.t)
    inside.state.stayed = False
    processor = inside.thread.bare.processor
    page = inside.thread.tcs_page
    processor.epcm.put(page, processor.epcm.state[page] | BLOCKED)
    assert not inside.armed.let_leave(inside.t, inside.state, None)


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
