"""What was really built: the SGXS stream of each enclave, written as the processor executes leaves.

The records are in the order in which the processor executed the leaves, with what they measured at
that moment. So SHA-256 over all but UNMEASRD is the MRENCLAVE that EINIT compares, and `image.sgxs`
reads the stream back. UNMEASRD has what EADD copied and no EEXTEND measured; which chunks these are
is known when the next page begins, so one page of each enclave is held back.

Leaves can be executed in an order that no SGXS reader accepts: a chunk of an earlier page, a page
or a chunk twice. The driver does not do that; `Built.unusual` says so if it happens.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Protocol

from softsgx.cpu.fault import Fault
from softsgx.events.cpu import EpcmChanged, LeafDone, LeafFaulted
from softsgx.image import records, rules
from softsgx.image.records import CHUNK_SIZE, CHUNKS_PER_PAGE, TAG_EADD, TAG_EEXTEND, ZERO_CHUNK
from softsgx.image.sgxs import TAG_UNMEASRD
from softsgx.report.fields import exception_text, status_text
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE
from softsgx.spec.epcm import PT_MASK, RWX, SECS, TCS
from softsgx.spec.paging import PAGEINFO

if TYPE_CHECKING:
    from softsgx.cpu import Processor
    from softsgx.cpu.lp import LogicalProcessor
    from softsgx.cpu.secs import Secs

ACCEPTED: Final = "accepted"
_BLOCK: Final = 4096


class Stream(Protocol):
    """Where a stream is written to."""

    def write(self, data: bytes, /) -> object:
        """Append bytes."""

    def flush(self) -> None:
        """Called when the stream so far is a whole enclave."""

    def close(self) -> None:
        """Called when nothing more will be written."""


class Kept:
    """A stream in memory."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.write = self.data.extend

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """The data remain available."""


