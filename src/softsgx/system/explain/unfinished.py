"""What a program leaves undone: pages that still need EACCEPT, threads that are still inside.

A runtime that forgets EACCEPT seems to work: rights and types are in the EPCM at once, and only the
guarantee that no thread has a stale translation is missing. A page counts from the leaf that sets
PENDING, MODIFIED or PR until a leaf clears it; a page that is removed or evicted before that was
left undone. A thread is inside from EENTER to EEXIT; an AEX without ERESUME does not end that.

Not reported are pages that were trimmed and accepted but never removed, and enclaves that were
never initialised: the refusals that led there are explained and counted elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.events import cpu as c
from softsgx.events import kernel as k
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import (
    PENDING,
    PT_MASK,
    RWX,
    TCS,
    TRIM,
    VALID,
    word_text,
)
from softsgx.spec.faults import VECTOR_NAMES
from softsgx.system.explain.facts import DUE
from softsgx.system.explain.history import Context

if TYPE_CHECKING:
    from softsgx.cpu import Processor

FOLLOWED_MAX: Final = 1 << 17
"""How many pages and stays are remembered. Of more only `overflowed` remains."""

_SHOWN: Final = DUE | RWX | PT_MASK


class Remark(NamedTuple):
    """One thing left undone: the SECS.EID of its enclave, and a line of text."""

    enclave: int
    text: str


class _Due(NamedTuple):
    """A page that needs EACCEPT: bits of its EPCM word; leaf, author and event of the change."""

    word: int
    leaf: str
    by: Context | str
    seq: int


class _Stay:
    """A thread on an SSA frame of a TCS: event of its entry, event and vector of the AEX that it
    has not resumed from, and how its process ended."""

    __slots__ = ("end", "entered", "left", "process", "thread", "vector")

    def __init__(self, thread: str, process: str, entered: int) -> None:
        self.thread, self.process, self.entered = thread, process, entered
        self.left = self.vector = 0
        self.end = ""


class Unfinished:
    """A listener that remembers what is unfinished; `remarks` lists it."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._log = processor.log
        self.overflowed = False
        self._followed = 0
        self._pages: dict[int, dict[int, _Due]] = {}  # by enclave and linear address
        self._bases: dict[int, int] = {}
        self._stays: dict[tuple[int, int], dict[int, _Stay]] = {}  # by enclave and TCS, then frame
        self._frame: dict[tuple[int, int], int] = {}  # the SSA frame of the thread inside
        self._runs: dict[int, k.ThreadSwitchedIn] = {}
        self._calls: dict[int, list[k.CallBegun | k.IoctlArguments | Context]] = {}
        self._log.subscribe_to(
            {
                c.EpcmChanged: self._epcm_changed,
                c.LeafDone: self._leaf_done,
                c.Entered: self._entered,
                c.Left: self._left,
                k.CallBegun: self._begun,
                k.IoctlArguments: self._arguments,
                k.ThreadSwitchedIn: self._switched_in,
                k.ProcessStarted: self._started,
                k.ProcessEnded: self._ended,
            }
        )

    # Queries

    def remarks(self) -> list[Remark]:
        """All that is unfinished now, by enclave; adjacent pages with the same history are one."""
        found = [Remark(eid, text) for eid in self._pages for text in self._page_texts(eid)]
        for (eid, tcs), stays in self._stays.items():
            found += [Remark(eid, _inside(tcs, frame, stay)) for frame, stay in stays.items()]
        return sorted(found, key=lambda remark: remark.enclave)

    def _page_texts(self, eid: int) -> Iterator[str]:
        group: list[int] = []
        pages = self._pages[eid]
        for linear in sorted(pages):
            if group and not (
                linear == group[-1] + PAGE_SIZE and _alike(pages[linear], pages[group[-1]])
            ):
                yield self._group_text(eid, group)
                group = []
            group.append(linear)
        if group:
            yield self._group_text(eid, group)

    def _group_text(self, eid: int, group: list[int]) -> str:
        due = self._pages[eid][group[0]]
        start, count = group[0], len(group)
        where = f"page {start:#x}" if count == 1 else f"{count} pages from {start:#x}"
        what = word_text(due.word | VALID)
        then = "EACCEPT or EACCEPTCOPY" if due.word & PENDING else "EACCEPT"
        if due.word & PT_MASK == TRIM:
            then = "EACCEPT, then REMOVE_PAGES,"
        since = f"since {due.leaf} by {due.by}, event {due.seq}"
        return f"{where} (base + {start - self._bases[eid]:#x}) {what} {since}: {then} still due"

    # Events of pages

    def _epcm_changed(self, e: c.EpcmChanged) -> None:
        if e.before & PT_MASK == TCS and e.leaf == "EMODT":
            self._forget(e)
        if not (e.before | e.after) & DUE or not e.after:
            return
        secs = self._processor.secs.get(e.secs)
        if secs is None:
            return
        eid = secs.EID
        pages = self._pages.get(eid)
        known = pages.get(e.linear) if pages is not None else None
        if not e.after & DUE:
            if pages is not None and known is not None:
                del pages[e.linear]
                self._followed -= 1
                if not pages:
                    del self._pages[eid]
            return
        word = e.after & _SHOWN
        if known is not None and not (known.word ^ word) & (DUE | PT_MASK):
            if known.word != word and pages is not None:
                pages[e.linear] = known._replace(word=word)
            return
        if known is None and not self._room():
            return
        self._bases[eid] = secs.BASEADDR
        due = _Due(word, e.leaf, self._by(e.lp, e.leaf), self._log.seq)
        self._pages.setdefault(eid, {})[e.linear] = due

    def _room(self) -> bool:
        if self._followed >= FOLLOWED_MAX:
            self.overflowed = True
            return False
        self._followed += 1
        return True

    def _by(self, lp: int, leaf: str) -> Context | str:
        """EAUG comes from a page fault, the other leaves from a call."""
        runs, call = self._runs.get(lp), self._calls.get(lp)
        if leaf == "EAUG" or call is None:
            who = f"thread {runs.thread}" if runs is not None else f"processor {lp}"
            return f"page fault of {who}" if leaf == "EAUG" else who
        last = call[-1]
        if not isinstance(last, Context):
            begun = call[0]
            assert isinstance(begun, k.CallBegun)
            last = Context(begun.name, begun.thread, last.fields, self._log.seq)
            call.append(last)
        return last

    def _begun(self, e: k.CallBegun) -> None:
        self._calls[e.cpu] = [e]

    def _arguments(self, e: k.IoctlArguments) -> None:
        call = self._calls.get(e.cpu)
        if call is not None:
            call.append(e)

    # Events of threads

    def _switched_in(self, e: k.ThreadSwitchedIn) -> None:
        self._runs[e.cpu] = e

    def _entered(self, e: c.Entered) -> None:
        key = (e.eid, e.tcs)
        stays = self._stays.get(key)
        if stays is None:
            stays = self._stays[key] = {}
        self._frame[key] = e.cssa
        stay = stays.get(e.cssa)
        if stay is not None and e.resumed:
            stay.left = 0
            return
        if stay is None and not self._room():
            return
        runs = self._runs.get(e.lp)
        thread, process = (f"processor {e.lp}", "") if runs is None else (runs.thread, runs.process)
        stays[e.cssa] = _Stay(thread, process, self._log.seq)

    def _left(self, e: c.Left) -> None:
        key = (e.eid, e.tcs)
        stays, frame = self._stays.get(key), self._frame.get(key, 0)
        stay = stays.get(frame) if stays is not None else None
        if stays is None or stay is None:
            return
        if e.vector >= 0:
            if not stay.end:
                stay.left, stay.vector = self._log.seq, e.vector
            return
        del stays[frame]
        self._followed -= 1
        if not stays:
            del self._stays[key]
            del self._frame[key]

    def _leaf_done(self, e: c.LeafDone) -> None:
        """EDECCSSA: the handler continues in the frame below, which is now its own."""
        if e.leaf != "EDECCSSA" or e.rule:
            return
        lp = self._processor.lps[e.lp]
        key = (lp.secs.EID if lp.secs is not None else 0, lp.tcs_address)
        stays, frame = self._stays.get(key), self._frame.get(key, 0)
        if stays is not None and frame in stays and frame - 1 in stays:
            stays[frame - 1] = stays.pop(frame)
            self._frame[key] = frame - 1
            self._followed -= 1

    def _forget(self, e: c.EpcmChanged) -> None:
        """A TCS whose type is changed was given up on purpose."""
        secs = self._processor.secs.get(e.secs)
        key = (secs.EID if secs is not None else 0, e.linear)
        self._followed -= len(self._stays.pop(key, {}))
        self._frame.pop(key, None)

    def _started(self, e: k.ProcessStarted) -> None:
        if not e.parent:
            self._gone(e.process, f"process {e.process} executed {e.path}")

    def _ended(self, e: k.ProcessEnded) -> None:
        self._gone(e.process, f"process {e.process} ended, {e.outcome}")

    def _gone(self, process: str, what: str) -> None:
        for stays in self._stays.values():
            for stay in stays.values():
                if stay.process == process and not stay.end:
                    stay.end = f"{what}, event {self._log.seq}"


def _alike(a: _Due, b: _Due) -> bool:
    """Whether two adjacent pages have the same history."""
    same = a.by is b.by or (isinstance(a.by, str) and a.by == b.by)
    return same and (a.word, a.leaf) == (b.word, b.leaf)


def _inside(tcs: int, frame: int, stay: _Stay) -> str:
    where = f"the TCS {tcs:#x}" if not frame else f"the TCS {tcs:#x}, CSSA {frame},"
    text = f"thread {stay.thread} is still inside on {where} since event {stay.entered}"
    if stay.left:
        cause = VECTOR_NAMES.get(stay.vector, "interrupt")
        text += f": AEX by {cause}, event {stay.left}, and no ERESUME"
    return f"{text}; {stay.end}" if stay.end else text
