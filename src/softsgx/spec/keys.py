"""KEYREQUEST, TARGETINFO, REPORT: the operands of EGETKEY and EREPORT.

SDM 3D, 38.15 "REPORT (REPORT)", 38.16 "Report Target Info (TARGETINFO)", 38.17 "Key Request
(KEYREQUEST)".
"""

from typing import Final

from softsgx.spec.structure import Structure, raw, u8, u16, u32, u64


class KEYREQUEST(Structure, size=512, align=512):
    """What EGETKEY is asked for; the key is 16 bytes, 16-byte aligned."""

    KEYNAME: int = u16(0)
    KEYPOLICY: int = u16(2)
    ISVSVN: int = u16(4)
    CET_ATTRIBUTES_MASK: int = u8(6)
    CPUSVN: bytes = raw(8, 16)
    ATTRIBUTEMASK: int = u64(24)
    XFRMMASK: int = u64(32)
    KEYID: bytes = raw(40, 32)
    MISCMASK: int = u32(72)
    CONFIGSVN: int = u16(76)


class TARGETINFO(Structure, size=512, align=512):
    """The enclave for which EREPORT makes its report."""

    MEASUREMENT: bytes = raw(0, 32)
    ATTRIBUTES: int = u64(32)
    XFRM: int = u64(40)
    CET_ATTRIBUTES: int = u8(48)
    CONFIGSVN: int = u16(50)
    MISCSELECT: int = u32(52)
    CONFIGID: bytes = raw(64, 64)


class REPORT(Structure, size=432, align=512):
    """The output of EREPORT. The MAC is a CMAC over bytes 0..383 under the target's REPORT key."""

    CPUSVN: bytes = raw(0, 16)
    MISCSELECT: int = u32(16)
    CET_ATTRIBUTES: int = u8(20)
    ISVEXTPRODID: bytes = raw(32, 16)
    ATTRIBUTES: int = u64(48)
    XFRM: int = u64(56)
    MRENCLAVE: bytes = raw(64, 32)
    MRSIGNER: bytes = raw(128, 32)
    CONFIGID: bytes = raw(192, 64)
    ISVPRODID: int = u16(256)
    ISVSVN: int = u16(258)
    CONFIGSVN: int = u16(260)
    ISVFAMILYID: bytes = raw(304, 16)
    REPORTDATA: bytes = raw(320, 64)
    KEYID: bytes = raw(384, 32)
    MAC: bytes = raw(416, 16)


REPORT_MACED: Final = REPORT.offset_of("KEYID")
REPORTDATA_SIZE: Final = 64
REPORTDATA_ALIGN: Final = 128
KEY_ALIGN: Final = 16

# KEYNAME
EINITTOKEN_KEY: Final = 0
PROVISION_KEY: Final = 1
PROVISION_SEAL_KEY: Final = 2
REPORT_KEY: Final = 3
SEAL_KEY: Final = 4

# KEYPOLICY
POLICY_MRENCLAVE: Final = 1 << 0
POLICY_MRSIGNER: Final = 1 << 1
POLICY_NOISVPRODID: Final = 1 << 2
POLICY_CONFIGID: Final = 1 << 3
POLICY_ISVFAMILYID: Final = 1 << 4
POLICY_ISVEXTPRODID: Final = 1 << 5
POLICY_DEFINED: Final = 0x3F
POLICY_KSS: Final = 0x3C  # legal only with ATTRIBUTES.KSS
