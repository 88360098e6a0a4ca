"""A live SECS: what the processor keeps of one enclave.

Software never reads a SECS page, so the model holds it decoded, by EPC page number of the SECS; EWB
encodes it and ELD decodes it again. Field names are the manual's.
SDM 3D, 38.7 "SGX Enclave Control Structure (SECS)".
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from softsgx.sim.slots import reader, writer
from softsgx.spec.attributes import ATTR_INIT
from softsgx.spec.secs import SECS

if TYPE_CHECKING:
    from hashlib import _Hash

# Fields that go into the page when the SECS is evicted, and come back unchanged.
_STORED = tuple(name for name in SECS.NAMES if name != "SIZE_")

SecsImage = tuple["_Hash | None", tuple[object, ...]]


class Secs:
    """One enclave's control structure, with its tracking state and its count of child pages.

    Tracking (see `cpu.tracking`): EPOCH, `current` and `previous` count the processors inside that
    entered in this epoch and in the one before. `measurement` is the running SHA-256 until EINIT.
    """

    __slots__ = (
        *("SIZE", *_STORED),
        *("children", "current", "elrange_end", "entries", "measurement", "page", "previous"),
        "_fixed",
    )

    SIZE: int
    BASEADDR: int
    SSAFRAMESIZE: int
    MISCSELECT: int
    CET_LEG_BITMAP_OFFSET: int
    CET_ATTRIBUTES: int
    ATTRIBUTES: int
    XFRM: int
    MRENCLAVE: bytes
    MRSIGNER: bytes
    CONFIGID: bytes
    ISVPRODID: int
    ISVSVN: int
    CONFIGSVN: int
    EID: int
    PADDING: bytes
    ISVEXTPRODID: bytes
    ISVFAMILYID: bytes
    VIRTCHILDCNT: int
    ENCLAVECONTEXT: int
    EPOCH: int
    MRENCLAVE_BLOCKS: int
    page: int
    children: int
    current: int
    previous: int
    entries: int
    elrange_end: int
    measurement: _Hash | None
    _fixed: bytes

    def __init__(self, page: int, data: SECS) -> None:
        self.page = page
        self.SIZE = data.SIZE_
        for name in _STORED:
            setattr(self, name, getattr(data, name))
        self.elrange_end = self.BASEADDR + self.SIZE
        self.children = 0
        self.current = 0
        self.previous = 0
        self.entries = 0
        self.measurement = None
        self._fixed = b""

    @property
    def initialised(self) -> bool:
        """ATTRIBUTES.INIT."""
        return bool(self.ATTRIBUTES & ATTR_INIT)

    @property
    def inside(self) -> int:
        """Number of logical processors executing inside the enclave."""
        return self.current + self.previous

    def encode(self) -> bytes:
        """The 4096 bytes that EWB encrypts."""
        return SECS(SIZE_=self.SIZE, **{name: getattr(self, name) for name in _STORED}).pack()

    def snapshot(self) -> SecsImage:
        """Everything, the running hash as a copy."""
        hash_ = self.measurement
        return (None if hash_ is None else hash_.copy(), _read(self))

    @staticmethod
    def restored(image: SecsImage) -> Secs:
        """A live SECS from a snapshot."""
        self = Secs.__new__(Secs)
        hash_, values = image
        _write(self, values)
        self.measurement = None if hash_ is None else hash_.copy()
        self._fixed = b""
        return self

    def key(self) -> tuple[object, ...]:
        """What the fingerprint of the machine sees of this enclave."""
        hash_ = self.measurement
        if hash_ is not None:
            return (hash_.digest(), repr(_read(self)))
        if not self._fixed:
            # After EINIT these never change, so they are hashed once.
            self._fixed = sha256(repr(_read_fixed(self)).encode()).digest()
        return (self._fixed, *_read_varying(self))


_IMAGE = tuple(name for name in Secs.__slots__ if name not in ("measurement", "_fixed"))
_VARYING = (
    *("EPOCH", "VIRTCHILDCNT", "ENCLAVECONTEXT"),
    *("children", "current", "entries", "previous", "page"),
)
_read, _write = reader(_IMAGE), writer(_IMAGE)
_read_varying = reader(_VARYING)
_read_fixed = reader([name for name in _IMAGE if name not in _VARYING])
