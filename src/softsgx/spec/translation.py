"""Words of address translation: an entry of a page table, and one of the TLB.

Entries of page tables: SDM 3A, 4.5 "IA-32e Paging".

A TLB entry is the model's own: the physical page address, and in its low bits what the entry
permits. READ, WRITE, FETCH stand where SECINFO.FLAGS has R, W, X.

With CET, a page whose entry has R/W = 0 and D = 1 is a shadow-stack page. SDM 3A, 4.6 "Access
Rights".
"""

from typing import Final

PTE_P: Final = 1 << 0
PTE_W: Final = 1 << 1
PTE_U: Final = 1 << 2
PTE_A: Final = 1 << 5
PTE_D: Final = 1 << 6
PTE_NX: Final = 1 << 63
PTE_PFN_MASK: Final = 0x000F_FFFF_FFFF_F000

# A user page that was read, or written, through this entry: a walk for the same access would find
# every bit it needs, and set none.
PTE_READ_DONE: Final = PTE_P | PTE_U | PTE_A
PTE_WRITE_DONE: Final = PTE_READ_DONE | PTE_W | PTE_D

READ: Final = 1 << 0
WRITE: Final = 1 << 1  # writable, and the PTE's D bit is already set
FETCH: Final = 1 << 2
CLEAN: Final = 1 << 3  # writable, but the first write must walk again to set D
ABORT: Final = 1 << 4  # not EPC to this access: reads give ones, writes are dropped
SHADOW_READ: Final = 1 << 5  # shadow-stack load
SHADOW_WRITE: Final = 1 << 6  # shadow-stack store
SHADOW: Final = SHADOW_READ | SHADOW_WRITE  # a translation permits both or none

ACCESS_NAMES: Final[dict[int, str]] = {
    READ: "read",
    WRITE: "write",
    FETCH: "fetch",
    SHADOW_READ: "shadow-stack load",
    SHADOW_WRITE: "shadow-stack store",
}


def rights_text(entry: int) -> str:
    """Rights of a TLB entry as 'rw-', followed by 's' for a shadow-stack page.

    A writable page whose D bit is still clear shows 'w' too.
    """
    return (
        ("r" if entry & READ else "-")
        + ("w" if entry & (WRITE | CLEAN) else "-")
        + ("x" if entry & FETCH else "-")
        + ("s" if entry & SHADOW else "")
    )


def pte_text(pte: int) -> str:
    """Rights of a page-table entry as 'rw-', or 'none' when not present."""
    if not pte & PTE_P:
        return "none"
    return "r" + ("w" if pte & PTE_W else "-") + ("-" if pte & PTE_NX else "x")
