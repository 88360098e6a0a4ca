"""One arena at a time is resident; a snapshot brings back what the C code has in it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from softsgx import Machine
from softsgx.cdriver.arena import Arena, WildPointer
from softsgx.cdriver.driver import CDriver
from softsgx.cdriver.errors import DriverError
from softsgx.cdriver.operations import OPERATIONS
from softsgx.cdriver.requests import HANDLERS
from softsgx.cdriver.requests.machine import Operand
from softsgx.mem.pagetable import DIRECT_MAP
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R
from softsgx.system.host import HostThread
from softsgx.system.loaded_enclave import Enclave
from softsgx.system.loader import load
from softsgx.system.snapshot import Snapshot
from tests.cdriver import sources
from tests.cdriver.stories import tell


@pytest.fixture
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sources.driver_object("6.12", tmp_path_factory)


def c_driver(machine: Machine) -> CDriver:
    assert isinstance(machine.kernel.driver, CDriver)
    return machine.kernel.driver


def built(machine: Machine) -> tuple[HostThread, Enclave]:
    host = machine.thread()
    return host, machine.run(load(host, pages=2))


def test_every_request_is_served() -> None:
    ends = {"NONE", "RETURNED"}
    assert set(OPERATIONS) == set(HANDLERS) | ends


def test_machines_take_turns(driver: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Three machines of two kernels, each with an enclave of its own, interleaved."""
    older = sources.driver_object("6.1", tmp_path_factory)
    machines = [Machine(driver=path, epc="1M") for path in (driver, older, driver)]
    stages = [(machine, *built(machine)) for machine in machines]
    for rights in (R, R):
        for machine, host, enclave in stages:
            address = enclave.data[0]
            answer = machine.run(enclave.restrict(host, address, PAGE_SIZE, rights))
            assert answer[0] == 0
    for machine, host, enclave in stages:
        assert c_driver(machine).free_pages(machine.kernel)[1] == 256 - 8
        assert machine.run(host.close(enclave.fd)) == 0
        machine.run(host.exit())
        assert c_driver(machine).free_pages(machine.kernel)[1] == 256


def test_the_daemon_survives_that_another_machine_runs(
    driver: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is parked on a stack in the arena, and goes on there when it is woken.

    When the arena came back a task that had just been taken was given back, so two calls ran on
    one stack.
    """
    alone = tell("reclaim_and_reload", driver, "6.12")
    older = sources.driver_object("6.1", tmp_path_factory)
    run, times = Machine.run, itertools.count()

    def with_others(self: Machine, *args: Any) -> Any:
        if next(times) % 8 == 0:
            # Its initialisation uses the stack on which the daemon is parked.
            Machine(driver=older, epc="1M")
        return run(self, *args)

    monkeypatch.setattr(Machine, "run", with_others)
    assert tell("reclaim_and_reload", driver, "6.12") == alone


def test_operands_are_copied_with_their_alignment_and_back(driver: Path) -> None:
    machine = Machine(driver=driver, epc="1M")
    c_side, thread = c_driver(machine), machine.thread().thread
    block = c_side.arena.call("k_new", 3 * PAGE_SIZE, 16, 1)
    c_side.arena.write(block, bytes(range(200)))
    memory = machine.processor.memory
    call = c_side.call(thread)
    operand = Operand(call)
    for at in (block, block + 8, block + 72):
        copy = operand.structure(at, 64, 64, output=True)
        assert copy % 64 == at % 64
        assert memory.read(copy - DIRECT_MAP, 64) == c_side.arena.read(at, 64)
    memory.write(copy - DIRECT_MAP, b"written by a leaf")
    page = operand.page(block + PAGE_SIZE + 5, output=True)
    assert page % PAGE_SIZE == 5
    memory.write(page - DIRECT_MAP, b"and here")
    assert operand.structure(DIRECT_MAP, 64, 64) == DIRECT_MAP  # nothing to copy
    operand.done()
    assert c_side.arena.read(block + 72, 17) == b"written by a leaf"
    assert c_side.arena.read(block + PAGE_SIZE + 5, 8) == b"and here"


def test_a_snapshot_has_the_state_of_the_c_code(driver: Path) -> None:
    machine = Machine(driver=driver, epc="1M")
    host, enclave = built(machine)
    host.thread.switch_out()
    machine.settle()
    c_side = c_driver(machine)
    encl: Any = host.process.files[enclave.fd].encl
    snapshot = Snapshot(machine.processor, machine, host)
    for _ in range(3):
        assert encl.page(enclave.heap) is None
        before = c_side.arena.save()
        host.thread.switch_in()
        assert machine.run(host.load(enclave.heap, 1)) == b"\xff"
        host.thread.switch_out()
        machine.settle()
        assert encl.page(enclave.heap) is not None
        assert c_side.arena.save() != before
        snapshot.restore()
        assert c_side.arena.save() == before


def test_an_enclave_of_the_c_code_can_be_read(driver: Path) -> None:
    machine = Machine(driver=driver, epc="1M")
    host, enclave = built(machine)
    ours = Machine(epc="1M")
    our_host, our_enclave = built(ours)
    encl: Any = host.process.files[enclave.fd].encl
    our_encl: Any = our_host.process.files[our_enclave.fd].encl
    for name in ("name", "number", "base", "size", "flags", "attributes", "page_cnt"):
        assert getattr(encl, name) == getattr(our_encl, name), name
    assert encl.secs_child_cnt == our_encl.secs_child_cnt
    assert encl.secs.epc_page.number == our_encl.secs.epc_page.number
    assert list(encl.page_array) == sorted(our_encl.page_array)
    for number, page in encl.page_array.items():
        our_page = our_encl.page_array[number]
        for name in ("address", "type", "vm_max_prot_bits", "available"):
            assert getattr(page, name) == getattr(our_page, name), name
        assert page.epc_page.number == our_page.epc_page.number
    assert [va.epc_page.number for va in encl.va_pages] == [
        va.epc_page.number for va in our_encl.va_pages
    ]
    assert [entry.mm for entry in encl.mm_list] == [host.thread.mm]


def test_memory_that_is_not_in_the_arena_is_refused(driver: Path) -> None:
    arena = Arena(driver)
    for address, size in ((0, 1), (arena.elf.end, 1), (arena.elf.heap, 1 << 20)):
        with pytest.raises(WildPointer, match=f"{size} bytes at {address:#x}"):
            arena.read(address, size)
    assert not arena.contains(arena.elf.end - 4, 8)
    assert not arena.contains(arena.elf.start - 4, 8)


def test_a_file_that_is_no_driver_object(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(DriverError, match="not a driver object"):
        Machine(driver=tmp_path / "x")
    with pytest.raises(ValueError, match="those of the driver that is given"):
        Machine(driver=tmp_path / "x", races={"eaug_double_fault": False})


def test_a_processor_without_launch_control_has_no_node(driver: Path) -> None:
    from softsgx.cpu import Part

    machine = Machine(driver=driver, part=Part(launch_control=False))
    assert machine.run(machine.thread().open()) == -2
    lines = machine.kernel.printed.values()
    assert any("launch control CPU feature is not available" in line for line in lines)
