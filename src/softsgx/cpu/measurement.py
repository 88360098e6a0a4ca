"""MRENCLAVE: the blocks that ECREATE, EADD and EEXTEND hash. SDM 3D, 39.4.1 "Enclave Measurement".

Each record is a 64-byte block; EEXTEND adds the 256 bytes of its chunk as four more. SHA-256 is
finished by EINIT over all blocks.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from softsgx.cpu.secs import Secs

if TYPE_CHECKING:
    from hashlib import _Hash

_ECREATE: Final = struct.Struct("<8sIQQ36x")
_EADD: Final = struct.Struct("<8sQQ40x")
_EEXTEND: Final = struct.Struct("<8sQ48x")


def begin(secs: Secs, *, bitmap: bool = True) -> None:
    """The ECREATE record: SSAFRAMESIZE, SIZE at the unaligned byte 12, CET_LEG_BITMAP_OFFSET."""
    offset = secs.CET_LEG_BITMAP_OFFSET if bitmap else 0
    secs.measurement = sha256(_ECREATE.pack(b"ECREATE\0", secs.SSAFRAMESIZE, secs.SIZE, offset))
    secs.MRENCLAVE_BLOCKS = 1


def add(secs: Secs, offset: int, flags: int) -> None:
    """The EADD record: page offset and SECINFO.FLAGS."""
    running(secs).update(_EADD.pack(b"EADD\0\0\0\0", offset, flags))
    secs.MRENCLAVE_BLOCKS += 1


def extend(secs: Secs, offset: int, chunk: bytes) -> None:
    """The EEXTEND record: chunk offset, then the 256 bytes."""
    running(secs).update(_EEXTEND.pack(b"EEXTEND\0", offset) + chunk)
    secs.MRENCLAVE_BLOCKS += 5


def running(secs: Secs) -> _Hash:
    """The SHA-256 that measures an enclave that is still being built."""
    assert secs.measurement is not None, "the enclave is initialised"
    return secs.measurement
