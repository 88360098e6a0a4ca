"""The end of a process with several threads: exit_group and execve end the others first.

Linux 6.12, kernel/exit.c (do_group_exit), fs/exec.c (de_thread), mm/mmap.c (exit_mmap).
"""

from __future__ import annotations

from typing import Any

import pytest

from softsgx.linux import syscalls
from softsgx.linux.process import ThreadKilled
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system import EnclaveThread, HostThread, Machine
from tests.linux.held import Held, Until, at, at_lock, to_the_end
from tests.linux.world import World, world


def ended_together(
    w: World, stages: list[tuple[str, Until]], other: Steps[Any], end: Steps[Any]
) -> list[BaseException | None]:
    """Run another thread and the end of the process; by which exception each task ended."""
    w.machine.settle()
    execution = w.machine.execution(Held(*stages), max_steps=10_000)
    tasks = [execution.spawn(other, "other", 1), execution.spawn(end, "end", 0)]
    execution.run()
    execution.close()
    return [task.exception for task in tasks]


def with_other() -> tuple[World, HostThread]:
    w = world(threads=2)
    return w, w.machine.thread(w.host.process, 1, "other")


def forever(t: EnclaveThread) -> Steps[None]:
    while True:
        yield from t.load(t.args)


@pytest.mark.parametrize("how", ["exit", "exec"])
def test_a_thread_inside_leaves_by_aex_and_ends(how: str) -> None:
    """It runs no more user code; every EPC page comes back."""
    w, other = with_other()
    page = w.enclave.data[0]
    inside = w.enclave.call(other, forever, thread=1, args=page)
    end: Steps[Any] = w.host.exit() if how == "exit" else exec_and_exit(w)
    stages = [("other", at("load", 3)), ("end", to_the_end)]
    killed, ended = ended_together(w, stages, inside, end)
    assert isinstance(killed, ThreadKilled)
    assert ended is None
    assert not w.machine.processor.lps[1].enclave_mode
    assert w.all_epc_free()


def exec_and_exit(w: World) -> Steps[None]:
    yield from syscalls.sys_execve(w.host.thread)
    yield from w.host.exit()


def test_a_thread_in_the_kernel_finishes_its_call_first() -> None:
    """The address space is taken down after it; the result of its call is dropped."""
    w, other = with_other()
    offset = w.enclave.data[0]
    done: list[int] = []

    def restricting() -> Steps[None]:
        ret, _ = yield from w.enclave.restrict(other, offset, PAGE_SIZE, 1)
        done.append(ret)

    stages = [("other", at_lock("encl->lock")), ("end", to_the_end)]
    killed, ended = ended_together(w, stages, restricting(), w.host.exit())
    assert isinstance(killed, ThreadKilled)
    assert ended is None
    assert done == []
    assert w.all_epc_free()


def test_no_translation_outlives_the_address_space() -> None:
    """A thread that has ended cannot reach the frames, which have another owner by then."""
    machine = Machine(cpus=3)
    host = machine.thread()
    other = machine.thread(host.process, 1, "other")
    page = machine.run(host.alloc(PAGE_SIZE))
    for thread in (host, other):
        machine.run(thread.store(page, b"1234"))
    mm = host.thread.mm
    machine.run(host.exit())
    assert mm.cpumask == {}
    assert not machine.processor.lps[1].tlb.entries
    with pytest.raises(ThreadKilled):
        machine.run(other.load(page, 4))
    with pytest.raises(ThreadKilled):
        machine.run(other.alloc(PAGE_SIZE))


def test_exec_ends_all_threads_but_the_caller() -> None:
    w, other = with_other()
    old = w.mm
    assert w.do(syscalls.sys_execve(w.host.thread)) == 0
    assert w.host.process.threads == [w.host.thread]
    assert (old.cpumask, w.mm.cpumask) == ({}, {0: 1})
    assert w.do(w.host.load(w.do(w.host.alloc(8)), 8)) == bytes(8)
    with pytest.raises(ThreadKilled):
        w.do(other.exit())


# Signals


def test_a_system_call_ends_with_the_handler() -> None:
    """One signal interrupts one call."""
    machine = Machine()
    host = machine.thread()
    host.thread.pending_signals = 1
    assert machine.run(host.alloc(PAGE_SIZE)) > 0
    assert host.thread.pending_signals == 0


def test_fork_is_restarted_after_the_handler() -> None:
    """-ERESTARTNOINTR: an earlier signal does not make the child lose its enclave."""
    w = world()
    w.host.thread.pending_signals = 1
    child = w.do(w.host.fork("child", 1))
    assert all(area.encl is w.encl for area in child.thread.mm.vmas if area.sgx)
    assert w.host.thread.pending_signals == 0
