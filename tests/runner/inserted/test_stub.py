"""The stub, natively: every register there and back, and a thread that has no mailbox."""

import os
from itertools import pairwise
from random import Random

import pytest

from softsgx.runner.inserted import layout
from softsgx.runner.inserted.stub import INT80_DONE, PHASES, Phase, stub_image, where
from softsgx.spec.registers import RAX, RIP
from tests.runner.inserted.harness import (
    AEP,
    LOOP,
    STACK,
    STACK_SIZE,
    Harness,
    random_state,
    same_fx,
)
from tests.runner.ringing import ring

# CF, PF, AF, ZF, SF, DF, OF, and the two that are always so in user mode.
FLAGS_ALL = 0x202 | 0xCD5
RSPS = (STACK + 4096, STACK + 4096 + 3, STACK + 4096 - 8)
# Not mapped: a write there faults.
NOWHERE = 0x1234_5000_0000


@pytest.mark.parametrize("rsp", RSPS)
@pytest.mark.parametrize("flags", [0x202, FLAGS_ALL])
@pytest.mark.parametrize("spin", [0, 100_000])
def test_every_register_goes_there_and_back(
    harness: Harness, rsp: int, flags: int, spin: int
) -> None:
    random = Random(rsp ^ flags)
    harness.mailboxes.control.spin = spin
    mailbox = harness.insert()
    sent = random_state(random, rsp, flags=flags)
    harness.enter(sent)
    assert harness.request() == mailbox
    box = harness.mailboxes.boxes[mailbox]
    assert box.registers == (*sent.registers[:RIP], AEP)
    assert same_fx(box.fx, sent.fx)

    reply = random_state(random, NOWHERE, rip=harness.landing, flags=flags ^ 0xCD5)
    harness.mailboxes.reply(mailbox, reply.registers, reply.fx)
    got, stack = harness.landed()
    assert got.registers[:RIP] == reply.registers[:RIP]
    assert same_fx(got.fx, reply.fx)
    red_zone = rsp - 128 - STACK
    assert stack[red_zone:] == b"\xa5" * (STACK_SIZE - red_zone)


@pytest.mark.parametrize("rsp", RSPS)
@pytest.mark.parametrize("flags", [0x202, FLAGS_ALL])
def test_without_a_mailbox_int80_shows_the_registers_of_the_enclu(
    harness: Harness, rsp: int, flags: int
) -> None:
    # A neighbour in the table, and one that went away: neither is this thread.
    harness.mailboxes.control.insert(harness.process.pid + layout.MAILBOXES)
    harness.mailboxes.control.insert(harness.process.pid + 2 * layout.MAILBOXES)
    harness.mailboxes.control.remove(harness.process.pid + layout.MAILBOXES)
    harness.filter()
    sent = random_state(Random(rsp), rsp, flags=flags)
    harness.enter(sent)
    got, stack = harness.landed()
    # The kernel takes EAX for the number of a 32-bit system call, and gives back no more than EAX.
    expected = list(sent.registers)
    expected[RAX] &= 0xFFFF_FFFF
    expected[RIP] = INT80_DONE
    assert got.registers == tuple(expected)
    assert same_fx(got.fx, sent.fx)
    assert stack[rsp - 128 - STACK :] == b"\xa5" * (STACK_SIZE - (rsp - 128 - STACK))
    assert harness.mailboxes.control.doorbell == 0


def test_a_forked_child_has_no_mailbox_until_it_gets_one(harness: Harness) -> None:
    """It shares the memory of its parent's mailbox, but not the tid."""
    harness.insert()
    harness.filter()
    harness.enter(random_state(Random(1), STACK + 4096), b"k")
    got, _ = harness.landed()
    assert got.registers[RIP] == INT80_DONE
    assert harness.mailboxes.control.doorbell == 0


def test_a_full_table_is_searched_once_around(harness: Harness) -> None:
    pid = harness.process.pid
    for i in range(1, layout.MAILBOXES + 1):
        assert harness.mailboxes.control.insert(pid + i) is not None
    assert harness.mailboxes.control.insert(pid) is None
    harness.filter()
    harness.enter(random_state(Random(1), STACK + 4096))
    assert harness.landed()[0].registers[RIP] == INT80_DONE
    harness.mailboxes.control.remove(pid + 3)
    mailbox = harness.insert()
    harness.enter(random_state(Random(1), STACK + 4096))
    assert harness.request() == mailbox == (pid + 3) % layout.MAILBOXES


@pytest.mark.parametrize("mailbox", [0, 1, 128, 255])
def test_every_mailbox_has_code_of_its_own(harness: Harness, mailbox: int) -> None:
    pid = harness.process.pid
    before = (mailbox - pid) % layout.MAILBOXES
    for i in range(before):
        harness.mailboxes.control.insert(pid + layout.MAILBOXES + i)
    assert harness.insert() == mailbox
    sent = random_state(Random(mailbox), STACK + 4096)
    harness.enter(sent)
    assert harness.request() == mailbox
    reply = random_state(Random(2), NOWHERE, rip=harness.landing)
    harness.mailboxes.reply(mailbox, reply.registers)
    got, _ = harness.landed()
    assert got.registers[:RIP] == reply.registers[:RIP]
    assert same_fx(got.fx, sent.fx), "without an image in the reply the request's is loaded"


# Each thread: 50,000 entries. A lost wake-up leaves one of them waiting forever.
@pytest.mark.parametrize(("threads", "spin"), [(2, 0), (1, 20), (3, 1)])
def test_no_wake_up_gets_lost(harness: Harness, threads: int, spin: int) -> None:
    rounds = 50_000 if threads == 2 else 10_000
    mailboxes = harness.mailboxes
    mailboxes.control.spin = spin
    harness.write(b"l", threads.to_bytes(8, "little"), rounds.to_bytes(8, "little"))
    tids = [int.from_bytes(harness.read(8), "little") for _ in range(threads)]
    for tid in tids:
        assert mailboxes.control.insert(tid) is not None
    harness.write(b"x")
    served = 0
    while served < threads * rounds:
        for mailbox in harness.requests():
            registers = list(mailboxes.boxes[mailbox].registers)
            registers[7] += registers[6]
            registers[RIP] += 3
            mailboxes.reply(mailbox, registers)
            served += 1
    for i in range(threads):
        done, number, _, wrong, _ = LOOP.unpack(harness.read(LOOP.size))
        assert (done, number, wrong) == (rounds, i + 1, 0)
    assert mailboxes.control.doorbell == served


def test_ring_ends_a_wait(harness: Harness) -> None:
    ring(harness.mailboxes)
    assert harness.mailboxes.control.doorbell == 1
    assert harness.mailboxes.wait(0.0) == []


def test_a_program_cannot_shrink_what_the_supervisor_reads(harness: Harness) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(harness.mailboxes.fd, 4096)


def test_phases_cover_the_common_code_without_a_gap() -> None:
    assert PHASES[0].start == layout.STUB
    assert all(a.end == b.start for a, b in pairwise(PHASES))
    image = stub_image()
    assert len(image) == layout.STUB_SIZE
    assert not image[PHASES[-1].end - layout.STUB : layout.STUB_BLOCKS - layout.STUB].strip(b"\xcc")
    assert where(layout.STUB - 1) is where(layout.STUB + layout.STUB_SIZE) is None
    assert where(layout.STUB_BLOCKS - 1) is None
    block = where(layout.STUB_BLOCKS + 7 * layout.MAILBOX_STRIDE)
    assert block is not None
    assert block == (7, Phase.DEPART)
    assert where(layout.STUB_BLOCKS - 1 + layout.MAILBOX_STRIDE) is None
