"""SIGSTRUCT and EINITTOKEN, the operands of EINIT.

SDM 3D, 38.13 "Enclave Signature Structure (SIGSTRUCT)", 38.14 "EINIT Token Structure (EINITTOKEN)".
"""

from typing import Final

from softsgx.spec.structure import Structure, raw, u8, u16, u32, u64


class SIGSTRUCT(Structure, size=1808, align=4096):
    """The signed description of an enclave. Signed: bytes 0..127 followed by 900..1027.

    MODULUS, SIGNATURE, Q1 and Q2 are little endian; DATE is yyyymmdd in hexadecimal digits.
    """

    HEADER: bytes = raw(0, 16)
    VENDOR: int = u32(16)
    DATE: int = u32(20)
    HEADER2: bytes = raw(24, 16)
    SWDEFINED: int = u32(40)
    MODULUS: bytes = raw(128, 384)
    EXPONENT: int = u32(512)
    SIGNATURE: bytes = raw(516, 384)
    MISCSELECT: int = u32(900)
    MISCMASK: int = u32(904)
    CET_ATTRIBUTES: int = u8(908)
    CET_ATTRIBUTES_MASK: int = u8(909)
    ISVFAMILYID: bytes = raw(912, 16)
    ATTRIBUTES: int = u64(928)
    XFRM: int = u64(936)
    ATTRIBUTEMASK: int = u64(944)
    XFRMMASK: int = u64(952)
    ENCLAVEHASH: bytes = raw(960, 32)
    ISVEXTPRODID: bytes = raw(1008, 16)
    ISVPRODID: int = u16(1024)
    ISVSVN: int = u16(1026)
    Q1: bytes = raw(1040, 384)
    Q2: bytes = raw(1424, 384)


SIGSTRUCT_HEADER: Final = bytes.fromhex("06000000e10000000000010000000000")
SIGSTRUCT_HEADER2: Final = bytes.fromhex("01010000600000006000000001000000")
SIGSTRUCT_VENDORS: Final = (0, 0x8086)
SIGSTRUCT_EXPONENT: Final = 3
SIGSTRUCT_KEY_BITS: Final = 3072
SIGSTRUCT_SIGNED: Final = ((0, 128), (900, 1028))


class EINITTOKEN(Structure, size=304, align=512):
    """Launch token. The MAC is a CMAC over bytes 0..191 under the EINITTOKEN key."""

    VALID: int = u32(0)
    ATTRIBUTES: int = u64(48)
    XFRM: int = u64(56)
    MRENCLAVE: bytes = raw(64, 32)
    MRSIGNER: bytes = raw(128, 32)
    CPUSVNLE: bytes = raw(192, 16)
    ISVPRODIDLE: int = u16(208)
    ISVSVNLE: int = u16(210)
    CET_MASKED_ATTRIBUTES_LE: int = u8(212)
    MASKEDMISCSELECTLE: int = u32(236)
    MASKEDATTRIBUTESLE: int = u64(240)
    MASKEDXFRMLE: int = u64(248)
    KEYID: bytes = raw(256, 32)
    MAC: bytes = raw(288, 16)


EINITTOKEN_VALID: Final = 1 << 0
EINITTOKEN_MACED: Final = EINITTOKEN.offset_of("CPUSVNLE")  # the MAC covers all before it
