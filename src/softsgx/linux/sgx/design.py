"""Where other designs of restricting page permissions plug into the driver.

Linux 6.12 has none of these hooks; each does nothing here. The room `lab` overrides them to build
what was proposed on the mailing list in 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.linux.mm import Mm
    from softsgx.linux.process import Thread
    from softsgx.linux.sgx.encl import SgxEncl, SgxEnclPage
    from softsgx.sim import Steps


class PermissionDesign:
    """Restriction by ioctl only, as in Linux 6.12: mprotect() and faults leave the EPCM alone."""

    def ioctls(self) -> dict[int, Callable[[Thread, SgxEncl, int], Steps[int]]]:
        """Request number -> handler, added to those of the kernel's interface or replacing them."""
        return {}

    def change_ptes(self, mm: Mm, encl: SgxEncl, start: int, end: int) -> bool:
        """mprotect() has set the rights of an area: change PTEs; return whether TLBs need a flush.

        mmap_lock held for writing.
        """
        return False

    def after_mprotect(
        self, current: Thread, encl: SgxEncl, start: int, end: int, prot: int
    ) -> Steps[int]:
        """The end of mprotect() on one area, whether or not its rights changed: 0 or an errno.

        mmap_lock held for writing.
        """
        return 0
        yield

    def before_pte(self, current: Thread, encl: SgxEncl, entry: SgxEnclPage) -> Steps[int]:
        """A fault is about to map a resident page: 0, or an errno that ends in SIGBUS.

        mmap_lock held for reading, and encl.lock.
        """
        return 0
        yield
