"""Bringing the emulator to CPL 3, as enclave code has it: privileged instructions raise #GP."""

from __future__ import annotations

import ctypes
import mmap
import struct
from typing import TYPE_CHECKING, Final

from softsgx.runner.emulator.unicorn_api import UnicornError
from softsgx.runner.host.abi import USER_CS, USER_DS, USER_RFLAGS
from softsgx.spec.bits import PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.runner.emulator.unicorn_api import Uc

_CODE, _STACK, _GDT = 0x10000, 0x20000, 0xFFFF_8000_0000_0000
PAGES: Final = {_CODE: 0, _STACK: 1, _GDT: 2}
"""Linear page -> page of the memory that `enter_ring3` uses."""

_GDTR, _CR0, _CR4, _RSP = 243, 50, 54, 44
# PE, MP, ET, NE, WP, PG
_CR0_VALUE: Final = 0x8001_0033
# PAE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, OSXSAVE
_CR4_VALUE: Final = 0x20 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 16 | 1 << 18
_DESCRIPTORS: Final = (0, 0, 0, 0, 0, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF, 0)
_END: Final = _CODE + 0x100


def enter_ring3(uc: Uc, memory: mmap.mmap) -> None:
    """Execute one IRET, with code, stack and descriptor table in `memory` (see PAGES)."""
    memory[0:2] = b"\x48\xcf"  # iretq
    memory[2 * PAGE_SIZE : 2 * PAGE_SIZE + 64] = struct.pack("<8Q", *_DESCRIPTORS)
    top = _STACK + 0x800
    frame = struct.pack("<5Q", _END, USER_CS, USER_RFLAGS, top, USER_DS)
    memory[PAGE_SIZE + 0x800 : PAGE_SIZE + 0x828] = frame
    uc.write_register(_GDTR, (ctypes.c_uint64 * 3)(0, _GDT, 63))  # selector, base, limit
    uc.write_register(_CR0, ctypes.c_uint64(_CR0_VALUE))
    uc.write_register(_CR4, ctypes.c_uint64(_CR4_VALUE))
    uc.write_register(_RSP, ctypes.c_uint64(top))
    error = uc.start(_CODE, _END)
    if error:
        raise UnicornError(f"the emulator cannot be brought to CPL 3: error {error}")
