"""Calls read back from a trace: what was done to an enclave, in order, with all arguments."""

from __future__ import annotations

import io

import pytest

from softsgx.report.calls import Call, TraceError, calls, header
from softsgx.report.jsonl import JsonLines
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R
from tests.report.story import story


def lines() -> list[str]:
    stream = io.BytesIO()
    writer = JsonLines(stream, {"seed": 7})
    for entry in story():
        writer.event(*entry)
    return stream.getvalue().decode().splitlines()


def test_an_ioctl_has_its_block_and_its_results() -> None:
    found = [call for call in calls(lines()[1:]) if "RESTRICT" in call.name]
    (restrict,) = found
    assert restrict.name == "SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS"
    assert (restrict.fields["permissions"], restrict.fields["length"]) == (R, PAGE_SIZE)
    assert restrict.results == {"result": 0, "count": PAGE_SIZE}
    assert restrict.result == 0


def test_the_building_of_an_enclave_can_be_read() -> None:
    found = list(calls(lines()[1:]))
    names = [call.name.removeprefix("SGX_IOC_ENCLAVE_") for call in found]
    create, init = names.index("CREATE"), names.index("INIT")
    adds = [n for n, name in enumerate(names) if name == "ADD_PAGES"]
    assert create < min(adds)
    assert max(adds) < init
    assert found[create].fields["base"] % found[create].fields["size"] == 0
    mapped = [call for call in found[init:] if call.name == "mmap" and call.fields["fd"] >= 0]
    assert mapped
    assert all(call.result == call.fields["address"] for call in mapped)
    assert all(call.thread == "main" for call in found)


def test_calls_that_nest_end_from_the_inside() -> None:
    """Calls of several processors are kept apart, and a call may contain another."""
    text = [
        '{"event": 1, "ns": 1, "what": "CallBegun", "cpu": 0, "thread": "a", "name": "x",'
        ' "fields": {"prot": 1}}',
        '{"event": 2, "ns": 2, "what": "CallBegun", "cpu": 1, "thread": "b", "name": "y",'
        ' "fields": {"address": "0x10"}}',
        '{"event": 3, "ns": 3, "what": "CallEnded", "cpu": 0, "thread": "a", "name": "x",'
        ' "fields": {}, "result": -13}',
        '{"event": 4, "ns": 4, "what": "CallEnded", "cpu": 1, "thread": "b", "name": "y",'
        ' "fields": {}, "result": 0}',
    ]
    assert list(calls(text)) == [
        Call(1, "x", "a", 1, {"prot": 1}, {}, -13),
        Call(2, "y", "b", 2, {"address": 16}, {}, 0),
    ]


def test_a_truncated_trace_gives_its_whole_calls() -> None:
    whole = lines()[1:]
    cut = [*whole[:-40], whole[-40][:20]]
    assert 0 < len(list(calls(cut))) <= len(list(calls(whole)))


def test_the_header_is_read() -> None:
    assert header(lines())["seed"] == 7


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ("", "not a trace"),
        ("hello", "not a trace"),
        ("[1]", "not a trace"),
        ('{"seed": 7}', "not a trace"),
        ('{"softsgx_trace": 99}', "format 99"),
    ],
)
def test_what_is_not_a_trace_is_refused(first: str, says: str) -> None:
    with pytest.raises(TraceError, match=says):
        header([first])
