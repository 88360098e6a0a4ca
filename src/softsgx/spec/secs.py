"""SECS: the SGX enclave control structure, one EPC page of type PT_SECS.

SDM 3D, 38.7 "SGX Enclave Control Structure (SECS)".
"""

from typing import Final

from softsgx.spec.structure import Structure, raw, u8, u16, u32, u64


class SECS(Structure, size=4096, align=4096):
    """What software fills in for ECREATE, and what the processor keeps of an enclave.

    SIZE is a power of two of at least 8192 bytes, BASEADDR a multiple of it, SSAFRAMESIZE counts
    4 KiB pages. The fields after CONFIGSVN are the implementation area that ECREATE sets up; the
    manual gives no offsets for it, these are ours (see SECS_SOURCE_RESERVED).
    """

    SIZE_: int = u64(0)  # the manual's SIZE; SIZE is the length of the structure itself
    BASEADDR: int = u64(8)
    SSAFRAMESIZE: int = u32(16)
    MISCSELECT: int = u32(20)
    CET_LEG_BITMAP_OFFSET: int = u64(24)
    CET_ATTRIBUTES: int = u8(32)
    ATTRIBUTES: int = u64(48)
    XFRM: int = u64(56)
    MRENCLAVE: bytes = raw(64, 32)
    MRSIGNER: bytes = raw(128, 32)
    CONFIGID: bytes = raw(192, 64)
    ISVPRODID: int = u16(256)
    ISVSVN: int = u16(258)
    CONFIGSVN: int = u16(260)
    EID: int = u64(264)
    PADDING: bytes = raw(272, 352)
    ISVEXTPRODID: bytes = raw(624, 16)
    ISVFAMILYID: bytes = raw(640, 16)
    VIRTCHILDCNT: int = u64(656)
    ENCLAVECONTEXT: int = u64(664)
    EPOCH: int = u64(672)
    MRENCLAVE_BLOCKS: int = u64(680)


# Where the source page of ECREATE must be zero: the implementation area is reserved there, and so
# are the CET fields on a part without CET.
SECS_IMPLEMENTATION_AREA: Final = (262, 4096)
SECS_SOURCE_RESERVED: Final = ((24, 48), (96, 128), (160, 192), SECS_IMPLEMENTATION_AREA)
SECS_SOURCE_RESERVED_CET: Final = ((33, 48), *SECS_SOURCE_RESERVED[1:])

# PADDING after EINIT: the 352 bytes before the SHA-256 hash in a PKCS#1 v1.5 block, namely 00 01,
# 330 bytes FF, 00 and the DigestInfo prefix of SHA-256.
PADDING_CONSTANT: Final = (
    b"\x00\x01" + b"\xff" * 330 + bytes.fromhex("003031300d060960864801650304020105000420")
)
