"""The kernel's own driver in the place of that of `linux/sgx`: `linux/sgx/face.py` over its C code.

Here are the objects that stand for what the C code holds by address: locks, address spaces, files.
They are those of `sim` and `linux`; the requests of a task act on them (`requests`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from softsgx.cdriver.arena import Arena
from softsgx.cdriver.call import Call
from softsgx.cdriver.enclave import CEncl, unpack
from softsgx.cdriver.errors import DriverError
from softsgx.cdriver.requests import mm as areas
from softsgx.linux.bug import KernelBug
from softsgx.linux.errno import ENOIOCTLCMD, ENOTTY
from softsgx.linux.mm import VM_RWX
from softsgx.linux.sgx.encl import (
    VM_FAULT_BUSY,
    VM_FAULT_NOPAGE,
    VM_FAULT_OOM,
    VM_FAULT_SIGBUS,
)
from softsgx.linux.syscalls import SGX_ENCLAVE
from softsgx.linux.trace import refused_call, request_name, trace_call
from softsgx.linux.vfs import File
from softsgx.sim.waits import WaitFlag, WaitQueue
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.msr import CR4_OSXSAVE

if TYPE_CHECKING:
    from softsgx.linux.kernel import Kernel
    from softsgx.linux.mm import Mm, Vma
    from softsgx.linux.process import Thread
    from softsgx.linux.sgx.encl import SgxEncl
    from softsgx.sim import Steps
    from softsgx.sim.locks import Mutex
    from softsgx.sim.srcu import Reader, Srcu

KSGXD: Final = "ksgxd"
# Bits of k_features, in the order of c/include/machine.h.
_SGX, _SGX_LC, _SGX1, _SGX2, _OSXSAVE = range(5)
_FREE_MAX: Final = 4096  # of c/view.c
_FAULTS: Final = {0x1: VM_FAULT_OOM, 0x2: VM_FAULT_SIGBUS, 0x100: VM_FAULT_NOPAGE}
_NO_OWN_RELEASE = 1


class Notifier:
    """struct mmu_notifier of an address space; `put` once the driver has given it up."""

    def __init__(self, driver: CDriver, address: int, mm: Mm) -> None:
        self.driver = driver
        self.address = address
        self.mm = mm
        self.put = False
        self.released = False
        self.ended = WaitFlag("mmu_notifier release")

    def exit(self, current: Thread) -> Steps[None]:
        """The address space exits: the release hook; then the notifier is freed if it was put."""
        if self.released:
            return
        self.released = True
        driver = self.driver
        try:
            address = driver.mm_address(self.mm)
            yield from driver.call(current).run("k_call_notifier_release", self.address, address)
        finally:
            self.ended.set()
        if self.put:
            yield from driver.call(current).run("k_call_notifier_free", self.address)

    def unregister(self) -> Steps[int]:
        """Take it out: whether its release hook is still to be called, by the caller."""
        if not self.released:
            self.released = True
            return _NO_OWN_RELEASE
        if not self.ended.is_set:
            yield from self.ended.wait()
        return 0


class CNode:
    """File operations of one open description, whose struct file is at `address`."""

    def __init__(self, driver: CDriver, address: int, *, can_map: bool) -> None:
        self._driver = driver
        self._address = address
        self._can_map = can_map

    def release(self, current: Thread, file: File) -> Steps[None]:
        """The last reference to the description is gone."""
        driver = self._driver
        yield from driver.call(current).run("k_call_release", self._address)
        driver.forget(file)

    def ioctl(self, current: Thread, file: File, cmd: int, arg: int) -> Steps[int]:
        """unlocked_ioctl."""
        if not isinstance(file.encl, CEncl):
            rule = "sgx_provision_fops.request"
            return refused_call(current, "ioctl", ENOTTY, rule, request=cmd)
        steps = self._ioctl(current, cmd, arg)
        if current.kernel.processor.log.on:
            fields = (("enclave", file.encl.number), ("arg", arg))
            steps = trace_call(current, request_name(current.kernel.version, cmd), fields, steps)
        return (yield from steps)

    def _ioctl(self, current: Thread, cmd: int, arg: int) -> Steps[int]:
        driver = self._driver
        mm = driver.mm_address(current.mm)
        ret = yield from driver.call(current).run("k_call_ioctl", self._address, cmd, arg, mm=mm)
        return -ENOTTY if ret == -ENOIOCTLCMD else ret

    @property
    def get_unmapped_area(self) -> Callable[[Thread, int, int, int], int] | None:
        """The hook that chooses the address of a mapping; it has no point."""
        return self._get_unmapped_area if self._can_map else None

    def _get_unmapped_area(self, current: Thread, address: int, length: int, flags: int) -> int:
        driver = self._driver
        arguments = (self._address, address, length, flags)
        mm = driver.mm_address(current.mm)
        call = driver.call(current)
        return without_points(call.run("k_call_get_unmapped_area", *arguments, mm=mm))

    @property
    def mmap(self) -> Callable[[Thread, File, Vma], Steps[int]] | None:
        """The hook that checks and prepares an area; mmap_lock held for writing."""
        return self._mmap if self._can_map else None

    def _mmap(self, current: Thread, _file: File, vma: Vma) -> Steps[int]:
        driver = self._driver
        call, view = driver.call_with_area(current, current.mm, vma, mapped=False)
        mm = driver.mm_address(current.mm)
        ret = yield from call.run("k_call_mmap", self._address, view, mm=mm)
        if not ret:
            driver.take_area(vma, view)
        return ret


class CDriver:
    """The driver of a driver object, for one kernel.

    Each table has what stands for an object of the C code, by its address. `broken` is what made
    the driver unusable.
    """

    def __init__(self, kernel: Kernel, path: Path) -> None:
        self.kernel = kernel
        self.arena = Arena(path)
        self.broken = ""
        self.mutexes: dict[int, Mutex] = {}
        self.srcus: dict[int, Srcu] = {}
        self.readers: dict[int, Reader] = {}
        self.queues: dict[int, WaitQueue] = {}
        self.shmem: dict[int, dict[int, int]] = {}
        self.windows: dict[int, int] = {}
        self.notifiers: dict[int, Notifier] = {}
        self.nodes: dict[str, int] = {}
        self.kthreads: dict[str, int] = {}
        self.files: dict[int, File] = {}
        self._file_addresses: dict[File, int] = {}
        self._mms: dict[int, Mm] = {}
        self._mm_addresses: dict[Mm, int] = {}
        self._encls: dict[int, CEncl] = {}
        self._threads: dict[Thread, int] = {}
        self.vm_ops = 0
        self._inject = False

    # What the C code holds by address

    def mm(self, address: int) -> Mm:
        """The address space of a struct mm_struct."""
        return self._mms[address]

    def mm_address(self, found: Mm) -> int:
        """Its struct mm_struct, made when it is first asked for."""
        address = self._mm_addresses.get(found)
        if address is None:
            address = self._mm_addresses[found] = self.arena.call("k_new_mm")
            self._mms[address] = found
        return address

    def number_of(self, thread: Thread) -> int:
        """The number of a thread in notes."""
        return self._threads.setdefault(thread, len(self._threads))

    def thread_name(self, number: int) -> str:
        """The name of the thread with a number."""
        return next(thread.name for thread, n in self._threads.items() if n == number)

    def file_address(self, file: File) -> int:
        """Its struct file; 0 if it is not a file of this driver."""
        return self._file_addresses.get(file, 0)

    def forget(self, file: File) -> None:
        """A file is gone."""
        self.files.pop(self._file_addresses.pop(file), None)

    def encl_address(self, vma: Vma) -> int:
        """vm_private_data of an area."""
        encl = cast("CEncl | None", vma.encl)
        return 0 if encl is None else encl.address

    def take_area(self, vma: Vma, view: int) -> None:
        """Take over what the driver has changed in the view of an area."""
        fields = areas.AREA.unpack(self.arena.read(view, areas.AREA.size))
        _start, _end, flags, _pgoff, _mm, self.vm_ops, private, _file = fields
        encl = self._encls[private] if private else None
        # Other code knows enclaves of the driver in Python; this one has the same face.
        vma.encl = cast("SgxEncl | None", encl)
        vma.flags = flags & VM_RWX

    def add_notifier(self, address: int, found: Mm) -> None:
        """__mmu_notifier_register."""
        notifier = self.notifiers[address] = Notifier(self, address, found)
        found.notifiers.append(notifier.exit)

    def view(self, function: str, words: int, *arguments: int) -> tuple[int, ...]:
        """The words that a function of c/view.c fills in."""
        return self.view_with(function, words, *arguments)[0]

    def view_with(self, function: str, words: int, *arguments: int) -> tuple[tuple[int, ...], int]:
        """The same, with what it returns."""
        out = self.arena.symbol("k_view_out")
        returned = self.arena.call(function, *arguments, out)
        return unpack(self.arena.read(out, 8 * words)), returned

    # Initialisation

    def boot(self, thread: Thread) -> None:
        """device_initcall, and the daemon up to its first wait. `thread` is the daemon's."""
        part, lp = self.kernel.processor.part, self.kernel.lp(thread)
        features = 1 << _SGX | 1 << _SGX1 | part.launch_control << _SGX_LC | part.sgx2 << _SGX2
        features |= bool(lp.cr4 & CR4_OSXSAVE) << _OSXSAVE
        self.arena.set_word("k_features", features)
        self.arena.set_word("k_booting", 1)
        self.kernel.printed.clear()  # the driver prints its sections itself
        ret = without_points(self.call(thread).run("k_initcall"))
        if ret and part.launch_control:
            raise DriverError(f"driver: sgx_init returns {ret}")
        self.kernel.has_nodes = SGX_ENCLAVE in self.nodes
        if KSGXD in self.kthreads:
            self._first_wait(thread)
        self.arena.set_word("k_booting", 0)

    def _first_wait(self, thread: Thread) -> None:
        steps = self.ksgxd(thread)
        for kind, _, _ in steps:
            if kind == "wait":
                break
        steps.close()

    # linux/sgx/face.py

    def point_at_accesses(self) -> None:
        """From now on each access of the C code to shared memory is a point."""
        self.arena.set_word("k_access_points", 1)

    def call(self, current: Thread, label: str = "") -> Call:
        """A call that is about to be made. KernelBug if the driver is broken."""
        if self.broken:
            raise KernelBug(f"the driver is unusable since: {self.broken}")
        inject = self.kernel.inject is not None
        if inject is not self._inject:
            self._inject = inject
            self.arena.set_word("k_inject", int(inject))
        return Call(self, current, label)

    def open(self, current: Thread, path: str, flags: int) -> Steps[File | int]:
        """The open hook of a node."""
        is_enclave = path == SGX_ENCLAVE
        number = self.kernel.enclaves_opened + 1
        name = f"enclave {number}" if is_enclave else ""
        ret = yield from self.call(current, name).run("k_call_open", self.nodes[path])
        if ret < 0:
            return ret
        file = File(path, CNode(self, ret, can_map=is_enclave), flags)
        self.files[ret] = file
        self._file_addresses[file] = ret
        if is_enclave:
            self.kernel.enclaves_opened = number
            (private,) = unpack(self.arena.read(ret + 8, 8))
            file.encl = self._encls[private] = CEncl(self, private, name, number)
        return file

    def fault(self, current: Thread, vma: Vma, address: int) -> Steps[str]:
        """vm_ops->fault."""
        call, view = self.call_with_area(current, current.mm, vma)
        ret = yield from call.run("k_call_fault", view, address, 0, mm=self.mm_address(current.mm))
        if ret not in _FAULTS:
            raise call.bug(f"the fault handler returns {ret:#x}")
        found = _FAULTS[ret]
        # Nothing was mapped: the access faults again until it can be.
        return VM_FAULT_BUSY if found == VM_FAULT_NOPAGE and not call.inserted else found

    def pfn_mkwrite(self, current: Thread, vma: Vma, address: int) -> Steps[str]:
        """vm_ops->pfn_mkwrite, if there is one."""
        call, view = self.call_with_area(current, current.mm, vma)
        ret = yield from call.run(
            "k_call_pfn_mkwrite", view, address, mm=self.mm_address(current.mm)
        )
        return VM_FAULT_SIGBUS if ret == 0x2 else VM_FAULT_NOPAGE

    def vma_open(self, current: Thread, vma: Vma, mm: Mm) -> Steps[None]:
        """vm_ops->open."""
        call, view = self.call_with_area(current, mm, vma)
        yield from call.run("k_call_vma_open", view, mm=self.mm_address(current.mm))
        self.take_area(vma, view)

    def mprotect(self, current: Thread, vma: Vma, start: int, end: int, prot: int) -> Steps[int]:
        """vm_ops->mprotect."""
        call, view = self.call_with_area(current, current.mm, vma)
        address = self.mm_address(current.mm)
        return (yield from call.run("k_call_mprotect", view, start, end, prot, mm=address))

    def access(
        self, current: Thread, vma: Vma, address: int, buf: memoryview, write: bool
    ) -> Steps[int]:
        """vm_ops->access."""
        call, view = self.call_with_area(current, current.mm, vma)
        size = len(buf)
        out = self.arena.call("k_new", size, 16, 1)
        self.arena.write(out, bytes(buf))
        try:
            ret = yield from call.run("k_call_access", view, address, out, size, int(write))
            if not write and ret > 0:
                buf[:ret] = self.arena.read(out, ret)
        finally:
            self.arena.call("kfree", out)
        return ret

    def ksgxd(self, current: Thread) -> Steps[None]:
        """The daemon's thread, from its beginning."""
        thread = self.kthreads[KSGXD]
        yield from self.call(current).run("k_call_kthread", thread, thread=thread)

    def reclaim(self, current: Thread) -> Steps[None]:
        """sgx_reclaim_pages."""
        yield from self.call(current).run("sgx_reclaim_pages")

    def free_pages(self, kernel: Kernel) -> tuple[list[int], int]:
        """Every free page, whether or not it was ever used; and the driver's own count."""
        found: list[int] = []
        first = 0
        for section, (_base, pages) in enumerate(kernel.processor.epc.sections):
            for at in range(0, pages, _FREE_MAX):
                count = min(_FREE_MAX, pages - at)
                self.arena.call("k_view_free", section, at, count)
                raw = self.arena.read(self.arena.symbol("k_view_bits"), _FREE_MAX // 8)
                bits = int.from_bytes(raw, "little")
                found += [first + at + n for n in range(count) if bits >> n & 1]
            first += pages
        raw = self.arena.read(self.arena.symbol("sgx_nr_free_pages"), 8)
        return found, int.from_bytes(raw, "little")

    def offer(self, kernel: Kernel, encl: SgxEncl, address: int) -> None:
        """sgx_active_page_list."""
        active = self.arena.symbol("sgx_active_page_list")
        own = cast("CEncl", encl)
        entry = own.page(address)
        assert entry is not None
        assert entry.epc_page is not None
        self.arena.call("k_offer", active, own.address, address >> PAGE_SHIFT)

    def call_with_area(
        self, current: Thread, mm: Mm, vma: Vma, *, mapped: bool = True
    ) -> tuple[Call, int]:
        """A call, and the view of an area that it passes."""
        call = self.call(current)
        view = self.arena.caller_area(call.number)
        self.arena.write(view, areas.area(self, mm, vma, mapped=mapped))
        return call, view


def without_points(steps: Steps[int]) -> int:
    """Run a call that must have no point; its value."""
    try:
        point = next(steps)
    except StopIteration as end:
        value: int = end.value
        return value
    steps.close()
    raise KernelBug(f"a point where none can be: {point}")
