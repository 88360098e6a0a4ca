"""JSON lines: every event is one object that has all fields, and reads back as it was."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from softsgx.report.fields import is_hex
from softsgx.report.jsonl import FORMAT, JsonLines, line
from tests.report.every_event import every_event
from tests.report.story import story


def written(**header: Any) -> list[dict[str, Any]]:
    stream = io.BytesIO()
    writer = JsonLines(stream, header)
    for entry in story():
        writer.event(*entry)
    writer.close()
    return [json.loads(text) for text in stream.getvalue().splitlines()]


@pytest.mark.parametrize("event", every_event(), ids=lambda event: type(event).__name__)
def test_every_event_has_its_fields(event: Any) -> None:
    read = json.loads(line(1, 2, event))
    assert (read.pop("ns"), read.pop("event"), read.pop("what")) == (1, 2, type(event).__name__)
    assert list(read) == list(event._fields)
    for name, value in event._asdict().items():
        if isinstance(value, int) and not isinstance(value, bool):
            assert read[name] == (f"{value:#x}" if is_hex(name) else value)
        elif isinstance(value, str | bool):
            assert read[name] == value


def test_arguments_are_an_object() -> None:
    event = next(e for e in every_event() if type(e).__name__ == "CallEnded")
    assert json.loads(line(0, 0, event))["fields"] == {"prot": 3, "address": "0x7000"}


def test_the_first_line_is_the_header() -> None:
    first = written(seed=7, program=["a", "b"])[0]
    assert first == {"softsgx_trace": FORMAT, "seed": 7, "program": ["a", "b"]}


def test_a_trace_has_the_calls_with_all_arguments() -> None:
    """What a comparison of interface designs replays."""
    lines = written()
    ended = [entry for entry in lines if entry.get("what") == "CallEnded"]
    names = {entry["name"] for entry in ended}
    assert {"mmap", "munmap", "SGX_IOC_ENCLAVE_CREATE", "SGX_IOC_ENCLAVE_ADD_PAGES"} <= names
    for entry in ended:
        if entry["name"] == "mmap":
            assert list(entry["fields"]) == ["address", "length", "prot", "flags", "fd", "offset"]
    asked = [entry["fields"] for entry in lines if entry.get("what") == "IoctlArguments"]
    (restrict,) = [fields for fields in asked if "permissions" in fields]
    assert (restrict["length"], restrict["permissions"]) == ("0x1000", 1)
    assert any("secinfo_flags" in fields for fields in asked)


def test_numbers_ascend() -> None:
    numbers = [entry["event"] for entry in written()[1:]]
    assert numbers == sorted(set(numbers))
