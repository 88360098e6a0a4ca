"""The state save area: GPRSGX, EXITINFO, EXINFO and the XSAVE legacy area.

SDM 3D, 38.9 "State Save Area (SSA) Frame".

A frame is SECS.SSAFRAMESIZE pages: the XSAVE area from its start, GPRSGX in its last 184 bytes, and
the MISC components selected by MISCSELECT directly below GPRSGX.
"""

import struct
from typing import Final

from softsgx.spec import attributes, faults
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.structure import Structure, raw, u8, u16, u32, u64


class GPRSGX(Structure, size=184):
    """General registers of an interrupted thread, at the end of its SSA frame."""

    RAX: int = u64(0)
    RCX: int = u64(8)
    RDX: int = u64(16)
    RBX: int = u64(24)
    RSP: int = u64(32)
    RBP: int = u64(40)
    RSI: int = u64(48)
    RDI: int = u64(56)
    R8: int = u64(64)
    R9: int = u64(72)
    R10: int = u64(80)
    R11: int = u64(88)
    R12: int = u64(96)
    R13: int = u64(104)
    R14: int = u64(112)
    R15: int = u64(120)
    RFLAGS: int = u64(128)
    RIP: int = u64(136)
    URSP: int = u64(144)
    URBP: int = u64(152)
    EXITINFO: int = u32(160)
    AEXNOTIFY: int = u8(167)
    FSBASE: int = u64(168)
    GSBASE: int = u64(176)


class EXINFO(Structure, size=16):
    """The MISC component of MISCSELECT bit 0: address and error code of a #PF or #GP.

    A #CP is written to it as well if MISCSELECT bit 1, CPINFO, is set.
    """

    MADDR: int = u64(0)
    ERRCD: int = u32(8)


class FXSAVE(Structure, size=512, align=16):
    """The legacy region of the XSAVE area.

    SDM 1, 10.5.1 "FXSAVE Area", 13.4.1 "Legacy Region of an XSAVE Area".
    """

    FCW: int = u16(0)
    FSW: int = u16(2)
    FTW: int = u8(4)
    FOP: int = u16(6)
    FIP: int = u64(8)
    FDP: int = u64(16)
    MXCSR: int = u32(24)
    MXCSR_MASK: int = u32(28)
    ST: bytes = raw(32, 128)
    XMM: bytes = raw(160, 256)
    AVAILABLE: bytes = raw(464, 48)


class XSAVE_HEADER(Structure, size=64):
    """The header at offset 512 of the XSAVE area. SDM 1, 13.4.2 "XSAVE Header"."""

    XSTATE_BV: int = u64(0)
    XCOMP_BV: int = u64(8)


# EXITINFO
EXIT_TYPE_SHIFT: Final = 8
EXIT_HARDWARE: Final = 3
EXIT_SOFTWARE: Final = 6
EXIT_VALID: Final = 1 << 31

# Vectors that AEX reports in EXITINFO whatever MISCSELECT says, with their exit type.
REPORTED_ALWAYS: Final[dict[int, int]] = {
    faults.DE: EXIT_HARDWARE,
    faults.DB: EXIT_HARDWARE,
    faults.BP: EXIT_SOFTWARE,
    faults.BR: EXIT_HARDWARE,
    faults.UD: EXIT_HARDWARE,
    faults.MF: EXIT_HARDWARE,
    faults.AC: EXIT_HARDWARE,
    faults.XM: EXIT_HARDWARE,
}
# Reported only if MISCSELECT.EXINFO is set, or MISCSELECT.CPINFO; both write EXINFO.
REPORTED_WITH_EXINFO: Final = (faults.GP, faults.PF)
REPORTED_WITH_CPINFO: Final = (faults.CP,)

GPRSGX_SIZE: Final = GPRSGX.SIZE
XSAVE_LEGACY_SIZE: Final = FXSAVE.SIZE
XSAVE_HEADER_SIZE: Final = XSAVE_HEADER.SIZE
XSAVE_MINIMUM: Final = XSAVE_LEGACY_SIZE + XSAVE_HEADER_SIZE

# The first 18 fields of GPRSGX, RAX to RIP: all of `spec.registers`, in its order.
GPRS: Final = struct.Struct("<18Q")
pack_gprs: Final = GPRS.pack_into
unpack_gprs: Final = GPRS.unpack_from
# Offsets inside GPRSGX of the fields read or written one at a time.
GPR_OFF_RIP: Final = GPRSGX.offset_of("RIP")
GPR_OFF_URSP: Final = GPRSGX.offset_of("URSP")
GPR_OFF_EXITINFO: Final = GPRSGX.offset_of("EXITINFO")
GPR_OFF_AEXNOTIFY: Final = GPRSGX.offset_of("AEXNOTIFY")
GPR_OFF_FSBASE: Final = GPRSGX.offset_of("FSBASE")

# Where GPRSGX and EXINFO lie in the last page of a frame.
GPRSGX_IN_PAGE: Final = PAGE_SIZE - GPRSGX_SIZE
EXINFO_IN_PAGE: Final = GPRSGX_IN_PAGE - EXINFO.SIZE

# What the INIT state of x87 and SSE looks like in the legacy region.
FCW_INIT: Final = 0x037F
MXCSR_INIT: Final = 0x1F80


def misc_size(miscselect: int) -> int:
    """Bytes from GPRSGX down to the start of the highest MISC component selected."""
    return 16 if miscselect & (attributes.MISC_EXINFO | attributes.MISC_CPINFO) else 0


def compute_xsave_size(xfrm: int, components: dict[int, tuple[int, int]]) -> int:
    """Size of the XSAVE area for XFRM; `components` maps bit -> (size, offset), CPUID leaf 0DH."""
    offset, last = XSAVE_MINIMUM, 0
    for bit in range(2, 64):
        if xfrm >> bit & 1:
            size, start = components[bit]
            if start >= offset + last:
                offset, last = start, size
    return offset + last
