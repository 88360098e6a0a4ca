"""PAGEINFO, SECINFO, PCMD, RDINFO and the VA page.

SDM 3D, 38.10 "Page Information (PAGEINFO)", 38.11 "Security Information (SECINFO)", 38.12 "Paging
Crypto MetaData (PCMD)", 38.18 "Version Array (VA)", ERDINFO.
"""

from typing import Final

from softsgx.spec import epcm
from softsgx.spec.structure import Structure, raw, u64


class PAGEINFO(Structure, size=32, align=32):
    """Operand block of ECREATE, EADD, EAUG, EWB and ELD.

    LINADDR, SRCPGE, SECS are linear addresses; SECINFO is the address of a SECINFO, or of a PCMD
    for EWB and ELD.
    """

    LINADDR: int = u64(0)
    SRCPGE: int = u64(8)
    SECINFO: int = u64(16)
    SECS: int = u64(24)


class SECINFO(Structure, size=64, align=64):
    """Type, permissions and state of a page. FLAGS has the bits of `spec.epcm`."""

    FLAGS: int = u64(0)


class PCMD(Structure, size=128, align=128):
    """Paging crypto metadata: what EWB writes beside the encrypted page."""

    FLAGS: int = u64(0)  # PCMD.SECINFO.FLAGS; the rest of that SECINFO is reserved
    ENCLAVEID: int = u64(64)
    MAC: bytes = raw(112, 16)


class RDINFO(Structure, size=32, align=32):
    """Output of ERDINFO; 24 bytes are used."""

    STATUS: int = u64(0)
    FLAGS: int = u64(8)
    ENCLAVECONTEXT: int = u64(16)


# SECINFO.FLAGS bits that must be zero: 7:6 and 63:16. PENDING, MODIFIED and PR are defined bits.
SECINFO_FLAGS_RESERVED: Final = ~(epcm.SAVED) & ((1 << 64) - 1)
# The same for a whole SECINFO read as one integer: bytes 8..63 are reserved as well.
SECINFO_RESERVED: Final = ~(epcm.SAVED) & ((1 << 512) - 1)

VA_SLOT_SIZE: Final = 8
VA_SLOTS: Final = 512

# RDINFO bit positions are not published; these are ours, and documented as such.
RDINFO_CHILDPRESENT: Final = 1 << 0
RDINFO_VIRTCHILDPRESENT: Final = 1 << 1
RDINFO_FLAGS_BLOCKED: Final = epcm.BLOCKED
