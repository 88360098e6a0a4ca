"""The events of the kernel: calls with their arguments, page faults, which thread runs where."""

from typing import Any

import pytest

from softsgx.events.kernel import (
    CallBegun,
    CallEnded,
    IoctlArguments,
    IoctlResults,
    PageFaultBegun,
    PageFaultEnded,
    ThreadSwitchedIn,
)
from softsgx.linux.errno import EINVAL
from softsgx.linux.uapi import PROT_READ
from softsgx.sim import Event, Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R
from softsgx.spec.faults import PFEC_U, PFEC_W
from softsgx.system import EnclaveFault, EnclaveThread, Machine
from tests.linux.world import World, world


def write(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"x")


def of(events: list[Event], *kinds: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kinds)]


@pytest.fixture
def w() -> World:
    return world()


def test_a_call_is_logged_with_its_arguments_and_its_result(w: World) -> None:
    page = w.enclave.data[0]
    with w.machine.processor.log.record() as events:
        assert w.protect(page, PROT_READ) == 0
        assert w.protect(page + 1, PROT_READ) == -EINVAL
    fields = (("address", page), ("length", PAGE_SIZE), ("prot", PROT_READ))
    begun, ended, _, refused = of(events, CallBegun, CallEnded)
    assert begun == CallBegun(0, "main", "mprotect", fields)
    assert ended == CallEnded(0, "main", "mprotect", fields, 0)
    assert isinstance(refused, CallEnded)
    assert refused.result == -EINVAL


def test_arguments_left_out_have_their_defaults(w: World) -> None:
    with w.machine.processor.log.record() as events:
        w.do(w.host.mmap(0, PAGE_SIZE, 3, 0x22))
    (begun,) = of(events, CallBegun)
    assert begun.fields[-2:] == (("fd", -1), ("offset", 0))


def test_an_ioctl_is_logged_with_its_argument_block_and_what_is_written_back(w: World) -> None:
    page = w.enclave.data[0]
    with w.machine.processor.log.record() as events:
        assert w.do(w.enclave.restrict(w.host, page, PAGE_SIZE, R))[0] == 0
    names = [event.name for event in of(events, CallBegun)]
    assert "SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS" in names
    (asked,) = of(events, IoctlArguments)
    (answered,) = of(events, IoctlResults)
    assert dict(asked.fields) == {
        "offset": page - w.enclave.base,
        "length": PAGE_SIZE,
        "permissions": R,
        "result": 0,
        "count": 0,
    }
    assert dict(answered.fields) == {"result": 0, "count": PAGE_SIZE}


def test_a_page_fault_is_logged_with_its_outcome(w: World) -> None:
    with w.machine.processor.log.record() as events:
        assert w.protect(w.enclave.data[0], PROT_READ) == 0
        with pytest.raises(EnclaveFault):
            w.call(write, w.enclave.data[0])
    begun, ended = of(events, PageFaultBegun, PageFaultEnded)[-2:]
    code = PFEC_U | PFEC_W
    assert begun == PageFaultBegun(0, "main", w.enclave.data[0], code)
    assert ended == PageFaultEnded(0, "main", w.enclave.data[0], code, "SIGSEGV SEGV_ACCERR")


def test_a_thread_is_logged_with_its_processor() -> None:
    machine = Machine()
    with machine.processor.log.record() as events:
        machine.thread(machine.process("app"), 1, "worker")
    assert of(events, ThreadSwitchedIn) == [ThreadSwitchedIn(1, "worker", "app", "app")]


def test_listening_changes_nothing_of_the_live_clock(w: World) -> None:
    """A listener once turned it off: other points, other costs, a record without limit."""

    def restrict(w: World) -> int:
        assert w.do(w.enclave.restrict(w.host, w.enclave.data[0], PAGE_SIZE, R))[0] == 0
        assert w.machine._live is not None
        assert not w.machine._live.choices
        return w.machine._live.steps

    other = world()
    with w.machine.processor.log.record() as events:
        steps = restrict(w)
    assert steps == restrict(other)
    assert len(events) > 10
