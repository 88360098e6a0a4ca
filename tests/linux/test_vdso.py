"""__vdso_sgx_enter_enclave: its contract, the user handler, the fix-up. Linux 6.12, vdso/vsgx.S.

In the first half the ENCLU is a script: how each of them ends is given. In the second half a
processor executes it.
"""

import pytest

from softsgx.linux.errno import EINVAL
from softsgx.linux.process import SIGTRAP, Thread
from softsgx.linux.uapi import SgxEnclaveRun
from softsgx.linux.vdso import Exit, UserHandler, sgx_enter_enclave
from softsgx.sim import Steps, WaitFlag, run
from softsgx.spec import faults
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.leaves import EENTER, EEXIT, ERESUME
from softsgx.system import EnclaveThread, Machine, SignalRaised
from tests.linux.world import World, together, world

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


# Vector -> whether the error code of the hardware is passed on.
FIXED_UP = {0: False, 4: False, 5: False, 6: False, 9: False, 10: True, 11: True}
FIXED_UP |= {12: True, 13: True, 16: False, 17: True, 19: False}


@pytest.mark.parametrize(("vector", "coded"), FIXED_UP.items())
def test_code_and_address_by_vector(vector: int, coded: bool) -> None:
    """Only #PF has an address; what is not passed on is written as 0."""
    block = SgxEnclaveRun(tcs=TCS, **STALE)
    assert Script(Exit(ERESUME, vector, 0x18, 0x1234)).call(block) == 0
    assert block.exception_vector == vector
    assert (block.exception_error_code, block.exception_addr) == (0x18 if coded else 0, 0)


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


# On a processor: EENTER and ERESUME that fail


def nothing(t: EnclaveThread) -> Steps[None]:
    return
    yield


def enter(w: World, tcs: int, leaf: int = EENTER) -> tuple[int, int, int, int]:
    """Function, vector, code, address of a call that returns 0 because of an exception."""
    block = SgxEnclaveRun(tcs=tcs)
    assert w.do(w.host.enter(w.enclave.entry(nothing), block, leaf)) == 0
    exception = block.exception_vector, block.exception_error_code, block.exception_addr
    return block.function, *exception


def test_unaligned_tcs() -> None:
    w = world()
    assert enter(w, w.enclave.tcs[0] + 8) == (2, 13, 0, 0)


@pytest.mark.parametrize("how", ["unmapped", "PROT_NONE"])
def test_tcs_without_access(how: str) -> None:
    w = world()
    tcs = w.enclave.tcs[0]
    if how == "unmapped":
        assert w.do(w.host.munmap(tcs, PAGE_SIZE)) == 0
    else:
        assert w.protect(tcs, 0) == 0
    assert enter(w, tcs) == (2, 14, 0x4, tcs)


def test_page_that_is_no_tcs() -> None:
    w = world()
    assert enter(w, w.enclave.data[0]) == (2, 14, 0x8005, w.enclave.data[0])


def test_nothing_to_resume() -> None:
    w = world()
    assert enter(w, w.enclave.tcs[0], ERESUME) == (3, 13, 0, 0)


def test_no_ssa_frame_left() -> None:
    w = world(nssa=1)
    assert w.fault(store_to, 0x1000) == (14, 0x6, 0x1000)
    assert enter(w, w.enclave.tcs[0]) == (2, 13, 0, 0)


def store_to(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"x")


def test_busy_tcs() -> None:
    """Another thread is inside on it."""
    w = world()
    other = w.machine.thread(w.host.process, cpu=1)
    entered, tried = WaitFlag("first is inside"), WaitFlag("second has tried")
    blocks = [w.enclave.run(), w.enclave.run()]

    def inside(t: EnclaveThread) -> Steps[None]:
        yield from t.load(w.enclave.data[0])
        entered.set()
        yield from tried.wait()

    def second() -> Steps[None]:
        yield from entered.wait()
        yield from other.enter(w.enclave.entry(nothing), blocks[1])
        tried.set()

    together(w, (0, w.host.enter(w.enclave.entry(inside), blocks[0])), (1, second()))
    assert blocks[0].function == 4
    assert blocks[1] == SgxEnclaveRun(tcs=w.enclave.tcs[0], function=2, exception_vector=13)


