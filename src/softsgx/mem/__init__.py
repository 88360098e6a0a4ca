"""Memory as the processor sees it: physical pages, page tables, one TLB per logical processor."""

from softsgx.mem.pagetable import AddressSpace, direct
from softsgx.mem.physical import PhysicalMemory
from softsgx.mem.tlb import Tlb

__all__ = ["AddressSpace", "PhysicalMemory", "Tlb", "direct"]
