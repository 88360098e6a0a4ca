"""A signal may stop a thread at every instruction of the stub: back, or forward, from each."""

import os
import signal
from random import Random
from typing import Final

import pytest

from softsgx.runner.inserted.box import IDLE, REPLY, REQUEST, TAKEN
from softsgx.runner.inserted.layout import STUB
from softsgx.runner.inserted.stub import (
    INT80,
    INT80_DONE,
    LABELS,
    Phase,
    rolled_back,
    rolled_forward,
    where,
)
from softsgx.spec.registers import RAX, RFLAGS, RIP, RSP
from tests.runner.inserted.harness import STACK, STACK_SIZE, Harness, State, random_state, same_fx
from tests.runner.inserted.tracing import Traced

RSP_SENT: Final = STACK + 4096
NOWHERE: Final = 0x1234_5000_0000
# Set by single steps, and stored with the flags by PUSHFQ.
TF: Final = 0x100
FLAGS: Final = 0x202 | 0x8D5


def same_registers(one: tuple[int, ...] | list[int], other: tuple[int, ...] | list[int]) -> bool:
    flags = one[RFLAGS] & ~TF == other[RFLAGS] & ~TF
    return flags and [*one[:RFLAGS], one[RIP]] == [*other[:RFLAGS], other[RIP]]


class Stepped:
    """A thread that was sent into the stub, stopped before its first instruction there."""

    def __init__(self, harness: Harness, traced: Traced, seed: int) -> None:
        random = Random(seed)
        self.harness, self.traced = harness, traced
        self.sent = random_state(random, RSP_SENT, rip=STUB, flags=FLAGS)
        self.reply = random_state(random, NOWHERE, rip=harness.landing, flags=0x202)
        self.mailbox = harness.mailboxes.control.find(harness.process.pid)
        harness.enter(self.sent, b"t")
        assert traced.stopped() == signal.SIGTRAP
        while traced.registers[RIP] != STUB:
            traced.step()

    def answer(self) -> bool:
        """Reply to a request, if there is one."""
        control = self.harness.mailboxes.control
        if self.mailbox is None or control.take() != [self.mailbox]:
            return False
        self.harness.mailboxes.reply(self.mailbox, self.reply.registers, self.reply.fx)
        return True

    def expect_landing(self) -> None:
        """Let it run, and see it land with the reply and the red zone of its stack untouched."""
        self.traced.cont()
        if not self.answered:
            assert self.harness.request() == self.mailbox
            assert self.mailbox is not None
            box = self.harness.mailboxes.boxes[self.mailbox]
            assert same_registers(box.registers, (*self.sent.registers[:RIP], box.registers[RIP]))
            assert same_fx(box.fx, self.sent.fx)
            self.harness.mailboxes.reply(self.mailbox, self.reply.registers, self.reply.fx)
        got, stack = self.harness.landed()
        assert same_registers((*got.registers[:RIP], 0), (*self.reply.registers[:RIP], 0))
        assert same_fx(got.fx, self.reply.fx)
        red_zone = RSP_SENT - 128 - STACK
        assert stack[red_zone:] == b"\xa5" * (STACK_SIZE - red_zone)

    answered = False

    def step(self) -> Phase | None:
        """One instruction; a request is answered at once, so that nothing sleeps."""
        self.traced.step()
        self.answered = self.answer() or self.answered
        place = where(self.traced.registers[RIP])
        return None if place is None else place.phase


@pytest.fixture
def traced(harness: Harness) -> Traced:
    return Traced(harness.process.pid)


def test_from_every_instruction_to_the_reply(harness: Harness, traced: Traced) -> None:
    """Interrupt after n steps, for every n: what the handler would see, and that all goes on."""
    harness.mailboxes.control.aep = STUB
    mailbox = harness.insert()
    control = harness.mailboxes.control
    seen: list[Phase] = []
    for steps in range(1000):
        thread = Stepped(harness, traced, steps)
        phase: Phase | None = Phase.ARRIVE
        for _ in range(steps):
            phase = thread.step()
        if phase is None:
            break
        seen.append(phase)
        registers = traced.registers
        if phase is Phase.ARRIVE:
            assert not thread.answered
            assert control.state(mailbox) == IDLE
            back = rolled_back(registers, traced.read, STUB)
            assert same_registers(back, thread.sent.registers)
            traced.registers = [*back[:RFLAGS], back[RFLAGS] & ~TF, back[RIP]]
        else:
            assert thread.answered
            assert control.state(mailbox) == (REPLY if phase is Phase.WAIT else IDLE) or (
                registers[RIP] == LABELS["reply"]
            )
            forward = rolled_forward(harness.mailboxes.boxes[mailbox])
            assert forward == thread.reply.registers
            place = where(registers[RIP])
            assert place is not None
            assert place.mailbox in (None, mailbox)
            if phase is Phase.WAIT and steps % 2:
                # What a signal that is swallowed leaves: it goes on by itself. Single steps over
                # SYSCALL leave TF set, which no other stop does.
                traced.registers = [*registers[:RFLAGS], registers[RFLAGS] & ~TF, registers[RIP]]
            else:
                control.set_state(mailbox, IDLE)
                traced.registers = forward
                traced.load_fx(harness.mailboxes.boxes[mailbox].fx)
        thread.expect_landing()
    else:
        raise AssertionError("never left the stub")
    assert sorted(set(seen), key=seen.index) == [Phase.ARRIVE, Phase.WAIT, Phase.DEPART]
    assert seen == sorted(seen, key=[Phase.ARRIVE, Phase.WAIT, Phase.DEPART].index)
    assert len(seen) > 60


