"""Extended processor state: the x87/SSE legacy region and the XSAVE components.

SDM 1, 13 "Managing State Using the XSAVE Feature Set".

The model does not compute with this state; it keeps it, saves it at AEX, restores it at ERESUME.
"""

from __future__ import annotations

import struct
from functools import cache
from hashlib import sha256
from typing import Final

from softsgx.cpu.fault import GP
from softsgx.cpu.part import XSAVE_COMPONENTS, xsave_size
from softsgx.spec.attributes import XFRM_LEGACY, XFRM_SSE, XFRM_X87
from softsgx.spec.ssa import (
    FCW_INIT,
    FXSAVE,
    MXCSR_INIT,
    XSAVE_LEGACY_SIZE,
)

_MXCSR_MASK: Final = 0xFFFF
_BV: Final = struct.Struct("<QQQ")
_MXCSR, _ST, _XMM = (
    slice(f.offset, f.end) for f in FXSAVE.FIELDS if f.name in ("MXCSR", "ST", "XMM")
)


def legacy_init(fcw: int = FCW_INIT, fsw: int = 0, mxcsr: int = MXCSR_INIT) -> bytes:
    """The 512-byte legacy region in INIT state, with the given control and status words."""
    return FXSAVE(FCW=fcw, FSW=fsw, MXCSR=mxcsr, MXCSR_MASK=_MXCSR_MASK).pack()


LEGACY_INIT: Final = legacy_init()

_INIT_DIGEST: Final = sha256(LEGACY_INIT).digest()

XKey = tuple[bytes, tuple[tuple[int, bytes], ...]]


class XState:
    """`legacy` is the 512-byte x87/SSE region; `components` maps bit >= 2 -> its bytes.

    A component that is not in `components` is in its INIT state.
    """

    __slots__ = ("_hashed", "_key", "components", "legacy")

    def __init__(self, legacy: bytes = LEGACY_INIT) -> None:
        self.legacy = legacy
        self.components: dict[int, bytes] = {}
        self._hashed: bytes | None = None  # the legacy region that _key stands for
        self._key = b""

    def key(self) -> XKey:
        """The whole state, comparable and hashable."""
        return self.legacy, tuple(sorted(self.components.items()))

    def digest(self) -> bytes:
        """Bytes that stand for the whole state; cheap while the legacy region is not replaced."""
        if self._hashed is not self.legacy:
            self._hashed = self.legacy
            self._key = _INIT_DIGEST if self.legacy == LEGACY_INIT else sha256(self.legacy).digest()
        if not self.components:
            return self._key
        return self._key + repr(sorted(self.components.items())).encode()

    @staticmethod
    def restored(key: XKey) -> XState:
        """A state from its key."""
        self = XState(key[0])
        self.components = dict(key[1])
        return self

    def save(self, xfrm: int) -> bytes:
        """The XSAVE image (standard format) for XFRM, as AEX writes it to the SSA."""
        if self.legacy is LEGACY_INIT and not self.components:
            return _init_image(xfrm)
        return self._image(xfrm)

    def _image(self, xfrm: int) -> bytes:
        size = xsave_size(xfrm)
        image = bytearray(size)
        image[:XSAVE_LEGACY_SIZE] = self.legacy
        present = xfrm & XFRM_LEGACY
        for bit, data in self.components.items():
            if xfrm >> bit & 1:
                length, start = XSAVE_COMPONENTS[bit]
                image[start : start + length] = data
                present |= 1 << bit
        _BV.pack_into(image, XSAVE_LEGACY_SIZE, present, 0, 0)
        return bytes(image)

    @staticmethod
    def load(image: bytes, xfrm: int, rule: str) -> XState:
        """The state that XRSTOR takes from an image; a malformed image is #GP(0) under `rule`."""
        if image == _init_image(xfrm):
            return XState()
        present, compacted, reserved = _BV.unpack_from(image, XSAVE_LEGACY_SIZE)
        if present & ~xfrm or compacted or reserved:
            raise GP(rule)
        if int.from_bytes(image[_MXCSR], "little") & ~_MXCSR_MASK:
            raise GP(rule)
        self = XState(_legacy(image, present))
        for bit in range(2, 64):
            if present >> bit & 1:
                length, start = XSAVE_COMPONENTS[bit]
                self.components[bit] = bytes(image[start : start + length])
        return self

    def keep_others(self, old: XState, xfrm: int) -> None:
        """Take over the components outside XFRM: neither AEX nor ERESUME touches those."""
        for bit, data in old.components.items():
            if not xfrm >> bit & 1:
                self.components[bit] = data


def _legacy(image: bytes, present: int) -> bytes:
    """The legacy region, x87 and SSE parts in INIT state where XSTATE_BV says so."""
    region = bytearray(image[:XSAVE_LEGACY_SIZE])
    # XRSTOR loads MXCSR whenever SSE or AVX is requested, whatever XSTATE_BV says.
    region[_MXCSR.stop : _ST.start] = LEGACY_INIT[_MXCSR.stop : _ST.start]
    if not present & XFRM_X87:
        region[: _MXCSR.start] = LEGACY_INIT[: _MXCSR.start]
        region[_ST] = LEGACY_INIT[_ST]
    if not present & XFRM_SSE:
        region[_XMM] = LEGACY_INIT[_XMM]
    return bytes(region)


@cache
def _init_image(xfrm: int) -> bytes:
    """The image of a state that was never touched: most exits of enclaves in Python save this."""
    return XState()._image(xfrm)
