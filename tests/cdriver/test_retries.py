"""A loop of the C code that waits for another task has a RETRY point; others have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from softsgx import Machine
from softsgx.sim import RETRY, Cooperative, Steps
from softsgx.sim.events import Stepped
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import R, W
from softsgx.system import HostThread
from softsgx.system.loader import load
from tests.cdriver import sources

MANY = 4097  # sgx_encl_may_map drops the mutex after 4096 pages


@pytest.fixture
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sources.driver_object("6.12", tmp_path_factory)


def retries(machine: Machine, *bodies: Steps[Any]) -> tuple[list[Any], int]:
    """The results of some tasks, each on a processor, and at how many RETRY points they were."""
    count = 0

    def look(event: Stepped) -> None:
        nonlocal count
        count += event.point[0] == RETRY

    execution = machine.execution(Cooperative())
    machine.processor.log.subscribe_to({Stepped: look})
    tasks = [execution.spawn(body, f"task {cpu}", cpu) for cpu, body in enumerate(bodies)]
    execution.run()
    execution.close()
    return [task.result for task in tasks], count


def test_a_debugger_lets_the_reclaimer_finish(driver: Path) -> None:
    """It finds the page being reclaimed, and takes the mutex in vain until it is not."""
    machine = Machine(epc="1M", driver=driver)
    host, tracer = machine.thread(), machine.thread(cpu=1, name="tracer")
    enclave = machine.run(load(host, pages=1))
    address, kernel = enclave.data[0], machine.kernel
    encl: Any = host.process.files[enclave.fd].encl
    kernel.driver.offer(kernel, encl, address)

    def reclaim() -> Steps[None]:
        steps, waiting = kernel.driver.reclaim(host.thread), True
        me = yield ("begin", "reclaimer", False)
        point = next(steps)
        while True:
            if waiting and encl.page(address).being_reclaimed:
                waiting = False
                yield (RETRY, "the tracer's turn", False)
            try:
                me = yield point
                point = steps.send(me)
            except StopIteration:
                return

    (_, word), count = retries(machine, reclaim(), peek(tracer, host, address))
    assert word == 0
    assert count >= 2, "the tracer did not wait"
    assert encl.page_array[address >> PAGE_SHIFT].available


def peek(tracer: HostThread, host: HostThread, address: int) -> Steps[int]:
    yield ("begin", "tracer", False)
    return (yield from tracer.peek(host.process, address))


def test_a_long_check_of_rights_does_not_wait_for_anybody(driver: Path) -> None:
    """The mutex is dropped and taken again; it was not in vain, since the array was locked."""
    machine = Machine(epc="32M", driver=driver)
    host = machine.thread()
    enclave = machine.run(load(host, pages=MANY, hole=0))
    first = enclave.data[0]
    locks, count = retries(machine, host.mprotect(first, MANY * PAGE_SIZE, R | W))
    assert locks == [0]
    assert count == 0
