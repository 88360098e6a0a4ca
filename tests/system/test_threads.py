"""Which threads can run on which logical processor, and what a machine refuses."""

from __future__ import annotations

from typing import Any

import pytest

from softsgx.linux import syscalls
from softsgx.linux.uapi import PROT_READ, PROT_WRITE
from softsgx.linux.vdso import VDSO_ENCLU
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R
from softsgx.spec.leaves import EEXIT, ERESUME
from softsgx.spec.registers import RIP
from softsgx.system import EnclaveThread, HostThread, Machine, load
from tests.linux.held import Held, at, to_the_end
from tests.linux.world import World, world


@pytest.mark.parametrize("cpu", [-1, 2, 3])
def test_processor_that_the_machine_does_not_have(cpu: int) -> None:
    """Number 2 of a machine with two is for ksgxd."""
    machine = Machine(cpus=2)
    host = machine.thread()
    message = f"cpu {cpu}: this machine has processors 0 to 1"
    with pytest.raises(ValueError, match=message):
        machine.thread(cpu=cpu)
    with pytest.raises(ValueError, match=message):
        machine.run(host.fork("child", cpu))


def test_two_processes_need_two_processors() -> None:
    """The second would load its page tables, and the first would go on with them."""
    machine = Machine(cpus=2)
    host = machine.thread(machine.process("first"))
    message = "cpu 0: process 'first' runs there; another one needs its own processor"
    with pytest.raises(ValueError, match=message):
        machine.thread()
    with pytest.raises(ValueError, match=message):
        machine.run(host.fork("child", 0))
    assert len(host.process.threads) == 1
    other = machine.thread(cpu=1)
    at_first, at_other = machine.run(host.alloc(8)), machine.run(other.alloc(8))
    assert at_first == at_other
    machine.run(host.store(at_first, b"first"))
    machine.run(other.store(at_other, b"other"))
    assert machine.run(host.load(at_first, 5)) == b"first"
    assert machine.run(other.load(at_other, 5)) == b"other"


def test_processor_is_free_when_its_process_has_ended() -> None:
    machine = Machine(cpus=2)
    first = machine.thread()
    machine.thread(first.process, 0, "second of the processor")
    machine.thread(first.process, 1, "third")
    machine.run(first.exit())
    assert machine.kernel.loaded == {}
    assert first.thread.process is not None
    assert first.thread.process.mm.cpumask == {}
    for cpu in (0, 1):
        machine.run(machine.thread(cpu=cpu).alloc(8))


def test_exec_ends_the_other_threads() -> None:
    """Their processors are free; IPIs for the enclave of the old address space go to none."""
    w = world()
    w.machine.thread(w.host.process, 1)
    old = w.mm
    assert old.cpumask == {0: 1, 1: 1}
    assert w.do(syscalls.sys_execve(w.host.thread)) == 0
    assert w.host.process.threads == [w.host.thread]
    assert (old.cpumask, w.mm.cpumask) == ({}, {0: 1})
    assert list(w.kernel.loaded.items()) == [(0, w.mm)]


def test_threads_of_a_process_take_turns_on_a_processor() -> None:
    w = world(threads=2)
    other = w.machine.thread(w.host.process, 0, "other")
    data = w.enclave.data[0]
    w.do(w.enclave.call(w.host, lambda t: t.store(data, b"one")))
    assert w.do(w.enclave.call(other, lambda t: t.load(data, 3), thread=1)) == b"one"
    assert w.do(w.host.load(data, 1)) == w.do(other.load(data, 1)) == b"\xff"


def use(w: World, what: str) -> Steps[Any]:
    """Something that a second thread does on processor 1."""
    other = w.machine.thread(w.host.process, 1, "other")
    if what == "load":
        return other.load(w.enclave.data[0], 1)
    if what == "enter":
        return w.enclave.call(other, lambda t: t.load(w.enclave.data[0], 1), thread=1)
    return w.enclave.restrict(other, w.enclave.data[0], PAGE_SIZE, R)


