"""Enclaves that touch their heap: committed on demand by a runtime's handler, or static."""

from __future__ import annotations

from typing import Any

from softsgx.lab.enclaves import static_heap, with_hole
from softsgx.lab.measured import MeasuredHost, MeasuredThread, Seat, run_timed
from softsgx.lab.prices import Profile
from softsgx.linux.version import NO_RACES
from softsgx.sim import Steps, VirtualTime
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system.loader import load
from softsgx.system.machine import Machine
from softsgx.system.runtimes import ORDERS, TrustedManager
from softsgx.system.runtimes.untrusted import Untrusted


def touch_all(profile: Profile, threads: int, pages: int) -> tuple[VirtualTime, int]:
    """Threads touch pages that the handler of their runtime commits at the first touch."""
    machine = Machine(cpus=threads, epc="16M", races=NO_RACES)
    kernel, process = machine.kernel, machine.process()
    hosts = [MeasuredHost(kernel, process, f"thread {n}", n) for n in range(threads)]
    enclave = machine.run(load(hosts[0], with_hole(threads, threads * pages, nssa=2)))
    enclave.thread_type = MeasuredThread
    manager = TrustedManager(Untrusted(enclave), ORDERS["intel-emm"])
    manager.reserve(enclave.heap, threads * pages * PAGE_SIZE)
    manager.commit_on_demand(enclave.heap, threads * pages * PAGE_SIZE)
    machine.run(_warm(enclave, hosts))
    time = VirtualTime(profile.prices(machine.processor))
    bodies = []
    for number, host in enumerate(hosts):
        seat = Seat(number, host, enclave.tcs[number])
        first = enclave.heap + number * pages * PAGE_SIZE
        body = _touch(enclave, manager, seat, range(first, first + pages * PAGE_SIZE, PAGE_SIZE))
        bodies.append((body, number))
    run_timed(machine, time, bodies)
    return time, threads * pages


def _warm(enclave: Any, hosts: list[MeasuredHost]) -> Steps[None]:
    """Touch SSA frames and SECINFO slots, so that later only the heap faults."""

    def program(t: Any) -> Steps[None]:
        yield from t.store(t.secinfo, bytes(8))

    for number, host in enumerate(hosts):
        seat = Seat(number, host, enclave.tcs[number])
        yield from enclave.call(host, program, thread=number, args=seat)
        # Touch the second frame, for the handler, by a store: an AEX into it would not fault it in.
        frame = enclave.base + (len(hosts) + 2 * number + 1) * PAGE_SIZE

        def second(t: Any, frame: int = frame) -> Steps[None]:
            yield from t.store(frame, bytes(8))

        yield from enclave.call(host, second, thread=number, args=seat)


def _touch(enclave: Any, manager: TrustedManager, seat: Seat, pages: range) -> Steps[None]:
    """One thread: its program, and the handler at each exception."""
    run = enclave.run(seat.number)

    def program(t: Any) -> Steps[Any]:
        if t.cssa:
            return (yield from manager.handle_fault(t, run.exception_addr))
        for page in pages:
            yield from t.store(page, bytes(8))
        return None

    entry, leaf = enclave.entry(program), leaves.EENTER
    while True:
        yield from seat.host.enter(entry, run, leaf, args=seat)
        if run.function == leaves.EEXIT:
            return
        yield from seat.host.enter(entry, run, args=seat)
        assert entry.result is True
        leaf = leaves.ERESUME


def heap_touched(profile: Profile, pages: int, first: bool) -> tuple[int, int]:
    """AEX during start-up and after it; `first`: whether start-up touches the heap."""
    machine = Machine(cpus=1, epc="8M", races=NO_RACES)
    host = MeasuredHost(machine.kernel, machine.process(), "thread 0", 0)
    enclave = machine.run(load(host, static_heap(pages)))
    enclave.thread_type = MeasuredThread
    time = VirtualTime(profile.prices(machine.processor))
    after_init = 0

    def program(t: Any) -> Steps[None]:
        nonlocal after_init
        heap = range(
            enclave.base + 2 * PAGE_SIZE, enclave.base + (2 + pages) * PAGE_SIZE, PAGE_SIZE
        )
        if first:
            for page in heap:
                yield from t.load(page)
        after_init = time.counts.get("ERESUME", 0)
        for page in heap:
            yield from t.store(page, bytes(8))

    body = enclave.call(host, program, args=Seat(0, host, enclave.tcs[0]))
    run_timed(machine, time, [(body, 0)])
    return after_init, time.counts.get("ERESUME", 0) - after_init
