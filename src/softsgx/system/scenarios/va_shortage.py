"""The page that needs another version array just when EPC runs out: race K6."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from softsgx.linux.sgx.driver import encl_of
from softsgx.linux.sgx.encl import SGX_VA_SLOT_COUNT
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system.loader import default_image, load
from softsgx.system.machine import Machine
from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene

_BIG = 511 + 2  # its pages, SECS and version array
_SMALL = 4 + 2


class VaShortage(MachineScenario):
    """An enclave of 512 pages, the SECS among them, grows by one; two EPC pages are free.

    Another enclave takes one of them at the same time. The reclaimer can make room, so the one that
    comes too late must wait, not die.

    A reclaim pass looks at 3 pages instead of 16: two that it evicts, and a young one that it puts
    back. The driver does the same for each young page; 13 more only make the schedules longer.
    """

    cpus: ClassVar = 2  # of the process; its neighbour has one of its own
    layout: ClassVar = {"threads": 1, "pages": 507}
    needs_python: ClassVar = "the watermarks of a driver object are constants"

    def machine(self) -> Machine:
        """EPC with two pages more than both enclaves have; the watermarks keep it so."""
        epc = (_BIG + _SMALL + 2) * PAGE_SIZE
        machine = Machine(cpus=self.cpus + 1, epc=epc, linux=self.linux, races=self.races)
        machine.kernel.low_watermark, machine.kernel.high_watermark = 2, 2
        machine.kernel.nr_to_scan = 3
        return machine

    def build(self, scene: Scene) -> None:
        """The other enclave, of another process."""
        assert scene.encl.page_cnt == SGX_VA_SLOT_COUNT
        place = self.cpus
        other = scene.machine.thread(scene.machine.process("neighbour"), place, "neighbour")
        scene.threads[place] = other
        enclave = scene.probe(load(other, default_image(pages=0)))
        scene.facts["neighbour"] = enclave.heap
        scene.others.append(encl_of(other.process.files[enclave.fd]))
        scene.holes.append(scene.enclave.heap)
        # Two old pages, the others are young. The list is longer than a pass takes: while it is
        # empty, an allocation gives up for good (docs/kernel-races.md, L8).
        scene.kernel.active_page_list.clear()
        for place, address in enumerate(scene.enclave.data[: scene.kernel.nr_to_scan + 2]):
            page = scene.encl.page(address)
            assert page is not None
            assert page.epc_page is not None
            scene.kernel.active_page_list[page.epc_page] = None
            if place < 2:
                scene.mm.space.test_and_clear_accessed(address)
            else:
                scene.probe(scene.host.load(address, 1))
        assert scene.kernel.nr_free == 2

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """Both enclaves grow."""
        yield "reader", 1, scene.thread(1).load(scene.enclave.heap, 1)
        yield "neighbour", self.cpus, scene.thread(self.cpus).load(scene.facts["neighbour"], 1)
