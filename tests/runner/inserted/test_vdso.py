"""The vDSO function, natively, against its contract; this test plays what its ENCLU leads to."""

from collections.abc import Callable, Sequence
from errno import EINVAL
from random import Random

import pytest

from softsgx.spec.leaves import EENTER, ERESUME
from softsgx.spec.registers import (
    R8,
    RAX,
    RBX,
    RCX,
    RDI,
    RDX,
    REGISTER_NAMES,
    RFLAGS,
    RIP,
    RSI,
    RSP,
)
from tests.runner.inserted.harness import AEP, LOOP, VDSO_IMAGE, Answer, Harness, Run

RBX_KEPT, RBP_KEPT = 0x1122334455667788, 0x99AABBCCDDEEFF00
R9 = R8 + 1
DF = 0x400
RANDOM = Random(7)
ARGUMENTS = [RANDOM.getrandbits(64) for _ in range(6)]
RDI_SENT, RSI_SENT, RDX_SENT, _, R8_SENT, R9_SENT = ARGUMENTS


Call = Callable[..., Callable[[], Answer]]
RUN = Run()


def arguments(leaf: int) -> list[int]:
    # The function must ignore the upper half of RCX.
    return [*ARGUMENTS[:3], leaf | 0x5A5A_5A5A << 32, *ARGUMENTS[4:]]


def next_entry(harness: Harness) -> list[int]:
    return list(harness.mailboxes.boxes[harness.request()].registers)


def eexit(harness: Harness, registers: list[int], **changed: int) -> None:
    """The enclave leaves by EEXIT to the RCX that it got, with some registers changed."""
    for name, value in changed.items():
        registers[REGISTER_NAMES.index(name.upper())] = value
    registers[RAX], registers[RIP] = 4, registers[RCX] + 3
    mailbox = harness.mailboxes.control.find(harness.process.pid)
    assert mailbox is not None
    harness.mailboxes.reply(mailbox, registers)


def fix_up(harness: Harness, registers: list[int], leaf: int, vector: int = 14) -> None:
    """What the kernel does with an exception at the ENCLU; EAX is the leaf that would be next."""
    registers[RAX] = leaf
    registers[RDI], registers[RSI], registers[RDX] = vector, 0x8007, 0x7F00_0000_3000
    registers[RIP] = VDSO_IMAGE.exception
    mailbox = harness.mailboxes.control.find(harness.process.pid)
    assert mailbox is not None
    harness.mailboxes.reply(mailbox, registers)


@pytest.fixture
def call(harness: Harness) -> Call:
    harness.insert()

    def begin(
        leaf: int = EENTER, run: Run = RUN, answers: Sequence[int] | None = None
    ) -> Callable[[], Answer]:
        return harness.call(arguments(leaf), run, answers)

    return begin


def assert_frame_kept(answer: Answer) -> None:
    assert (answer.rbx, answer.rbp) == (RBX_KEPT, RBP_KEPT)


@pytest.mark.parametrize("leaf", [EENTER, ERESUME])
def test_registers_of_the_entry(harness: Harness, call: Call, leaf: int) -> None:
    collect = call(leaf, Run(tcs=0xABCD_E000))
    registers = next_entry(harness)
    assert registers[RAX] == leaf
    assert registers[RBX] == 0xABCD_E000
    assert registers[RCX] == registers[RIP] == AEP
    passed = [registers[i] for i in (RDI, RSI, RDX, R8, R9)]
    assert passed == [RDI_SENT, RSI_SENT, RDX_SENT, R8_SENT, R9_SENT]
    eexit(harness, registers, rdi=1, rsi=2, rdx=3)
    answer = collect()
    assert answer.result == 0
    assert answer.run == Run(tcs=0xABCD_E000, function=4)
    assert_frame_kept(answer)


@pytest.mark.parametrize("leaf", [0, 1, 4, 5, 0x8000_0002, 0xFFFF_FFFF])
def test_other_leaves_are_refused_before_run_is_read(
    harness: Harness, call: Call, leaf: int
) -> None:
    answer = call(leaf, Run(tcs=1, function=77, reserved=b"\1" * 216))()
    assert answer.result == -EINVAL
    assert answer.run == Run(tcs=1, function=77, reserved=b"\1" * 216)
    assert_frame_kept(answer)


@pytest.mark.parametrize("byte", [0, 7, 8, 100, 208, 215])
def test_every_reserved_byte_must_be_zero(harness: Harness, call: Call, byte: int) -> None:
    run = Run(reserved=bytes(byte) + b"\x80" + bytes(215 - byte), user_data=5)
    answer = call(EENTER, run)()
    assert (answer.result, answer.run) == (-EINVAL, run)
    assert_frame_kept(answer)