# On a processor: exceptions inside


@pytest.mark.parametrize(("vector", "coded"), FIXED_UP.items())
def test_exception_inside_and_resume(vector: int, coded: bool) -> None:
    """It ends the call with function 3; ERESUME goes on behind it."""
    w = world()

    def program(t: EnclaveThread) -> Steps[str]:
        yield from t.exception(vector, 0x18)
        return "resumed"

    entry, block = w.enclave.entry(program), w.enclave.run()
    assert w.do(w.host.enter(entry, block)) == 0
    expected = SgxEnclaveRun(
        tcs=block.tcs,
        function=3,
        exception_vector=vector,
        exception_error_code=0x18 if coded else 0,
    )
    assert block == expected
    assert not w.machine.processor.lps[0].enclave_mode
    assert w.do(w.host.enter(entry, block, ERESUME)) == 0
    assert (block.function, entry.result) == (4, "resumed")
    assert block == expected.replace(function=4), "stale"


@pytest.mark.parametrize("vector", [faults.DB, faults.BP])
def test_debug_exceptions_are_signals(vector: int) -> None:
    """Never fixed up: SIGTRAP, no return from the vDSO, no handler, nothing written."""
    w = world()

    def program(t: EnclaveThread) -> Steps[None]:
        yield from t.exception(vector)

    block, handler = w.enclave.run(), Handler()
    with pytest.raises(SignalRaised) as raised:
        w.do(w.host.enter(w.enclave.entry(program), block, handler=handler))
    assert (raised.value.signal.number, raised.value.signal.vector) == (SIGTRAP, vector)
    assert block == w.enclave.run()
    assert handler.seen == []


@pytest.mark.parametrize("vector", [2, 7, 8, 14, 15, 18, 20, 21, 32, -1])
def test_other_vectors_are_not_raised_by_instructions(vector: int) -> None:
    """Of the kernel's own, or with #PF of accesses: asking for one is a mistake."""
    w = world()

    def program(t: EnclaveThread) -> Steps[None]:
        yield from t.exception(vector)

    with pytest.raises(ValueError, match=f"vector {vector}"):
        w.do(w.host.enter(w.enclave.entry(program), w.enclave.run()))


def test_two_phase_exception_handling() -> None:
    """The handler enters again at CSSA 1, where the enclave looks at it, then resumes CSSA 0."""
    w = world(nssa=2)
    order: list[object] = []

    def program(t: EnclaveThread) -> Steps[None]:
        order.append(t.cssa)
        if t.cssa == 0:
            yield from t.exception(faults.UD)
            order.append("behind it")

    def handler(current: Thread, block: SgxEnclaveRun, end: Exit) -> Steps[int]:
        order.append((end.function, end.vector))
        answers = {1: EENTER, 2: ERESUME, 3: 0}
        calls = sum(1 for entry in order if isinstance(entry, tuple))
        return answers[calls]
        yield

    block = w.enclave.run()
    assert w.do(w.host.enter(w.enclave.entry(program), block, handler=handler)) == 0
    assert order == [0, (3, 6), 1, (4, 0), "behind it", (4, 0)]
    assert (block.function, block.exception_vector) == (4, 6)


def test_exception_while_its_handler_runs_inside() -> None:
    """A second one at CSSA 1; both are resumed, the inner first."""
    w = world(nssa=3)
    entry, block = None, w.enclave.run()
    left: list[int] = []

    def program(t: EnclaveThread) -> Steps[None]:
        yield from t.exception(faults.DE if t.cssa else faults.UD)
        left.append(t.cssa)

    entry = w.enclave.entry(program)
    vectors = []
    for leaf in (EENTER, EENTER, ERESUME, ERESUME):
        assert w.do(w.host.enter(entry, block, leaf)) == 0
        vectors.append((block.function, block.exception_vector))
    assert vectors == [(3, 6), (3, 0), (4, 0), (4, 0)]
    assert left == [1, 0]
