"""__vdso_sgx_enter_enclave: its contract, the user handler, the fix-up.

Linux 6.12, arch/x86/entry/vdso.

Here each ENCLU ends as a script says. In `test_vdso_entry` a processor
executes it.
"""

import pytest

from softsgx.linux.errno import EINVAL
from softsgx.linux.process import Thread
from softsgx.linux.uapi import SgxEnclaveRun
from softsgx.linux.vdso import Exit, UserHandler, fixup_vdso_exception, sgx_enter_enclave
from softsgx.sim import Steps, run
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.leaves import EENTER, EEXIT, ERESUME
from softsgx.system import Machine
from tests.linux.vectors import FIXED_UP

TCS = 0x7F00_0000_1000
STALE = {"exception_vector": 6, "exception_error_code": 0x55, "exception_addr": 0x7777}
PAGE_FAULT = Exit(ERESUME, 14, 0x8007, 0x7F00_0000_5000)


class Script:
    """The ENCLU of the vDSO: ends as the script says; `calls` are the leaves and TCS it got."""

    def __init__(self, *ends: Exit) -> None:
        self.ends = list(ends)
        self.calls: list[tuple[int, int]] = []
        self.thread = Machine().thread().thread

    def enter(self, current: Thread, leaf: int, tcs: int) -> Steps[Exit]:
        self.calls.append((leaf, tcs))
        return self.ends.pop(0)
        yield

    def call(
        self, block: SgxEnclaveRun, leaf: int = EENTER, handler: UserHandler | None = None
    ) -> int:
        """Call the function; R0."""
        return run(sgx_enter_enclave(self.thread, leaf, block, self.enter, handler))


class Handler:
    """A user handler with given answers; `seen` is what it was called with."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.seen: list[Exit] = []

    def __call__(self, current: Thread, block: SgxEnclaveRun, end: Exit) -> Steps[int]:
        self.seen.append(end)
        return self.answers.pop(0)
        yield


@pytest.mark.parametrize(
    ("answer", "expected"), [(1 << 32, 0), (0x8000_0000, -(1 << 31)), (-5 - (1 << 40), -5)]
)
def test_a_handlers_answer_is_an_int(answer: int, expected: int) -> None:
    """The function reads 32 bits, signed."""
    script = Script(PAGE_FAULT)
    assert script.call(SgxEnclaveRun(tcs=TCS), EENTER, Handler(answer)) == expected


# Arguments


@pytest.mark.parametrize("leaf", [0, 1, 4, 5, 0x7FFF_FFFF, 0x8000_0002, 0xFFFF_FFFF], ids=hex)
def test_only_eenter_and_eresume(leaf: int) -> None:
    script, block = Script(), SgxEnclaveRun(tcs=TCS, function=9, **STALE)
    before = block.pack()
    assert script.call(block, leaf, Handler()) == -EINVAL
    assert block.pack() == before
    assert script.calls == []


@pytest.mark.parametrize("leaf", [EENTER, ERESUME])
def test_leaf_is_the_low_half_of_the_register(leaf: int) -> None:
    script = Script(Exit(EEXIT))
    assert script.call(SgxEnclaveRun(tcs=TCS), 0xABCD << 32 | leaf) == 0
    assert script.calls == [(leaf, TCS)]


@pytest.mark.parametrize("offset", range(40, 256))
def test_reserved_bytes_must_be_zero(offset: int) -> None:
    script = Script()
    raw = bytearray(SgxEnclaveRun(tcs=TCS, function=9, **STALE).pack())
    raw[offset] = 1
    block = SgxEnclaveRun.unpack(raw)
    assert script.call(block) == -EINVAL
    assert block.pack() == raw
    assert script.calls == []


# What is returned


@pytest.mark.parametrize("leaf", [EENTER, ERESUME])
def test_eexit_sets_the_function_and_nothing_else(leaf: int) -> None:
    """Exception fields are never cleared: what an earlier call left survives."""
    script, block = Script(Exit(EEXIT)), SgxEnclaveRun(tcs=TCS, user_data=5, **STALE)
    assert script.call(block, leaf) == 0
    assert block == SgxEnclaveRun(tcs=TCS, function=4, user_data=5, **STALE)


def test_exception_returns_zero_too() -> None:
    script, block = Script(PAGE_FAULT), SgxEnclaveRun(tcs=TCS, user_data=5)
    assert script.call(block) == 0
    assert block == SgxEnclaveRun(
        tcs=TCS,
        function=3,
        user_data=5,
        exception_vector=14,
        exception_error_code=0x8007,
        exception_addr=0x7F00_0000_5000,
    )


@pytest.mark.parametrize("function", [EENTER, ERESUME])
def test_function_is_the_leaf_at_the_exception(function: int) -> None:
    block = SgxEnclaveRun(tcs=TCS)
    assert Script(Exit(function, 13)).call(block) == 0
    assert (block.function, block.exception_vector) == (function, 13)


@pytest.mark.parametrize(("vector", "coded"), FIXED_UP.items())
def test_code_and_address_by_vector(vector: int, coded: bool) -> None:
    """Only #PF has an address; a code that is not passed on is written as 0."""
    block = SgxEnclaveRun(tcs=TCS, **STALE)
    assert Script(Exit(ERESUME, vector, 0x18, 0x1234)).call(block) == 0
    assert block.exception_vector == vector
    assert (block.exception_error_code, block.exception_addr) == (0x18 if coded else 0, 0)