def test_the_aep_is_an_enclu_to_run_again(harness: Harness, call: Call) -> None:
    """After an interrupt the processor resumes at the AEP, EAX = ERESUME: still the same call."""
    collect = call()
    registers = next_entry(harness)
    registers[RAX], registers[RIP] = ERESUME, AEP
    harness.mailboxes.reply(harness.insert(), registers)
    again = next_entry(harness)
    assert again == registers
    eexit(harness, again)
    assert collect().run.function == 4


@pytest.mark.parametrize("leaf", [EENTER, ERESUME])
def test_an_exception_is_reported_and_returns_0(harness: Harness, call: Call, leaf: int) -> None:
    collect = call(EENTER)
    fix_up(harness, next_entry(harness), leaf)
    answer = collect()
    assert answer.result == 0
    expected = Run(function=leaf, vector=14, error_code=0x8007, addr=0x7F00_0000_3000)
    assert answer.run == expected
    assert_frame_kept(answer)


def test_stale_exception_fields_survive_an_eexit(harness: Harness, call: Call) -> None:
    collect = call(EENTER, Run(vector=13, error_code=9, addr=8))
    eexit(harness, next_entry(harness))
    assert collect().run == Run(function=4, vector=13, error_code=9, addr=8)


@pytest.mark.parametrize("answer_of_handler", [0, -1, -(1 << 31), -22])
def test_a_handler_sees_the_exit_and_its_answer_is_returned(
    harness: Harness, call: Call, answer_of_handler: int
) -> None:
    collect = call(EENTER, Run(user_data=0xDEAD), [answer_of_handler])
    registers = next_entry(harness)
    # The enclave has left 24 bytes on the stack, an odd number of words, and DF set.
    registers[RSP] -= 24
    registers[RFLAGS] |= DF
    eexit(harness, registers, rdi=11, rsi=22, rdx=33, r8=44, r9=55)
    answer = collect()
    (seen,) = answer.seen
    assert (seen.rdi, seen.rsi, seen.rdx, seen.r8, seen.r9) == (11, 22, 33, 44, 55)
    assert seen.rsp == registers[RSP]
    assert seen.run_matches == 1
    assert seen.frame % 16 == 0, "the stack argument of a call is aligned"
    assert not seen.rflags & DF
    assert answer.result == answer_of_handler
    assert answer.run.function == 4
    assert answer.run.user_data == 0xDEAD
    # RBX comes from where the enclave left RSP; RBP from the frame.
    assert answer.rbp == RBP_KEPT
    assert answer.rbx != RBX_KEPT


def test_a_handler_may_enter_again(harness: Harness, call: Call) -> None:
    collect = call(EENTER, Run(), [ERESUME, EENTER, 0])
    fix_up(harness, next_entry(harness), ERESUME, vector=6)
    second = next_entry(harness)
    assert (second[RAX], second[RBX], second[RCX]) == (ERESUME, 0x1000, AEP)
    # No register that goes through is restored: these are what the handler left.
    eexit(harness, second, rdi=1)
    third = next_entry(harness)
    assert third[RAX] == EENTER
    assert third[RSP] == second[RSP], "nothing stays on the stack"
    eexit(harness, third, rdi=2)
    answer = collect()
    assert [seen.rdi for seen in answer.seen] == [6, 1, 2]
    assert answer.result == 0
    assert_frame_kept(answer)


@pytest.mark.parametrize("leaf", [1, 4, 5, 0x7FFF_FFFF])
def test_a_handler_that_asks_for_another_leaf_is_refused(
    harness: Harness, call: Call, leaf: int
) -> None:
    collect = call(EENTER, Run(), [leaf])
    eexit(harness, next_entry(harness))
    answer = collect()
    assert answer.result == -EINVAL
    assert_frame_kept(answer)


def test_two_threads_have_their_own_requests(harness: Harness) -> None:
    """Both inside at once, answered in the other order."""
    harness.write(b"l", (2).to_bytes(8, "little"), (1).to_bytes(8, "little"))
    tids = [int.from_bytes(harness.read(8), "little") for _ in range(2)]
    boxes = {harness.mailboxes.control.insert(tid): tid for tid in tids}
    assert len(boxes) == 2
    harness.write(b"x")
    waiting: list[int] = []
    while len(waiting) < 2:
        waiting += harness.requests()
    assert sorted(waiting) == sorted(box for box in boxes if box is not None)
    for mailbox in reversed(waiting):
        registers = list(harness.mailboxes.boxes[mailbox].registers)
        assert registers[RBX] == 0x1000 * registers[RSI]
        registers[RDI] += registers[RSI]
        registers[RIP] += 3
        harness.mailboxes.reply(mailbox, registers)
    for _ in range(2):
        _, _, _, wrong, _ = LOOP.unpack(harness.read(LOOP.size))
        assert wrong == 0
