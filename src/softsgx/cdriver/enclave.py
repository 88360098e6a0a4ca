"""An enclave of the C driver, as the rest of softsgx reads it: by the names of `linux/sgx/encl.py`.

Every attribute is read from the driver's own structures when it is asked for.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.mem.pagetable import direct
from softsgx.spec.bits import MASK64, PAGE_SHIFT
from softsgx.spec.epcm import PT_SECS

if TYPE_CHECKING:
    from softsgx.cdriver.driver import CDriver
    from softsgx.linux.mm import Mm

# The words that k_view_encl and k_view_page fill in; c/view.c.
_ENCL: Final = (
    *("base", "size", "flags", "page_cnt", "secs_child_cnt", "attributes", "attributes_mask"),
    *("mm_list_version", "refcount", "secs_pfn", "pages"),
)  # fmt: skip
_PAGE: Final = (
    "address",
    "vm_max_prot_bits",
    "type",
    "pfn",
    "being_reclaimed",
    "epc_flags",
    "va_pfn",
)


class EpcPage:
    """The EPC page that an enclave page is in."""

    def __init__(self, driver: CDriver, pfn: int, flags: int) -> None:
        self.pfn = pfn
        self.flags = flags
        self.number = driver.kernel.processor.epc.index(pfn)
        self.address = direct(pfn << PAGE_SHIFT)

    def __repr__(self) -> str:
        return f"<EPC page {self.number}>"


class VaPage(NamedTuple):
    """struct sgx_va_page."""

    epc_page: EpcPage


class EnclMm(NamedTuple):
    """struct sgx_encl_mm."""

    mm: Mm


class EnclPage:
    """struct sgx_encl_page, as it was when it was read."""

    def __init__(self, encl: CEncl, values: dict[str, int]) -> None:
        self.encl = encl
        self.address = values["address"]
        self.vm_max_prot_bits = values["vm_max_prot_bits"]
        self.type = values["type"]
        self.being_reclaimed = bool(values["being_reclaimed"])
        pfn = values["pfn"]
        self.epc_page = EpcPage(encl.driver, pfn, values["epc_flags"]) if pfn else None
        va_pfn = values["va_pfn"]
        self.va_page = VaPage(EpcPage(encl.driver, va_pfn, 0)) if va_pfn else None

    @property
    def available(self) -> bool:
        """Resident, and not being reclaimed."""
        return self.epc_page is not None and not self.being_reclaimed


class CEncl:
    """struct sgx_encl at `address`."""

    def __init__(self, driver: CDriver, address: int, name: str, number: int) -> None:
        self.driver = driver
        self.address = address
        self.name = name
        self.number = number

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def _values(self) -> dict[str, int]:
        return dict(
            zip(_ENCL, self.driver.view("k_view_encl", len(_ENCL), self.address), strict=True)
        )

    @property
    def base(self) -> int:
        """The base address."""
        return self._values()["base"]

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self._values()["size"]

    @property
    def flags(self) -> int:
        """SGX_ENCL_*, with the bits of `linux/sgx/encl.py`."""
        return self._values()["flags"]

    @property
    def attributes(self) -> int:
        """ATTRIBUTES of the SECS."""
        return self._values()["attributes"]

    @property
    def page_cnt(self) -> int:
        """Pages that were counted for VA slots."""
        return self._values()["page_cnt"]

    @property
    def secs_child_cnt(self) -> int:
        """Resident children of the SECS."""
        return self._values()["secs_child_cnt"]

    @property
    def secs(self) -> EnclPage:
        """The SECS."""
        values = dict.fromkeys(_PAGE, 0)
        return EnclPage(self, {**values, "type": PT_SECS, "pfn": self._values()["secs_pfn"]})

    @property
    def va_pages(self) -> list[VaPage]:
        """The VA pages, in the order of the list."""
        found: list[VaPage] = []
        while pfn := self.driver.arena.call("k_view_va_page", self.address, len(found)):
            found.append(VaPage(EpcPage(self.driver, pfn, 0)))
        return found

    @property
    def mm_list(self) -> list[EnclMm]:
        """The address spaces, in the order of the list."""
        found: list[EnclMm] = []
        while address := self.driver.arena.call("k_view_mm", self.address, len(found)):
            found.append(EnclMm(self.driver.mm(address)))
        return found

    @property
    def page_array(self) -> dict[int, EnclPage]:
        """All pages, by page number."""
        found: dict[int, EnclPage] = {}
        first = 0
        while True:
            index, page = self._next(first)
            if page is None:
                return found
            found[index] = page
            first = index + 1

    def page(self, address: int) -> EnclPage | None:
        """The page at an address."""
        index, page = self._next(address >> PAGE_SHIFT)
        return page if index == address >> PAGE_SHIFT else None

    def _next(self, first: int) -> tuple[int, EnclPage | None]:
        """The first page from a page number on, with its own."""
        values, index = self.driver.view_with("k_view_page", len(_PAGE), self.address, first)
        if index == MASK64:
            return index, None
        return index, EnclPage(self, dict(zip(_PAGE, values, strict=True)))


def unpack(data: bytes) -> tuple[int, ...]:
    """Words of 8 bytes."""
    return struct.unpack(f"<{len(data) // 8}Q", data)
