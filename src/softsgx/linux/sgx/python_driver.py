"""The driver of this folder, as the rest of the kernel calls it. Linux 6.12, sgx/driver.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.linux.bug import KernelBug
from softsgx.linux.errno import ENOMEM
from softsgx.linux.sgx import encl as e
from softsgx.linux.sgx.debug import sgx_vma_access
from softsgx.linux.sgx.driver import SgxEnclaveNode
from softsgx.linux.sgx.main import ksgxd, sgx_reclaim_pages
from softsgx.linux.syscalls import SGX_ENCLAVE
from softsgx.linux.vfs import File, ProvisionNode

if TYPE_CHECKING:
    from softsgx.linux.kernel import Kernel
    from softsgx.linux.mm import Mm, Vma
    from softsgx.linux.process import Thread
    from softsgx.sim import Steps


class PythonDriver:
    """Its state is that of the kernel and of the enclaves."""

    def open(self, current: Thread, path: str, flags: int) -> Steps[File | int]:
        """sgx_open: a new, empty enclave; or the provisioning node."""
        kernel = current.kernel
        if path != SGX_ENCLAVE:
            return File(path, ProvisionNode(), flags)
        if kernel.fail("sgx_open"):
            return -ENOMEM
        file = File(path, SgxEnclaveNode(), flags)
        kernel.enclaves_opened += 1
        file.encl = e.SgxEncl(kernel, f"enclave {kernel.enclaves_opened}")
        return file
        yield

    def fault(self, current: Thread, vma: Vma, address: int) -> Steps[str]:
        """sgx_vma_fault."""
        return e.sgx_vma_fault(current, vma, address)

    def pfn_mkwrite(self, current: Thread, vma: Vma, address: int) -> Steps[str]:
        """sgx_vma_pfn_mkwrite of the V2 series; other kernels have none."""
        if not current.kernel.version.interface.has_pfn_mkwrite:
            return e.VM_FAULT_NOPAGE
        return (yield from e.sgx_vma_pfn_mkwrite(current, vma, address))

    def vma_open(self, current: Thread, vma: Vma, mm: Mm) -> Steps[None]:
        """sgx_vma_open: a failure leaves an area without an enclave."""
        if vma.encl and (yield from e.sgx_encl_mm_add(current, vma.encl, mm)):
            vma.encl = None

    def mprotect(self, current: Thread, vma: Vma, start: int, end: int, prot: int) -> Steps[int]:
        """sgx_vma_mprotect."""
        if vma.encl is None:
            raise KernelBug("sgx_vma_mprotect: NULL dereference of vm_private_data")
        return e.sgx_encl_may_map(current, vma.encl, start, end, prot)

    def access(
        self, current: Thread, vma: Vma, address: int, buf: memoryview, write: bool
    ) -> Steps[int]:
        """sgx_vma_access."""
        return sgx_vma_access(current, vma, address, buf, write)

    def ksgxd(self, current: Thread) -> Steps[None]:
        """The daemon."""
        return ksgxd(current)

    def reclaim(self, current: Thread) -> Steps[None]:
        """sgx_reclaim_pages."""
        return sgx_reclaim_pages(current)

    def free_pages(self, kernel: Kernel) -> tuple[list[int], int]:
        """Pages that were never used are not on the list."""
        return [page.number for page in kernel.free_pages], kernel.nr_free

    def offer(self, kernel: Kernel, encl: e.SgxEncl, address: int) -> None:
        """sgx_active_page_list."""
        entry = encl.page(address)
        assert entry is not None
        assert entry.epc_page is not None
        kernel.active_page_list.clear()
        kernel.active_page_list[entry.epc_page] = None
