"""Perfetto: packets of the schema, tracks that exist, slices that nest.

Field numbers are those of protos/perfetto/trace in the Perfetto project.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from typing import Any

import pytest

from softsgx.report.perfetto import Perfetto
from softsgx.report.protobuf import data, integer, varint
from softsgx.sim import Event
from tests.report.every_event import every_event
from tests.report.protobuf_reader import Message, inner, number, read, text
from tests.report.story import story

PACKET, TIMESTAMP, SEQUENCE, EVENT, DESCRIPTOR = 1, 8, 10, 11, 60
UUID, NAME, PROCESS, THREAD, PARENT, COUNTER = 1, 2, 3, 4, 5, 8
ANNOTATION, TYPE, TRACK, EVENT_NAME, VALUE = 4, 9, 11, 23, 30
BEGIN, END, COUNT = 1, 2, 4


def packets(events: Any) -> list[Message]:
    stream = io.BytesIO()
    writer = Perfetto(stream, {"seed": 7})
    for entry in events:
        writer.event(*entry)
    writer.close()
    trace = read(stream.getvalue())
    assert set(trace) == {PACKET}
    return [read(packet) for packet in trace[PACKET] if isinstance(packet, bytes)]


def descriptors(found: list[Message]) -> dict[int, Message]:
    tracks = [read(inner(packet, DESCRIPTOR)) for packet in found if DESCRIPTOR in packet]
    return {number(track, UUID): track for track in tracks}


def events_of(found: list[Message]) -> list[tuple[int, Message]]:
    """(timestamp, TrackEvent)."""
    return [(number(p, TIMESTAMP), read(inner(p, EVENT))) for p in found if EVENT in p]


@pytest.fixture(scope="module")
def found() -> list[Message]:
    return packets(story())


def test_every_packet_is_of_one_sequence_whose_state_begins_with_the_first(
    found: list[Message],
) -> None:
    assert all(number(packet, SEQUENCE) == 1 for packet in found)
    assert number(found[0], 13) == 1  # SEQ_INCREMENTAL_STATE_CLEARED
    assert all(DESCRIPTOR in packet or EVENT in packet for packet in found)


def test_a_track_is_described_before_its_first_event(found: list[Message]) -> None:
    known: set[int] = set()
    for packet in found:
        if DESCRIPTOR in packet:
            known.add(number(read(inner(packet, DESCRIPTOR)), UUID))
        else:
            assert number(read(inner(packet, EVENT)), TRACK) in known


def test_threads_are_tracks_of_their_processes() -> None:
    from softsgx.events.kernel import CallBegun, CallEnded, ThreadSwitchedIn

    found = packets(
        [
            (10, 1, ThreadSwitchedIn(2, "4712", "4711", "4711")),
            (20, 2, CallBegun(2, "4712", "mprotect", (("prot", 1),))),
            (30, 3, CallEnded(2, "4712", "mprotect", (), -13)),
        ]
    )
    tracks = descriptors(found)
    (process,) = [read(inner(t, PROCESS)) for t in tracks.values() if PROCESS in t]
    (thread,) = [read(inner(t, THREAD)) for t in tracks.values() if THREAD in t]
    assert number(process, 1) == 4711
    assert (number(thread, 1), number(thread, 2)) == (4711, 4712)
    (begin_at, begin), (end_at, end) = events_of(found)
    assert (begin_at, end_at) == (20, 30)
    assert (number(begin, TYPE), text(begin, EVENT_NAME)) == (BEGIN, "mprotect")
    assert number(end, TYPE) == END
    note = read(inner(end, ANNOTATION))
    assert (text(note, 10), text(note, 6)) == ("result", "-EACCES")
    assert text(read(inner(begin, ANNOTATION)), 6) == "r--"


def test_slices_nest(found: list[Message]) -> None:
    """On every track each end has a begin, time never decreases, nothing is left open."""
    depth: Counter[int] = Counter()
    last: dict[int, int] = defaultdict(int)
    for at, event in events_of(found):
        track = number(event, TRACK)
        assert at >= last[track]
        last[track] = at
        depth[track] += {BEGIN: 1, END: -1}.get(number(event, TYPE), 0)
        assert depth[track] >= 0
    assert not any(depth.values())


def test_the_story_is_in_the_slices(found: list[Message]) -> None:
    begun = [e for _, e in events_of(found) if number(e, TYPE) == BEGIN]
    names = Counter(text(event, EVENT_NAME) for event in begun)
    assert names["SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS"] == 1
    assert names["enclave 1"] == names["EENTER"] - 3 + names["ERESUME"]
    assert {"EMODPR", "EACCEPT", "page fault", "mmap"} <= set(names)


def test_epc_is_counted(found: list[Message]) -> None:
    counts = [number(e, VALUE) for _, e in events_of(found) if number(e, TYPE) == COUNT]
    # SECS, VA page, TCS, two SSA frames, scratch page, data page.
    assert counts == [1, 2, 3, 4, 5, 6, 7]


def test_a_trace_that_ends_early_has_no_open_slice() -> None:
    last = max(n for n, (_, _, event) in enumerate(story()) if type(event).__name__ == "CallBegun")
    cut = story()[: last + 1]
    depth = 0
    for _, event in events_of(packets(cut)):
        depth += {BEGIN: 1, END: -1}.get(number(event, TYPE), 0)
    assert depth == 0


@pytest.mark.parametrize("event", every_event(), ids=lambda event: type(event).__name__)
def test_any_event_can_be_written(event: Event) -> None:
    assert packets([(1, 1, event)])


@pytest.mark.parametrize(
    ("value", "raw"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (-1, "ff" * 9 + "01")],
)
def test_varints(value: int, raw: str) -> None:
    """The examples of the encoding's documentation, and the borders."""
    assert varint(value).hex() == raw


def test_fields() -> None:
    assert integer(1, 150).hex() == "089601"
    assert data(2, "testing").hex() == "120774657374696e67"
