"""Where the SGX2 interfaces differ: that of Linux 6.x, and that of the V2 series.

The V2 series of February 2022 was posted and not merged. Its kernel mirrors in `vm_run_prot_bits`
what it takes the EPCM's R, W, X to be, and builds PTEs from area and mirror. `v2.py` has its
ioctls. Source: the series as posted; patches 06, 07, 08 and 19 of 32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from softsgx.linux import uapi
from softsgx.sim import Unmodelled
from softsgx.spec.epcm import R, W

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softsgx.linux.mm import Vma
    from softsgx.linux.process import Thread
    from softsgx.linux.sgx.encl import SgxEncl, SgxEnclPage
    from softsgx.sim import Steps

    Handler = Callable[[Thread, SgxEncl, int], Steps[int]]


def _names(prefix: str) -> dict[int, str]:
    return {
        value: name.replace(prefix, "SGX_IOC_", 1)
        for name, value in vars(uapi).items()
        if name.startswith(prefix)
    }


class SgxInterface:
    """Linux 6.x: the kernel does not record the EPCM's permissions.

    has_relax        RELAX_PERMISSIONS exists: the host announces what the enclave extends
    has_pfn_mkwrite  sgx_vm_ops.pfn_mkwrite exists, so PTEs lack W until the first write
    requests         the names of the ioctls of /dev/sgx_enclave, by number
    """

    __slots__ = ()

    has_relax: ClassVar[bool] = False
    has_pfn_mkwrite: ClassVar[bool] = False
    requests: ClassVar[Mapping[int, str]] = _names("SGX_IOC_")

    def page_ioctls(self) -> Mapping[int, Handler]:
        """Request number -> handler, of those that change pages of a running enclave."""
        from softsgx.linux.sgx.edmm import HANDLERS

        return HANDLERS

    def mapping_cap(self, page: SgxEnclPage) -> int:
        """The most that mmap and mprotect may grant on a page."""
        return page.vm_max_prot_bits

    def fault_rights(self, vma: Vma) -> int:
        """The rights that the cap of a page must include for a fault to map it."""
        return vma.flags

    def pte_rights(self, vma: Vma, page: SgxEnclPage) -> int:
        """R, W, X of the PTE that a fault makes."""
        return vma.flags

    def eaug_pte_rights(self, vma: Vma) -> int:
        """R, W, X of the PTE of a page that the fault has added by EAUG."""
        return vma.flags


class SgxInterfaceV2(SgxInterface):
    """The V2 series: RELAX and RESTRICT set a mirror, which limits PTEs and mprotect()."""

    __slots__ = ()

    has_relax = True
    has_pfn_mkwrite = True
    requests: ClassVar[Mapping[int, str]] = {**SgxInterface.requests, **_names("V2_IOC_")}

    def page_ioctls(self) -> Mapping[int, Handler]:
        """The four of the series. Their request numbers are not those of 6.x."""
        from softsgx.linux.sgx.v2 import HANDLERS

        return HANDLERS

    def mapping_cap(self, page: SgxEnclPage) -> int:
        """The mirror."""
        return page.vm_run_prot_bits

    def fault_rights(self, vma: Vma) -> int:
        """No rights: the fault handler of the series does not compare them with the cap."""
        return 0

    def pte_rights(self, vma: Vma, page: SgxEnclPage) -> int:
        """Those that both area and mirror have; so the access may fault again on the new PTE."""
        rights = vma.flags & page.vm_run_prot_bits
        if not rights:
            raise Unmodelled("V2: an entry with no rights in an area that has some")
        return rights

    def eaug_pte_rights(self, vma: Vma) -> int:
        """PAGE_SHARED, that is R and W, whatever the rights of the area are."""
        return R | W
