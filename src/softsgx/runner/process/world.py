"""The model of the real processes: machine, logical processors, open enclaves, driver calls.

Descriptors and address spaces belong to the real processes. The model has only what concerns SGX:
the areas of /dev/sgx_enclave with their page tables, and one logical processor for every live
thread that has entered an enclave or called the driver. An open enclave is recognised by the memfd
that stands for its device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from softsgx.cpu.epcm import Epcm
from softsgx.cpu.lp import LogicalProcessor
from softsgx.linux.errno import EACCES, EBADF, EFAULT
from softsgx.linux.mm import VM_READ
from softsgx.linux.process import Process
from softsgx.linux.vfs import O_PATH, O_RDWR, File, ProvisionNode
from softsgx.mem.pagetable import AddressSpace
from softsgx.runner.process.arena import ArenaMemory
from softsgx.runner.process.hostmem import HostMemory
from softsgx.runner.process.identity import Identity, identity
from softsgx.runner.process.tick import Tick
from softsgx.spec.bits import PAGE_SIZE, ZERO_PAGE
from softsgx.system.machine import Machine

if TYPE_CHECKING:
    from softsgx.linux.mm import Mm
    from softsgx.sim import Steps

T = TypeVar("T")

_BATCH: Final = 64  # source pages of ADD_PAGES that are read at once


class Hardware(NamedTuple):
    """The classes that the model is made of. An engine may need its own, which report changes."""

    processor: type[LogicalProcessor] = LogicalProcessor
    epcm: type[Epcm] = Epcm
    page_tables: type[AddressSpace] = AddressSpace


MODEL: Final = Hardware()


class World:
    """The machine, and the devices that are open on it. `tick_hz` is 0 for no timer tick."""

    def __init__(self, hardware: Hardware = MODEL, tick_hz: int = 0, **options: Any) -> None:
        self.machine = Machine(cpus=1, **options)
        self.tick = Tick(tick_hz)
        self.hardware = hardware
        processor = self.machine.processor
        if hardware.epcm is not Epcm:
            processor.epcm = hardware.epcm(processor.epc.pages, processor.log)
        epc = processor.epc
        self.memory = ArenaMemory(processor.memory, epc.first, epc.pages)
        processor.memory = self.memory
        self.source_frame = self.memory.alloc()  # the source page of one EADD
        self.kernel = self.machine.kernel
        self.log = processor.log
        self.files: dict[Identity, File] = {}
        self._spare: list[LogicalProcessor] = []

    def run(self, body: Steps[T], cpu: int) -> T:
        """Drive one system call or fault to its end."""
        return self.machine.run(body, cpu)

    # Logical processors

    def take_lp(self) -> LogicalProcessor:
        """A processor that no thread uses."""
        if self._spare:
            return self._spare.pop()
        processor = self.machine.processor
        lp = self.hardware.processor(processor, len(processor.lps), processor.space)
        processor.lps.append(lp)
        return lp

    def give_lp(self, lp: LogicalProcessor) -> None:
        """Take back a processor whose thread is gone."""
        lp.load_cr3(self.machine.processor.space)
        self._spare.append(lp)

    # Open devices

    def opened(self, path: str, stand_in: Identity, flags: int = O_RDWR) -> int:
        """A device was opened, and `stand_in` is the memfd that stands for it: 0, or an errno."""
        if flags & O_PATH:
            file = File(path, ProvisionNode(), flags)  # nothing is called for it
        else:
            found = self.run(self.kernel.driver.open(self.machine.ksgxd, path, flags), 0)
            if isinstance(found, int):
                return found
            file = found
        self.files[stand_in] = file
        return 0

    def closed(self, stand_in: Identity) -> None:
        """The last descriptor and the last mapping of a memfd are gone."""
        file = self.files.pop(stand_in, None)
        if file is not None:
            self.run(file.put(self.machine.ksgxd), 0)


class LiveProcess(Process):
    """A real process. `pid` is the number of any live thread of it."""

    def __init__(self, world: World, pid: int) -> None:
        super().__init__(world.kernel, str(pid))
        if world.hardware.page_tables is not AddressSpace:
            self.mm.space = world.hardware.page_tables(self.mm.name, self.mm.space.log)
        self.world = world
        self.pid = pid

    def fget(self, fd: int) -> File | int:
        """The model's file of a descriptor of the real process; -EBADF for one of O_PATH."""
        file = self.node(fd)
        return -EBADF if file is None or file.flags & O_PATH else file

    def node(self, fd: int) -> File | None:
        """As `fget`, but for descriptors of O_PATH as well; None if it is not one of a device."""
        try:
            stand_in = identity(f"/proc/{self.pid}/fd/{fd}")
        except OSError:
            return None
        return self.world.files.get(stand_in)


class LiveUser:
    """`linux.uaccess.UserMemory` over a real process."""

    def __init__(self, world: World, host: HostMemory) -> None:
        self.host = host
        self.world = world
        self._batch = b""
        self._batch_at = 0

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes, or None if not all of them can be read."""
        return self.host.read(address, size)

    def write(self, address: int, data: bytes) -> bool:
        """Write `data`; whether all of it could be written."""
        return self.host.write(address, data)

    def forget(self) -> None:
        """Drop what was read ahead."""
        self._batch = b""

    def source_page(self, address: int) -> int:
        """The pfn of a frame with a copy of the page, or a negated errno.

        Pages are read ahead, which is safe because the thread is stopped.
        """
        offset = address - self._batch_at
        if not 0 <= offset < len(self._batch):
            found = self._read_ahead(address)
            if found:
                return found
            offset = 0
        page = self._batch[offset : offset + PAGE_SIZE]
        if page == ZERO_PAGE:
            return self.world.kernel.zero_page
        self.world.memory.write_page(self.world.source_frame, page)
        return self.world.source_frame

    def _read_ahead(self, address: int) -> int:
        """Read pages from `address` on. 0, or a negated errno if the first one cannot be read."""
        if self.host.noexec(address):
            return -EACCES
        data = self.host.read(address, _BATCH * PAGE_SIZE)
        if data is None:
            data = self.host.read(address, PAGE_SIZE)
        if data is None or not self.host.area(address) & VM_READ:
            return -EFAULT
        self._batch, self._batch_at = data, address
        return 0


def enclave_area(mm: Mm, address: int) -> bool:
    """Whether an address is in a mapping of /dev/sgx_enclave."""
    vma = mm.vma_lookup(address)
    return vma is not None and vma.sgx
