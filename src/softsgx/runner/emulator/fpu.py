"""x87 and SSE state between an FXSAVE image and the emulator. SDM 1, 10.5.1 "FXSAVE Area".

The image has ST(i) relative to TOP and an abridged tag byte; the emulator has physical registers
and two-bit tags.
"""

from __future__ import annotations

import struct
from typing import Final

from softsgx.runner.emulator.unicorn_api import Batch, Uc

_XMM0: Final = 122
_FP0: Final = 82
_FPSW, _FPCW, _FPTAG, _MXCSR = 31, 246, 247, 249

_TAG_PLACE: Final = 512
_FULL_TAGS: Final = tuple(
    sum(0 if byte >> i & 1 else 3 << 2 * i for i in range(8)) for byte in range(256)
)
_U16: Final = struct.Struct("<H")


class Fpu:
    """The FP registers of one emulator. `image` is their content, None if it is not known.

    `batch` moves them between the emulator and its buffer, where they are in the emulator's form.
    """

    def __init__(self, uc: Uc) -> None:
        registers = [*range(_XMM0, _XMM0 + 16), *range(_FP0, _FP0 + 8)]
        places = [*(160 + 16 * i for i in range(16)), *(32 + 16 * i for i in range(8))]
        # The status word last: it sets TOP.
        registers += [_FPCW, _MXCSR, _FPTAG, _FPSW]
        places += [0, 24, _TAG_PLACE, 2]
        self.batch = Batch(uc, registers, places, _TAG_PLACE + 8)
        self.image: bytes | None = None
        self._form = b""  # the buffer whose image is `image`

    def load(self, image: bytes) -> None:
        """Image -> emulator."""
        if self.put(image):
            self.batch.write()

    def save(self) -> bytes:
        """Emulator -> image."""
        self.batch.read()
        return self.get()

    def put(self, image: bytes) -> bool:
        """Image -> buffer; False if the emulator has it already."""
        if image == self.image:
            return False
        buffer = self.batch.buffer
        buffer[:512] = image
        top = image[3] >> 3 & 7
        if top:
            buffer[32:160] = _rotated(image[32:160], -top)
        _U16.pack_into(buffer, _TAG_PLACE, _FULL_TAGS[image[4]])
        self.image = image
        self._form = bytes(buffer)
        return True

    def get(self) -> bytes:
        """Buffer -> image; FOP, FIP, FDP and reserved bytes are those that were loaded last.

        The emulator lets LDMXCSR set reserved bits of MXCSR. They are dropped: a thread that has
        them cannot be continued.
        """
        buffer = self.batch.buffer
        if self.image is not None and buffer == self._form:
            return self.image
        image = bytearray(buffer[:512])
        image[26:28] = b"\0\0"
        (tags,) = _U16.unpack_from(buffer, _TAG_PLACE)
        image[4] = sum(1 << i for i in range(8) if tags >> 2 * i & 3 != 3) if tags != 0xFFFF else 0
        top = image[3] >> 3 & 7
        if top:
            image[32:160] = _rotated(bytes(buffer[32:160]), top)
        self._form = bytes(buffer)
        self.image = bytes(image)
        return self.image


def _rotated(registers: bytes, count: int) -> bytes:
    """Eight 16-byte registers, so that number `count` comes first."""
    at = 16 * (count % 8)
    return registers[at:] + registers[:at]