@pytest.mark.parametrize("what", ["load", "enter", "ioctl"])
def test_two_threads_of_one_processor_at_once_are_refused(what: str) -> None:
    """On a real machine the scheduler would switch them; here nothing does."""
    w = world(threads=2)
    w.do(w.host.load(w.enclave.data[0], 1))
    first = w.machine.thread(w.host.process, 1, "first")

    def inside(t: EnclaveThread) -> Steps[None]:
        yield ("test", "inside", False)
        yield from t.load(w.enclave.data[0], 1)

    execution = w.machine.execution(Held(("first", at("test")), ("other", to_the_end)))
    execution.spawn(w.enclave.call(first, inside), "first", 1)

    def other() -> Steps[None]:
        yield ("test", "start", False)
        yield from use(w, what)

    execution.spawn(other(), "other", 1)
    with pytest.raises(ValueError, match="another thread is at work on cpu 1"):
        execution.run()


def test_thread_that_finds_another_inside_is_refused() -> None:
    """Interrupted, it would take the other's enclave mode for its own."""
    w = world(threads=2)
    hosts = [w.machine.thread(w.host.process, 1, name) for name in ("first", "other")]

    def inside(t: EnclaveThread) -> Steps[None]:
        yield from t.load(w.enclave.data[0], 1)
        t.lp.interrupt()
        yield ("test", "interrupted", False)
        yield from t.load(w.enclave.data[0], 1)

    def enters(t: EnclaveThread) -> Steps[None]:
        yield ("test", "inside", False)
        yield from t.load(w.enclave.data[0], 1)

    stages = [("first", at("test")), ("other", at("test", 2)), ("first", to_the_end)]
    execution = w.machine.execution(Held(*stages))

    def other() -> Steps[None]:
        yield ("test", "start", False)
        yield from w.enclave.call(hosts[1], enters, thread=1)

    execution.spawn(w.enclave.call(hosts[0], inside), "first", 1)
    execution.spawn(other(), "other", 1)
    with pytest.raises(ValueError, match="first: another thread is at work on cpu 1"):
        execution.run()


def test_another_thread_resumes_what_could_not_be_resumed() -> None:
    """ERESUME faults on processor 0 and, repaired by the host, succeeds on processor 1."""
    w = world()
    other = w.machine.thread(w.host.process, 1, "other")
    data, tcs = w.enclave.data[0], w.enclave.tcs[0]

    def inside(t: EnclaveThread) -> Steps[bytes]:
        yield from t.store(data, b"kept")
        t.lp.interrupt()
        assert (yield from w.host.mprotect(tcs, PAGE_SIZE, 0)) == 0
        return (yield from t.load(data, 4))

    entry, run = w.enclave.entry(inside), w.enclave.run()
    assert w.do(w.host.enter(entry, run)) == 0
    assert (run.function, run.exception_vector) == (ERESUME, 14)
    assert w.do(w.host.mprotect(tcs, PAGE_SIZE, PROT_READ | PROT_WRITE)) == 0
    assert w.do(other.enter(entry, run, ERESUME)) == 0
    assert (run.function, entry.result) == (EEXIT, b"kept")


def test_new_process_builds_its_own_enclave() -> None:
    machine = Machine(cpus=2, epc="1M")
    hosts = [machine.thread(cpu=cpu) for cpu in (0, 1)]
    enclaves = [machine.run(load(host)) for host in hosts]
    assert enclaves[0].base == enclaves[1].base

    def keep(t: EnclaveThread) -> Steps[None]:
        yield from t.store(*t.args)

    def tell(t: EnclaveThread) -> Steps[bytes]:
        return (yield from t.load(t.args, 1))

    data = enclaves[0].data[0]
    for value, host, enclave in zip((b"0", b"1"), hosts, enclaves, strict=True):
        machine.run(enclave.call(host, keep, args=(data, value)))
    for value, host, enclave in zip((b"0", b"1"), hosts, enclaves, strict=True):
        assert machine.run(enclave.call(host, tell, args=data)) == value


def test_an_enclave_exits_to_the_instruction_after_the_one_that_entered_it() -> None:
    """The target of EEXIT is after the ENCLU of the vDSO function, for calls out and at the end."""
    machine = Machine(cpus=1, epc="1M")
    host = machine.thread()
    enclave = machine.run(load(host))
    lp, went = machine.processor.lps[0], []

    def outside(_host: HostThread) -> Steps[None]:
        went.append(lp.regs[RIP])
        return
        yield

    def program(t: EnclaveThread) -> Steps[None]:
        yield from t.ocall(outside)

    machine.run(enclave.call(host, program))
    went.append(lp.regs[RIP])
    assert went == [VDSO_ENCLU + 3] * 2
