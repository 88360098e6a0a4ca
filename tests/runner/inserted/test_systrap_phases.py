"""A signal may stop a thread at every instruction between the vDSO's ENCLU and the supervisor."""

import signal
import subprocess
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path
from random import Random
from struct import pack_into, unpack_from
from typing import Final

import pytest

from softsgx.runner.inserted import systrap
from softsgx.runner.inserted.box import IDLE, REPLY, REQUEST
from softsgx.runner.inserted.stub import Phase, rolled_back, where
from softsgx.runner.inserted.systrap_layout import (
    RECORD_AT,
    SHARED_AT,
    SYSTRAP_CONTROL,
    SYSTRAP_CONTROL_SIZE,
    SYSTRAP_SHARED_SIZE,
)
from softsgx.runner.inserted.systrap_stub import PHASES
from softsgx.spec.registers import RFLAGS, RIP, RSP
from tests.patience import LIMIT_S
from tests.runner.gcc import needs_gcc
from tests.runner.inserted.harness import State, random_state, same_fx
from tests.runner.inserted.systrapped import compile_here
from tests.runner.inserted.tracing import Traced

pytestmark = needs_gcc

STACK: Final = 0x2000_0000
STACK_SIZE: Final = 8192
RSP_SENT: Final = STACK + 4096
NOWHERE: Final = 0x1234_5000_0000
AEP: Final = 0x7000_1234_5678
MAILBOX: Final = SYSTRAP_CONTROL_SIZE + RECORD_AT["MAILBOX"]
MAILBOX_FX: Final = SYSTRAP_CONTROL_SIZE + RECORD_AT["MAILBOX_FX"]
TF: Final = 0x100
FLAGS: Final = 0x202 | 0x8D5


def _phase(rip: int) -> Phase | None:
    place = where(rip, PHASES)
    return None if place is None else place.phase


def _same(one: tuple[int, ...] | list[int], other: tuple[int, ...] | list[int]) -> bool:
    """But for RIP, and for TF, which single steps set."""
    flags = one[RFLAGS] & ~TF == other[RFLAGS] & ~TF
    return flags and [*one[:RFLAGS]] == [*other[:RFLAGS]]


class Thread:
    """A traced thread of systrap_arrive.c, and its record 0."""

    def __init__(self, process: subprocess.Popen[bytes], shared: mmap) -> None:
        self.process, self.shared = process, shared
        self.traced = Traced(process.pid)
        assert process.stdin is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        assert self.traced.stopped() == signal.SIGTRAP
        self.landing = self.traced.registers[RIP]
        self.sent = self.reply = random_state(Random(0), NOWHERE, rip=0, flags=0)
        pack_into("<Q", shared, SHARED_AT["AEP"], AEP)
        word = SYSTRAP_CONTROL + SHARED_AT["MAIL_STATES"]
        pack_into("<Q", shared, SYSTRAP_CONTROL_SIZE + RECORD_AT["OWN_MAIL_WORD"], word)

    @property
    def state(self) -> int:
        (state,) = unpack_from("<I", self.shared, SHARED_AT["MAIL_STATES"])
        assert isinstance(state, int)
        return state

    @state.setter
    def state(self, value: int) -> None:
        pack_into("<I", self.shared, SHARED_AT["MAIL_STATES"], value)

    @property
    def mailbox(self) -> State:
        fx = bytes(self.shared[MAILBOX_FX : MAILBOX_FX + 512])
        return State(unpack_from("<18Q", self.shared, MAILBOX), fx)

    def send(self, seed: int) -> None:
        """To `arrive`, with random registers."""
        random = Random(seed)
        self.sent = random_state(random, RSP_SENT, rip=systrap.address("arrive"), flags=FLAGS)
        self.reply = random_state(random, NOWHERE, rip=self.landing, flags=0x202)
        self.traced.registers = [*self.sent.registers]
        self.traced.load_fx(self.sent.fx)

    def answer(self) -> bool:
        """Reply to a request, if there is one; the request has what was sent."""
        if self.state != REQUEST:
            return False
        assert _same(self.mailbox.registers, self.sent.registers)
        assert self.mailbox.registers[RIP] == AEP
        assert same_fx(self.mailbox.fx, self.sent.fx)
        pack_into("<18Q", self.shared, MAILBOX, *self.reply.registers)
        self.shared[MAILBOX_FX : MAILBOX_FX + 512] = self.reply.fx
        self.state = REPLY
        return True

    def step_to(self, steps: int) -> Phase | None:
        """So many instructions on; a request is answered at once, so that nothing sleeps."""
        for _ in range(steps):
            self.traced.step()
            self.answer()
        return _phase(self.traced.registers[RIP])

    def land(self) -> None:
        """To the reply: its registers, and the red zone of the stack as it was."""
        while _phase(self.traced.registers[RIP]) is not None:
            self.step_to(1)
        assert _same(self.traced.registers, self.reply.registers)
        assert self.traced.registers[RIP] == self.landing
        assert self.state == IDLE


