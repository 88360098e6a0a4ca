"""TCS: the thread control structure, one EPC page of type PT_TCS.

SDM 3D, 38.8 "Thread Control Structure (TCS)".
"""

from typing import Final

from softsgx.spec.structure import Structure, u32, u64


class TCS(Structure, size=4096, align=4096):
    """Where a thread enters the enclave and where its state is saved.

    OSSA, OENTRY, OFSBASGX, OGSBASGX, OCETSSA are offsets from BASEADDR; NSSA counts SSA frames. On
    a part without CET OCETSSA and PREVSSP are reserved (`tcs_reserved_clear`).
    """

    STATE: int = u64(0)
    FLAGS: int = u64(8)
    OSSA: int = u64(16)
    CSSA: int = u32(24)
    NSSA: int = u32(28)
    OENTRY: int = u64(32)
    AEP: int = u64(40)
    OFSBASGX: int = u64(48)
    OGSBASGX: int = u64(56)
    FSLIMIT: int = u32(64)
    GSLIMIT: int = u32(68)
    OCETSSA: int = u64(72)
    PREVSSP: int = u64(80)


TCS_INACTIVE: Final = 0
TCS_ACTIVE: Final = 1
TCS_DBGOPTIN: Final = 1 << 0
TCS_AEXNOTIFY: Final = 1 << 1
TCS_FLAGS_DEFINED: Final = TCS_DBGOPTIN | TCS_AEXNOTIFY

# Byte offsets of the fields that the processor writes one at a time.
TCS_OFF_STATE: Final = TCS.offset_of("STATE")
TCS_OFF_FLAGS: Final = TCS.offset_of("FLAGS")
TCS_OFF_OSSA: Final = TCS.offset_of("OSSA")
TCS_OFF_CSSA: Final = TCS.offset_of("CSSA")
TCS_OFF_AEP: Final = TCS.offset_of("AEP")
TCS_OFF_OCETSSA: Final = TCS.offset_of("OCETSSA")
TCS_OFF_PREVSSP: Final = TCS.offset_of("PREVSSP")

# The architectural part of a TCS on a part without CET; EDBGRD reads no further.
SGX_TCS_LIMIT: Final = TCS_OFF_OCETSSA
TCS_CET_SIZE: Final = 16  # OCETSSA and PREVSSP


def tcs_size(cet: bool) -> int:
    """Bytes of the fields on a part with or without CET; the rest of the page is reserved."""
    return SGX_TCS_LIMIT + (TCS_CET_SIZE if cet else 0)


def tcs_reserved_clear(page: bytes, cet: bool) -> bool:
    """Whether the reserved area of a TCS page is zero on a part with or without CET."""
    return not any(page[tcs_size(cet) :])
