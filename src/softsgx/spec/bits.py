"""Constants of address arithmetic that every room shares. SDM 3A, 4.5 "IA-32e Paging"."""

from typing import Final

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 4096
PAGE_MASK: Final = PAGE_SIZE - 1
MASK32: Final = (1 << 32) - 1
MASK64: Final = (1 << 64) - 1
ZERO_PAGE: Final = bytes(PAGE_SIZE)


def canonical(address: int) -> bool:
    """Whether a 64-bit linear address is canonical with 48 bits (4-level paging)."""
    return 0 <= address < 1 << 47 or (1 << 64) - (1 << 47) <= address <= MASK64
