"""The cryptography of EWB and ELD. SDM 3D, EWB and ELDB/ELDU.

AES-GCM under the paging key of this boot. The counter is the version that goes into the VA slot,
the additional data a 128-byte header of enclave id, linear address, SECINFO and the reserved bytes
of the PCMD: a page that is replayed, swapped, moved or altered in any of them does not verify.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from softsgx.spec.bits import PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.cpu.state import Package

_HEADER = struct.Struct("<QQ104s8x")  # EID, LINADDR, SECINFO and reserved of the PCMD
_METADATA = struct.Struct("<Q56x40x")  # SECINFO with its FLAGS, then the reserved bytes
_COUNTER_SHIFT = 32


def _nonce(version: int) -> bytes:
    return (version << _COUNTER_SHIFT).to_bytes(12, "little")


def fresh_version(processor: Package) -> int:
    """A VA slot value never used before. It is above 7, so EDBGRD reports the slot as used."""
    version = processor.next_version << 3
    processor.next_version += 1
    return version


def seal(
    processor: Package,
    version: int,
    eid: int,
    linaddr: int,
    metadata: bytes,
    page: bytes | bytearray,
) -> tuple[bytes, bytes]:
    """Ciphertext and MAC. `metadata` is SECINFO and the reserved bytes of the PCMD, 104 bytes."""
    header = _HEADER.pack(eid, linaddr, metadata)
    sealed = processor.keys.paging.encrypt(_nonce(version), page, header)
    return sealed[:PAGE_SIZE], sealed[PAGE_SIZE:]


def unseal(
    processor: Package, version: int, eid: int, linaddr: int, metadata: bytes, sealed: bytes
) -> bytes | None:
    """The page, or None if the MAC differs. `sealed` is ciphertext and MAC."""
    header = _HEADER.pack(eid, linaddr, metadata)
    keys = processor.keys
    try:
        return keys.paging.decrypt(_nonce(version), sealed, header)
    except keys.invalid_tag:
        return None


def pcmd_metadata(flags: int) -> bytes:
    """The PCMD bytes bound by the MAC, as EWB writes them: SECINFO and the reserved bytes."""
    return _METADATA.pack(flags)


def stored_metadata(pcmd: bytes) -> bytes:
    """The same bytes of a PCMD in memory, whatever they hold now."""
    return pcmd[:64] + pcmd[72:112]
