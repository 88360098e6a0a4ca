"""Operands of leaves: the tests that many operation listings share, each under the leaf's own rule.

ENCLS operands are linear addresses of CPL 0. ENCLU operands inside an enclave are translated by the
page tables as CPL 3 and must lie in ELRANGE; the EPCM is tested by the leaf, not by the TLB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.cpu.access import walk
from softsgx.cpu.fault import ENCLU_PFEC, ENCLU_PFEC_W, GP, PF
from softsgx.mem.pagetable import PTE_PFN_MASK
from softsgx.mem.tlb import READ, WRITE
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT
from softsgx.spec.epcm import USABLE_MASK, USABLE_REG, R, W
from softsgx.spec.paging import SECINFO_RESERVED
from softsgx.spec.translation import PTE_READ_DONE

if TYPE_CHECKING:
    from softsgx.cpu.lp import LogicalProcessor
    from softsgx.spec.tcs import TCS


def in_elrange(lp: LogicalProcessor, address: int) -> bool:
    """Whether `address` lies in the ELRANGE of the running enclave."""
    return lp.elrange_base <= address < lp.elrange_end


def enclave_page(lp: LogicalProcessor, address: int, write: bool, rule: str) -> int:
    """EPC page number of an ENCLU operand. Page faults as usual; #PF `rule` if it is not EPC."""
    pte = lp.space.ptes.get(address >> PAGE_SHIFT, 0)
    if write or pte & PTE_READ_DONE != PTE_READ_DONE:
        pte = walk(lp, address, WRITE if write else READ)
    epc = lp.processor.epc
    page = ((pte & PTE_PFN_MASK) >> PAGE_SHIFT) - epc.first
    if 0 <= page < epc.contiguous:
        return page
    page = epc.index(page + epc.first)
    if page < 0:
        raise PF(address, rule, ENCLU_PFEC_W if write else ENCLU_PFEC)
    return page


def usable_page(
    lp: LogicalProcessor, page: int, address: int, rule: str, *, write: bool = False
) -> None:
    """#PF `rule` unless this is a usable PT_REG page of the enclave, with R, or W if `write`."""
    epcm = lp.processor.epcm
    word = epcm.state[page]
    if (
        word & USABLE_MASK != USABLE_REG
        or not word & (W if write else R)
        or epcm.secs[page] != lp.secs_page
        or epcm.address[page] != address & ~PAGE_MASK
    ):
        raise PF(address, rule, ENCLU_PFEC_W if write else ENCLU_PFEC)


def epc_read(lp: LogicalProcessor, page: int, address: int, size: int) -> bytes:
    """`size` bytes of an EPC page, at the offset of `address`."""
    processor = lp.processor
    return processor.memory.read(processor.epc.physical(page) | (address & PAGE_MASK), size)


def enclave_secinfo(
    lp: LogicalProcessor, page: int, address: int, rule: str, reserved: int = SECINFO_RESERVED
) -> int:
    """FLAGS of the SECINFO at `address` in EPC page `page`; a reserved bit set is #GP(0)."""
    processor = lp.processor
    offset = address & PAGE_MASK
    view = processor.memory.page_view(processor.epc.pfn(page))
    flags = int.from_bytes(view[offset : offset + 64], "little")
    if flags & reserved:
        raise GP(rule)
    return flags


def system_secinfo(
    lp: LogicalProcessor, address: int, rule: str, reserved: int = SECINFO_RESERVED
) -> int:
    """FLAGS of the SECINFO at `address` in ordinary memory; a reserved bit set is #GP(0)."""
    flags = lp.system_read_int(address, 64)
    if flags & reserved:
        raise GP(rule)
    return flags


def tcs_limits_end_in_fff(tcs: TCS) -> bool:
    """Whether FSLIMIT and GSLIMIT are whole pages, as segments of a 32-bit enclave must be."""
    return tcs.FSLIMIT & tcs.GSLIMIT & PAGE_MASK == PAGE_MASK