class Built:
    """One enclave: its number in the order of ECREATE, from 1, its SECS.EID, its pages so far.

    `stream` is where its records are written. `einit` is ACCEPTED, or how the last EINIT was
    refused, or "" if there was none. `unusual` says why the stream cannot be read back, "" if it
    can.
    """

    def __init__(self, number: int, eid: int, stream: Stream) -> None:
        self.number = number
        self.eid = eid
        self.pages = 0
        self.einit = ""
        self.unusual = ""
        self.stream = stream
        self._stream: Stream | None = stream
        self._measured = sha256()
        self._seen: dict[int, bytearray] = {}  # which pages were added, by blocks of _BLOCK
        self._page = -1  # offset of the last page that was added
        self._content = b""
        self._chunks: dict[int, None] = {}

    @property
    def mrenclave(self) -> bytes:
        """The measurement so far; after EINIT it is MRENCLAVE."""
        return self._measured.digest()

    @property
    def open(self) -> bool:
        """Whether pages can still be added."""
        return self._stream is not None

    def create(self, size: int, ssaframesize: int, bitmap: int) -> None:
        """The ECREATE record. CET_LEG_BITMAP_OFFSET, if it is measured, is in bytes 20 to 27."""
        record = records.ecreate(size, ssaframesize)
        if bitmap:
            self._note("SECS.CET_LEG_BITMAP_OFFSET is measured as well")
        self._record(record[:20] + bitmap.to_bytes(8, "little") + record[28:])

    def add(self, offset: int, flags: int, content: bytes) -> None:
        """The EADD record."""
        self.settle()
        block, number = divmod(offset // PAGE_SIZE, _BLOCK)
        seen = self._seen.setdefault(block, bytearray(_BLOCK))
        if seen[number]:
            self._note(f"page {offset:#x} was added twice")
        if why := rules.flags_fault(flags):
            self._note(f"page {offset:#x}: SECINFO.FLAGS {why}")
        seen[number] = 1
        self.pages += 1
        self._page, self._content, self._chunks = offset, content, {}
        record = records.EaddRecord(TAG=TAG_EADD, OFFSET=offset, FLAGS=flags)
        self._record(record.pack())

    def extend(self, offset: int, chunk: bytes) -> None:
        """The EEXTEND record, and the chunk that it measured."""
        at = offset - self._page
        number = at // CHUNK_SIZE
        if not 0 <= at < PAGE_SIZE:
            self._note(f"chunk {offset:#x} was measured after the EADD of another page")
        elif number in self._chunks:
            self._note(f"chunk {offset:#x} was measured twice, or after an EINIT")
        else:
            self._chunks[number] = None
        self._record(records.EextendRecord(TAG=TAG_EEXTEND, OFFSET=offset).pack() + chunk)

    def settle(self) -> None:
        """Write the chunks of the last page that were not measured; no more EEXTEND follows."""
        content, self._content = self._content, b""
        stream = self._stream
        if not content or stream is None:
            return
        for number in range(CHUNKS_PER_PAGE):
            data = content[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE]
            if number not in self._chunks and data != ZERO_CHUNK:
                self._chunks[number] = None
                offset = self._page + number * CHUNK_SIZE
                record = records.EextendRecord(TAG=TAG_UNMEASRD, OFFSET=offset)
                stream.write(record.pack() + data)

    def close(self) -> None:
        """Nothing more can be added."""
        self.settle()
        self._seen.clear()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _record(self, record: bytes) -> None:
        self._measured.update(record)
        if self._stream is not None:
            self._stream.write(record)

    def _note(self, why: str) -> None:
        self.unusual = self.unusual or why


class BuiltEnclaves:
    """Listens to a processor until it is closed; as a context manager it closes itself.

    `create` makes the stream of the enclave with a number, from 1; if it returns None, the enclave
    is only counted, in `left_out`. By default streams are `Kept`.
    """

    def __init__(
        self, processor: Processor, create: Callable[[int], Stream | None] = lambda _: Kept()
    ) -> None:
        self.enclaves: list[Built] = []
        self.left_out = 0
        self._processor = processor
        self._create = create
        self._by_eid: dict[int, Built] = {}  # those that may still change
        self._unsubscribe = processor.log.subscribe_to(
            {
                LeafDone: self._leaf_done,
                LeafFaulted: self._leaf_faulted,
                EpcmChanged: self._epcm_changed,
            }
        )

    def __enter__(self) -> BuiltEnclaves:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, and close the open streams."""
        self._unsubscribe()
        for built in self._by_eid.values():
            built.close()
        self._by_eid.clear()

    def _leaf_done(self, e: LeafDone) -> None:
        if e.leaf == "EEXTEND":
            self._extended(e)
        elif e.leaf == "EADD":
            self._added(e)
        elif e.leaf == "ECREATE":
            self._created(e)
        elif e.leaf == "EINIT":
            self._initialised(e, status_text(e.status))

    def _leaf_faulted(self, e: LeafFaulted) -> None:
        if e.leaf == "EINIT":
            self._initialised(e, exception_text(e.vector, e.code))

    def _epcm_changed(self, e: EpcmChanged) -> None:
        if e.leaf == "EREMOVE" and e.before & PT_MASK == SECS:
            self._removed()

    def _created(self, e: LeafDone) -> None:
        secs = self._processor.secs[self._number(e)]
        number = len(self.enclaves) + self.left_out + 1
        stream = self._create(number)
        if stream is None:
            self.left_out += 1
            return
        built = Built(number, secs.EID, stream)
        measured = self._processor.readings.ecreate_measures_bitmap
        built.create(secs.SIZE, secs.SSAFRAMESIZE, secs.CET_LEG_BITMAP_OFFSET if measured else 0)
        self.enclaves.append(built)
        self._by_eid[secs.EID] = built

    def _added(self, e: LeafDone) -> None:
        lp, page = self._processor.lps[e.lp], self._number(e)
        built, secs = self._of(page)
        if built is None:
            return
        _, _, secinfo, _ = PAGEINFO.S.unpack(lp.system_read(e.rbx, PAGEINFO.SIZE))
        flags = lp.system_read_int(secinfo, 8)
        if flags & PT_MASK == TCS:
            flags &= ~RWX  # before it is measured
        content = bytes(self._processor.memory.read(self._physical(page), PAGE_SIZE))
        built.add(self._processor.epcm.address[page] - secs.BASEADDR, flags, content)

    def _extended(self, e: LeafDone) -> None:
        page = self._number(e)
        built, secs = self._of(page)
        if built is None:
            return
        at = e.rcx & PAGE_MASK
        chunk = self._processor.memory.read(self._physical(page) | at, CHUNK_SIZE)
        built.extend(self._processor.epcm.address[page] - secs.BASEADDR + at, chunk)

    def _initialised(self, e: LeafDone | LeafFaulted, refused: str) -> None:
        """EINIT was executed. The model's own measurement must be that of the stream."""
        lp = self._processor.lps[e.lp]
        page = _peek(lp, e.rcx)
        secs = self._processor.secs.get(page)
        built = self._by_eid.get(secs.EID) if secs is not None else None
        if secs is None or built is None:
            return
        if not secs.initialised:
            built.einit = refused if not e.rule else f"{refused} ({e.rule})"
            built.settle()
            built.stream.flush()
            return
        built.einit = ACCEPTED
        assert built.mrenclave == secs.MRENCLAVE, "the stream lacks a record"
        built.close()
        del self._by_eid[secs.EID]

    def _removed(self) -> None:
        """A SECS was removed: close the enclaves that no longer have one, in EPC or evicted."""
        live = {secs.EID for secs in self._processor.secs.values()} | self._processor.hashes.keys()
        for eid in [eid for eid in self._by_eid if eid not in live]:
            self._by_eid.pop(eid).close()

    def _of(self, page: int) -> tuple[Built | None, Secs]:
        secs = self._processor.secs[self._processor.epcm.secs[page]]
        return self._by_eid.get(secs.EID), secs

    def _number(self, e: LeafDone) -> int:
        return self._processor.lps[e.lp].system_epc_page(e.rcx)

    def _physical(self, page: int) -> int:
        return self._processor.epc.physical(page)


def _peek(lp: LogicalProcessor, address: int) -> int:
    """The EPC page of an operand, which may have been refused; -1 if it is not in EPC."""
    try:
        return lp.system_epc_page(address)
    except Fault:
        return -1