def test_a_reply_before_any_instruction_is_seen(harness: Harness, traced: Traced) -> None:
    """Up to the system call that sleeps, which must not sleep: nothing would wake it."""
    harness.mailboxes.control.aep = STUB
    mailbox = harness.insert()
    last = 0
    for steps in range(1000):
        thread = Stepped(harness, traced, steps)
        while traced.registers[RIP] != LABELS["published"]:
            traced.step()
        for _ in range(steps):
            traced.step()
        registers = traced.registers
        last = registers[RIP]
        traced.registers = [*registers[:RFLAGS], registers[RFLAGS] & ~TF, last]
        harness.mailboxes.control.take()
        harness.mailboxes.reply(mailbox, thread.reply.registers, thread.reply.fx)
        thread.answered = True
        thread.expect_landing()
        if last > LABELS["sleep"] and traced.read(last, 2) == b"\x0f\x05":
            break
    assert LABELS["sleep"] < last < LABELS["reply"]
    assert steps > 10


def test_from_every_instruction_to_int80(harness: Harness, traced: Traced) -> None:
    """No mailbox: back from everywhere, INT80 with everything in place, and on from there."""
    harness.mailboxes.control.aep = STUB
    thread = Stepped(harness, traced, 1)
    phases = []
    while traced.registers[RIP] != INT80:
        back = rolled_back(traced.registers, traced.read, STUB)
        assert same_registers(back, thread.sent.registers)
        phases.append(thread.step())
    assert set(phases[:-1]) == {Phase.ARRIVE}
    assert phases[-1] is Phase.TRAP
    at_int80 = traced.registers
    assert same_registers([*at_int80[:RIP], STUB], thread.sent.registers)
    assert same_registers(rolled_back(at_int80, traced.read, STUB), thread.sent.registers)
    place = where(INT80_DONE)
    assert place is not None
    assert place.phase is Phase.TRAP
    # A mailbox from now on, and once more.
    thread.mailbox = harness.insert()
    traced.registers = thread.sent.registers
    thread.expect_landing()


def test_a_thread_without_a_stack_faults_where_it_can_be_rolled_back(
    harness: Harness, traced: Traced
) -> None:
    harness.insert()
    sent = random_state(Random(6), NOWHERE, rip=STUB, flags=FLAGS)
    harness.enter(sent)
    assert traced.stopped() == signal.SIGSEGV
    assert rolled_back(traced.registers, traced.read, STUB) == sent.registers


def test_a_signal_ends_the_sleep_and_finds_the_request(harness: Harness, traced: Traced) -> None:
    """The thread sleeps in the kernel; a signal stops it there at once."""
    harness.mailboxes.control.aep = STUB
    mailbox = harness.insert()
    control, box = harness.mailboxes.control, harness.mailboxes.boxes[mailbox]
    sent = random_state(Random(3), RSP_SENT, rip=STUB, flags=FLAGS)
    harness.enter(sent)
    assert harness.request() == mailbox
    assert control.state(mailbox) == TAKEN
    # Swallowed: the wait goes on.
    os.kill(harness.process.pid, signal.SIGUSR1)
    assert traced.stopped() == signal.SIGUSR1
    place = where(traced.registers[RIP])
    assert place is not None
    assert place.phase is Phase.WAIT
    traced.cont()
    # Once more: this request is withdrawn, as if the thread had never come here.
    os.kill(harness.process.pid, signal.SIGUSR1)
    assert traced.stopped() == signal.SIGUSR1
    assert control.state(mailbox) == TAKEN
    traced.registers = box.registers
    control.set_state(mailbox, IDLE)
    traced.cont()
    assert harness.request() == mailbox
    assert box.registers == (*sent.registers[:RIP], STUB)
    # Once more, after the reply: forward.
    os.kill(harness.process.pid, signal.SIGUSR1)
    assert traced.stopped() == signal.SIGUSR1
    reply = State((*(0x1000 + i for i in range(18)),), sent.fx).registers
    reply = (*reply[:RSP], NOWHERE, *reply[RSP + 1 : RFLAGS], 0x202, harness.landing)
    harness.mailboxes.reply(mailbox, reply)
    traced.registers = rolled_forward(box)
    control.set_state(mailbox, IDLE)
    traced.cont()
    got, _ = harness.landed()
    assert got.registers[:RIP] == reply[:RIP]


def test_a_wait_of_which_the_signal_is_swallowed_still_ends(
    harness: Harness, traced: Traced
) -> None:
    harness.insert()
    sent = random_state(Random(4), RSP_SENT, rip=STUB)
    harness.enter(sent)
    mailbox = harness.request()
    for _ in range(3):
        os.kill(harness.process.pid, signal.SIGUSR1)
        assert traced.stopped() == signal.SIGUSR1
        traced.cont()
    assert harness.mailboxes.control.state(mailbox) != REQUEST
    reply = random_state(Random(5), NOWHERE, rip=harness.landing)
    harness.mailboxes.reply(mailbox, reply.registers, reply.fx)
    got, _ = harness.landed()
    assert got.registers[RAX] == reply.registers[RAX]
