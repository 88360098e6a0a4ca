"""The kernel as a whole: one processor, its switches, EPC lists, and what tests inject.

Everything that interleaves is a generator (`sim.Steps`); `Kernel` itself only holds state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from softsgx.linux.sgx.design import PermissionDesign
from softsgx.linux.sgx.python_driver import PythonDriver
from softsgx.linux.version import VERSION_DEFAULT, VERSIONS, KernelVersion
from softsgx.mem.pagetable import direct
from softsgx.sim.waits import WaitQueue
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor, Processor
    from softsgx.linux.mm import Mm
    from softsgx.linux.process import Thread
    from softsgx.linux.sgx.face import SgxDriver
    from softsgx.linux.sgx.main import SgxEpcPage

_OPERAND_BYTES = 256  # PAGEINFO, SECINFO or PCMD, RDINFO: one block of operands


def take_interrupt(lp: LogicalProcessor, vector: int) -> object:
    """Have the processor take an interrupt: an AEX if it is inside."""
    return lp.interrupt(vector)


class Operands:
    """Kernel memory for the operands of one ENCLS: a 256-byte block, reused."""

    __slots__ = ("address", "physical")

    def __init__(self, physical: int) -> None:
        self.physical = physical
        self.address = direct(physical)


class Kernel:
    """State of the kernel that belongs to no single process or enclave.

    `free_pages` is the list of EPC pages that were freed; pages from `next_unused` on were never
    handed out and are free as well (all of EPC right after boot). `active_page_list` has what the
    reclaimer may take (sgx_active_page_list). In the kernel spinlocks protect both; here no point
    divides their use. A test sets `inject(site)` to make the kernel fail at a named place.
    """

    def __init__(self, processor: Processor, version: KernelVersion | None = None) -> None:
        self.processor = processor
        self.version = version if version is not None else VERSIONS[VERSION_DEFAULT]
        self.races = self.version.races
        self.has_sgx2 = processor.part.sgx2
        # sgx_drv_init requires X86_FEATURE_SGX_LC. Without that, and without vepc, sgx_init
        # unregisters /dev/sgx_provision as well. Linux 6.12, sgx/main.c, sgx_init
        self.has_nodes = processor.part.launch_control
        self.inject: Callable[[str], bool] | None = None
        self.design = PermissionDesign()
        self.driver: SgxDriver = PythonDriver()
        # How a processor takes an interrupt: (processor, vector).
        self.take_interrupt: Callable[[LogicalProcessor, int], object] = take_interrupt
        # EPC: filled by sgx_init.
        self.next_unused = 0
        self.epc_pages: list[SgxEpcPage] = []  # by number; only pages that were ever handed out
        self.poisoned_unused: dict[int, None] = {}
        self.nr_free = processor.epc.pages
        self.free_pages: deque[SgxEpcPage] = deque()
        self.active_page_list: dict[SgxEpcPage, None] = {}
        self.ksgxd_waitq = WaitQueue("ksgxd_waitq")
        self.ksgxd_tsk: Thread | None = None
        self.ksgxd_running = False
        self.low_watermark = 32
        self.high_watermark = 64
        self.nr_to_scan = 16  # SGX_NR_TO_SCAN: how many pages a reclaim pass looks at
        # Logical processor -> the address space whose threads run there, one at a time.
        self.loaded: dict[int, Mm] = {}
        self.warnings: list[str] = []
        # The kernel log: key of a pr_*_once -> the line printed.
        self.printed = {
            f"EPC section {number}": f"sgx: EPC section {base:#x}-{base + pages * PAGE_SIZE - 1:#x}"
            for number, (base, pages) in enumerate(processor.epc.sections)
        }
        self.enclaves_opened = 0
        self.dev_noexec = False  # /dev is mounted noexec
        self._operands: list[Operands] = []
        self._frames: list[int] = []
        self.zero_page = self.alloc_page()  # ZERO_PAGE: never written

    def fail(self, site: str) -> bool:
        """Whether a test makes the kernel fail at `site` now (an allocation, a split, ...)."""
        return self.inject is not None and self.inject(site)

    def warn(self, text: str) -> None:
        """A kernel warning: recorded, so that tests can demand that there is none."""
        self.warnings.append(text)

    def pr_err_once(self, what: str, values: str) -> None:
        """A line of the kernel log, printed once; later values are dropped."""
        if what not in self.printed:
            self.printed[what] = f"sgx: {what} {values}"

    # Kernel memory

    def get_operands(self) -> Operands:
        """A block of operand memory for one ENCLS."""
        if not self._operands:
            frame = self.processor.memory.alloc() << PAGE_SHIFT
            blocks = range(frame, frame + PAGE_SIZE, _OPERAND_BYTES)
            self._operands += [Operands(block) for block in reversed(blocks)]
        return self._operands.pop()

    def put_operands(self, block: Operands) -> None:
        """Give a block back."""
        self._operands.append(block)

    def alloc_page(self) -> int:
        """alloc_page(GFP_ZERO): a frame of RAM, zeroed; its pfn."""
        if self._frames:
            return self._frames.pop()
        return self.processor.memory.alloc()

    def free_page(self, pfn: int) -> None:
        """Give a frame back."""
        self.processor.memory.clear_page(pfn)
        self._frames.append(pfn)

    def sgx_total_bytes(self) -> str:
        """The text of /sys/devices/system/node/node0/x86/sgx_total_bytes."""
        return f"{self.processor.epc.pages * PAGE_SIZE}\n"

    def lp(self, current: Thread) -> LogicalProcessor:
        """The logical processor on which `current` runs."""
        return self.processor.lps[current.cpu]