@pytest.mark.parametrize("vector", sorted(set(range(32)) - set(FIXED_UP) - {14}))
def test_other_vectors_are_signals_even_at_the_enclu(vector: int) -> None:
    assert fixup_vdso_exception(Machine().thread().thread, vector, 0x18, 0x1234) is None


# The user handler


@pytest.mark.parametrize("end", [Exit(EEXIT), PAGE_FAULT], ids=["EEXIT", "exception"])
@pytest.mark.parametrize("answer", [0, -1, -EINVAL, -(1 << 31)])
def test_handler_ends_the_call(end: Exit, answer: int) -> None:
    script, handler = Script(end), Handler(answer)
    assert script.call(SgxEnclaveRun(tcs=TCS), EENTER, handler) == answer
    assert handler.seen == [end]
    assert len(script.calls) == 1


@pytest.mark.parametrize("answer", [1, 4, 5, 14, (1 << 31) - 1])
def test_other_positive_answers_are_einval(answer: int) -> None:
    script, handler = Script(PAGE_FAULT), Handler(answer)
    assert script.call(SgxEnclaveRun(tcs=TCS), EENTER, handler) == -EINVAL
    assert (len(script.calls), len(handler.seen)) == (1, 1)


@pytest.mark.parametrize("answer", [EENTER, ERESUME])
def test_handler_asks_to_go_on(answer: int) -> None:
    script, handler = Script(PAGE_FAULT, Exit(EEXIT)), Handler(answer, 0)
    block = SgxEnclaveRun(tcs=TCS)
    assert script.call(block, EENTER, handler) == 0
    assert script.calls == [(EENTER, TCS), (answer, TCS)]
    assert handler.seen == [PAGE_FAULT, Exit(EEXIT)]
    assert (block.function, block.exception_vector) == (4, 14), "the old exception is stale"


def test_handler_sees_the_run_structure_filled_in() -> None:
    seen = []

    def handler(current: Thread, block: SgxEnclaveRun, end: Exit) -> Steps[int]:
        seen.append((block.function, block.exception_vector, block.exception_addr))
        return 0
        yield

    Script(PAGE_FAULT).call(SgxEnclaveRun(tcs=TCS), EENTER, handler)
    assert seen == [(3, 14, PAGE_FAULT.address)]


def test_tcs_is_read_again_for_each_entry() -> None:
    def handler(current: Thread, block: SgxEnclaveRun, end: Exit) -> Steps[int]:
        block.tcs += PAGE_SIZE
        return EENTER if len(script.calls) < 3 else 0
        yield

    script = Script(*[Exit(EEXIT)] * 3)
    script.call(SgxEnclaveRun(tcs=TCS), EENTER, handler)
    assert script.calls == [(EENTER, TCS + n * PAGE_SIZE) for n in range(3)]


def test_reserved_bytes_are_tested_again_for_each_entry() -> None:
    def handler(current: Thread, block: SgxEnclaveRun, end: Exit) -> Steps[int]:
        block.reserved = bytes(215) + b"\1"
        return ERESUME
        yield

    script = Script(PAGE_FAULT)
    assert script.call(SgxEnclaveRun(tcs=TCS), EENTER, handler) == -EINVAL
    assert len(script.calls) == 1


def test_handler_may_leave_by_longjmp() -> None:
    class LongJump(Exception):
        pass

    def handler(current: Thread, block: SgxEnclaveRun, end: Exit) -> Steps[int]:
        raise LongJump
        yield

    with pytest.raises(LongJump):
        Script(PAGE_FAULT).call(SgxEnclaveRun(tcs=TCS), EENTER, handler)
