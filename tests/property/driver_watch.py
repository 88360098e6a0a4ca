"""Compares what one of the three ioctls that change pages did with what it reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softsgx.cpu.tracking import tracked
from softsgx.linux.errno import EFAULT
from softsgx.linux.sgx import encl as e
from softsgx.linux.uapi import SGX_IOC_ENCLAVE_REMOVE_PAGES
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import BLOCKED
from tests.property.driver_world import Enclave

if TYPE_CHECKING:
    from tests.property.driver_machine import DriverMachine


class Watch:
    """Compares, page by page, what one of these ioctls did with its `count` and `result`."""

    def __init__(
        self, world: DriverMachine, enclave: Enclave, cmd: int, first: int, length: int
    ) -> None:
        self.world, self.enclave, self.cmd = world, enclave, cmd
        self.first, self.pages = first, min(length >> PAGE_SHIFT, 64)
        enclave.hot = first << PAGE_SHIFT
        self.records: list[e.SgxEnclPage | None] = []
        self.leaves: list[int] = []  # results of EMODPR or EMODT

    def begin(self) -> None:
        """Called with the busy bit held: no other ioctl can add, change or remove pages."""
        array = self.enclave.encl.page_array
        self.records = [array.get(self.first + n) for n in range(self.pages)]
        if self.cmd == SGX_IOC_ENCLAVE_REMOVE_PAGES:
            self.enclave.removed |= {r.address for r in self.records if r is not None}

    def end(self, ret: int, after: Any) -> None:
        """D20."""
        done = after.count >> PAGE_SHIFT
        leaves = self.leaves
        if self.cmd == SGX_IOC_ENCLAVE_REMOVE_PAGES:
            self.removed(done)
            return
        good = len([r for r in leaves if not r])
        if ret == -EFAULT and not after.result and good == done + 1:
            self.enclave.torn = True  # L4, L5: ETRACK failed after a good leaf
            self.world.count("L4 or L5")
            return
        assert good == done or (ret and not good), f"count says {done}, the EPCM {good}"
        if after.result and leaves:
            assert ret == -EFAULT
            assert leaves[-1] == after.result
        self.tracked(done)

    def removed(self, done: int) -> None:
        array = self.enclave.encl.page_array
        for n, record in enumerate(self.records):
            now = array.get(self.first + n)
            if n < done:
                assert record is None or now is not record, f"page {n} counted, not removed"
                if record is not None:
                    self.world.count("a page was removed")
            elif record is not None:
                assert now is record, f"page {n} removed, not counted"

    def tracked(self, done: int) -> None:
        """After the ioctl, no processor holds a translation from before it."""
        processor = self.world.processor
        for n in range(done):
            record = self.records[n] if n < len(self.records) else None
            if record is None or record.epc_page is None:
                continue
            number = record.epc_page.number
            if not processor.epcm.state[number] & BLOCKED:
                secs = processor.secs_of(number)
                assert secs is not None
                assert tracked(processor, secs, number), f"page {n}: done, and not tracked"
