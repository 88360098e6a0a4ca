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
    """Paging crypto metadata, which EWB writes in addition to the encrypted page."""

    FLAGS: int = u64(0)  # PCMD.SECINFO.FLAGS; the rest of that SECINFO is reserved
    ENCLAVEID: int = u64(64)
    MAC: bytes = raw(112, 16)


class RDINFO(Structure, size=32, align=32):
    """Output of ERDINFO; 24 bytes are used."""

    STATUS: int = u64(0)
    FLAGS: int = u64(8)
    ENCLAVECONTEXT: int = u64(16)


# What must be zero in a SECINFO read as one integer: FLAGS[7:6], FLAGS[63:16], and all bytes after
# FLAGS. PENDING, MODIFIED and PR are defined bits.
SECINFO_RESERVED: Final = ~epcm.SAVED & (1 << 8 * SECINFO.SIZE) - 1

VA_SLOTS: Final = 512
