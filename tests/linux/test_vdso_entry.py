"""The vDSO function on a processor: entries that fail, exceptions inside, handlers that go on."""

import pytest

from softsgx.linux.process import SI_KERNEL, SIGTRAP, TRAP_TRACE, Thread
from softsgx.linux.uapi import SgxEnclaveRun
from softsgx.linux.vdso import VDSO_ENCLU, Exit
from softsgx.sim import Steps, WaitFlag
from softsgx.spec import faults
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.leaves import EENTER, ERESUME
from softsgx.spec.ssa import GPR_OFF_EXITINFO, GPRSGX_SIZE
from softsgx.system import EnclaveThread, SignalRaised
from tests.linux.vectors import FIXED_UP
from tests.linux.world import World, together, world

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
    assert enter(w, tcs) == (2, 14, 0x6, tcs + 0xFFF)


def test_page_that_is_no_tcs() -> None:
    w = world()
    assert enter(w, w.enclave.data[0]) == (2, 14, 0x8007, w.enclave.data[0] + 0xFFF)


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
    """It ends the call with function 3; ERESUME goes on after it."""
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

    seen: list[Exit] = []

    def handler(current: Thread, run: SgxEnclaveRun, end: Exit) -> Steps[int]:
        seen.append(end)
        return 0
        yield

    block = w.enclave.run()
    with pytest.raises(SignalRaised) as raised:
        w.do(w.host.enter(w.enclave.entry(program), block, handler=handler))
    # At the AEP, where the kernel finds the program; once si_code was 0, without an address.
    code, address = (SI_KERNEL, 0) if vector == faults.BP else (TRAP_TRACE, VDSO_ENCLU)
    assert raised.value.signal == (SIGTRAP, code, address, vector, 0)
    assert block == w.enclave.run()
    assert seen == []


@pytest.mark.parametrize("vector", [2, 7, 8, 14, 15, 18, 20, 21, 32, -1])
def test_other_vectors_are_not_raised_by_instructions(vector: int) -> None:
    """They are the kernel's own, or #PF, which accesses raise: ValueError."""
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
            order.append("after it")

    def handler(current: Thread, block: SgxEnclaveRun, end: Exit) -> Steps[int]:
        order.append((end.function, end.vector))
        answers = {1: EENTER, 2: ERESUME, 3: 0}
        calls = sum(1 for entry in order if isinstance(entry, tuple))
        return answers[calls]
        yield

    block = w.enclave.run()
    assert w.do(w.host.enter(w.enclave.entry(program), block, handler=handler)) == 0
    assert order == [0, (3, 6), 1, (4, 0), "after it", (4, 0)]
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


def test_exception_reaches_the_frame_of_its_thread() -> None:
    """Also if an interrupt has just thrown the thread out: it is resumed, and raises it inside."""
    w = world(nssa=2)
    other = w.machine.thread(w.host.process, cpu=1)
    data, block = w.enclave.data[0], w.enclave.run()
    entered, interrupted = WaitFlag("inside"), WaitFlag("interrupted")

    def program(t: EnclaveThread) -> Steps[int | None]:
        if t.cssa:
            frame_end = t.tcs + 2 * PAGE_SIZE
            raw = yield from t.load(frame_end - GPRSGX_SIZE + GPR_OFF_EXITINFO, 4)
            return int.from_bytes(raw, "little")
        yield from t.load(data)
        entered.set()
        yield from interrupted.wait()
        assert not t.lp.enclave_mode
        yield from t.exception(faults.UD)
        return None

    def interrupting() -> Steps[None]:
        yield from entered.wait()
        yield from other.mprotect(data, PAGE_SIZE, 0)
        interrupted.set()

    entry = w.enclave.entry(program)
    together(w, (0, w.host.enter(entry, block)), (1, interrupting()))
    assert (block.function, block.exception_vector) == (3, faults.UD)
    assert w.do(w.host.enter(entry, block)) == 0
    assert entry.result == 1 << 31 | 3 << 8 | faults.UD
