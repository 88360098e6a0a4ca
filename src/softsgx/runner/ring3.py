"""Bringing an emulator to CPL 3, which enclave code has: by an IRET, as a kernel does.

Privileged instructions then raise #GP. It takes three pages, for code, stack and descriptor table.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from typing import Final

from softsgx.runner.unicorn_api import Uc, UnicornError
from softsgx.spec.bits import PAGE_SIZE

BOOT_PAGES: Final = 3
_CODE: Final = 0x10000
_STACK: Final = 0x20000
_GDT: Final = 0xFFFF_8000_0000_0000
_PLACES: Final = {_CODE: 0, _STACK: 1}
_CS, _SS = 0x33, 0x2B
_END: Final = _CODE + 0x100
_SP: Final = _STACK + 0x800
# PE, MP, ET, NE, WP, PG
_CR0: Final = 0x8001_0033
# PAE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, OSXSAVE
_CR4: Final = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 16 | 1 << 18
_UC_RSP, _UC_CR0, _UC_CR4, _UC_GDTR = 44, 50, 54, 243


def boot_offset(address: int) -> int:
    """Where in the three pages a linear address of the way to CPL 3 lies."""
    return PAGE_SIZE * _PLACES.get(address, 2)


def enter_ring3(uc: Uc, boot: mmap.mmap) -> None:
    """Execute the IRET; `boot` are the three pages, mapped by the TLB-fill hook."""
    boot[0:2] = b"\x48\xcf"  # iretq
    descriptors = [0, 0, 0, 0, 0, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF, 0]
    boot[2 * PAGE_SIZE : 2 * PAGE_SIZE + 64] = struct.pack("<8Q", *descriptors)
    frame = struct.pack("<5Q", _END, _CS, 0x202, _SP, _SS)
    boot[PAGE_SIZE + 0x800 : PAGE_SIZE + 0x828] = frame
    table = (ctypes.c_uint64 * 3)(0, _GDT, 63)  # selector, base, limit
    uc.write_register(_UC_GDTR, table)
    uc.write_register(_UC_CR0, ctypes.c_uint64(_CR0))
    uc.write_register(_UC_CR4, ctypes.c_uint64(_CR4))
    uc.write_register(_UC_RSP, ctypes.c_uint64(_SP))
    error = uc.start(_CODE, _END)
    if error:
        raise UnicornError(f"the emulator cannot be brought to CPL 3: error {error}")