@pytest.fixture
def thread(tmp_path: Path) -> Iterator[Thread]:
    program = compile_here(tmp_path, "systrap_arrive.c")
    image, records = tmp_path / "image", tmp_path / "records"
    image.write_bytes(systrap.image())
    with records.open("w+b") as file:
        file.truncate(SYSTRAP_SHARED_SIZE)
        shared = mmap(file.fileno(), SYSTRAP_SHARED_SIZE)
    with subprocess.Popen([program, image, records], stdin=subprocess.PIPE) as process:
        try:
            yield Thread(process, shared)
        finally:
            process.kill()


def test_from_every_instruction_back_or_forward(thread: Thread) -> None:
    """Stop after n instructions, for every n; before the request everything can be taken back."""
    seen = []
    for steps in range(1000):
        thread.send(steps)
        found = thread.step_to(steps)
        if found is None:
            break
        seen.append(found)
        registers = thread.traced.registers
        if found is Phase.ARRIVE:
            assert thread.state == IDLE
            back = rolled_back(registers, thread.traced.read, AEP, PHASES)
            assert _same(back, thread.sent.registers)
            assert back[RIP] == AEP
        else:
            assert thread.mailbox.registers == thread.reply.registers
            assert thread.state == REPLY or found is Phase.DEPART
        thread.land()
        red_zone = thread.traced.read(RSP_SENT - 128, 128 + STACK_SIZE - 4096)
        assert red_zone == bytes(len(red_zone))
    assert {*seen} == {Phase.ARRIVE, Phase.WAIT, Phase.DEPART}
    assert seen == sorted(seen, key=[Phase.ARRIVE, Phase.WAIT, Phase.DEPART].index)


def test_a_thread_without_an_answer_dies_with_the_supervisor(thread: Thread) -> None:
    """The kernel marks a word of the robust list of a thread that dies."""
    thread.send(0)
    pack_into("<I", thread.shared, SHARED_AT["OWNER"], 0x4000_0000 | 4711)
    thread.traced.cont()
    assert thread.process.wait(LIMIT_S) == -signal.SIGKILL


def test_a_program_that_uses_gs_traps_with_its_registers(thread: Thread) -> None:
    """From every instruction back, and at the trap nothing has changed."""
    thread.traced.set_gs(0x7000_0000_0000)
    for steps in range(100):
        thread.send(steps)
        thread.step_to(steps)
        registers = thread.traced.registers
        back = rolled_back(registers, thread.traced.read, AEP, PHASES)
        assert _same(back, thread.sent.registers)
        if registers[RIP] == systrap.address("enclu_trap"):
            assert _same(registers, thread.sent.registers)
            assert registers[RSP] == RSP_SENT
            break
    else:
        pytest.fail("no trap")
