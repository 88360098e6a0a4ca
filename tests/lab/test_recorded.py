"""Traces of `softsgx run --trace` as workloads."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from softsgx.events.kernel import CallBegun, CallEnded, IoctlArguments, IoctlResults
from softsgx.lab.bench import Combination, measure
from softsgx.lab.prices import PROFILES
from softsgx.lab.workloads import workload
from softsgx.lab.workloads.recorded import Recorded, TraceError, read
from softsgx.report.jsonl import JsonLines
from softsgx.sim import Event
from softsgx.spec.epcm import R, W, X

BASE = 0x7000_0000
PAGE = 0x1000


def ioctl(name: str, thread: str = "a", count: int = 0, **block: int) -> Iterator[Event]:
    yield CallBegun(0, thread, f"SGX_IOC_ENCLAVE_{name}", (("fd", 3),))
    yield IoctlArguments(0, thread, tuple(block.items()))
    yield IoctlResults(0, thread, (("result", 0), ("count", count)))
    yield CallEnded(0, thread, f"SGX_IOC_ENCLAVE_{name}", (("fd", 3),), 0)


def restrict(page: int, pages: int, rights: int, thread: str = "a") -> Iterator[Event]:
    length = pages * PAGE
    return ioctl(
        "RESTRICT_PERMISSIONS", thread, length, offset=page * PAGE, length=length,
        permissions=rights,
    )  # fmt: skip


def mprotect(
    page: int, pages: int, rights: int, thread: str = "a", result: int = 0
) -> Iterator[Event]:
    fields = (("address", BASE + page * PAGE), ("length", pages * PAGE), ("prot", rights))
    yield CallBegun(0, thread, "mprotect", fields)
    yield CallEnded(0, thread, "mprotect", fields, result)


def trace(tmp_path: Path, *steps: Iterator[Event]) -> str:
    stream = io.BytesIO()
    writer = JsonLines(stream, {})
    built = (ioctl("CREATE", base=BASE), mprotect(0, 9, R), ioctl("INIT"))
    for number, event in enumerate(e for step in (*built, *steps) for e in step):
        writer.event(number * 1_000_000, number, event)
    path = tmp_path / "t.jsonl"
    path.write_bytes(stream.getvalue())
    return str(path)


def found(path: str) -> list[tuple[int, int, int, int]]:
    return [(c.thread, c.first - BASE // PAGE, c.pages, c.rights) for c in read(path)]


def test_ioctls_and_mprotects_after_init_are_changes(tmp_path: Path) -> None:
    path = trace(
        tmp_path, restrict(2, 2, R), mprotect(5, 1, R | X, "b"), mprotect(5, 1, R, "b", -12)
    )
    assert found(path) == [(0, 2, 2, R), (1, 5, 1, R | X)]


def test_ioctl_and_mprotect_of_one_range_are_one_change(tmp_path: Path) -> None:
    """Intel and Gramine ask for the same rights; Enarx restricts to R and extends to mprotect's."""
    gramine = (restrict(2, 1, R), mprotect(2, 1, R))
    enarx = (mprotect(4, 1, R | X), restrict(4, 1, R))
    apart = (mprotect(6, 1, R), restrict(7, 1, R))
    expected = [(0, 2, 1, R), (0, 4, 1, R | X), (0, 6, 1, R), (0, 7, 1, R)]
    assert found(trace(tmp_path, *gramine, *enarx, *apart)) == expected


def test_what_the_ioctl_did_not_do_is_no_change(tmp_path: Path) -> None:
    half = ioctl("RESTRICT_PERMISSIONS", count=PAGE, offset=0, length=2 * PAGE, permissions=R)
    assert found(trace(tmp_path, half)) == [(0, 0, 1, R)]


def test_pages_are_numbered_without_gaps(tmp_path: Path) -> None:
    recorded = Recorded(trace(tmp_path, mprotect(1000, 1, R), mprotect(5, 2, R | W)))
    assert recorded.pages == 3
    assert [(c.first, c.pages, c.rights) for c in recorded.all] == [(2, 1, R), (0, 2, R | W)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a trace of softsgx in JSON lines"),
        ("[]", "not a trace of softsgx in JSON lines"),
        ('{"softsgx_trace": 99}', "a trace of format 99"),
        ('{"softsgx_trace": 1}', "no change of enclave page permissions in it"),
    ],
)
def test_a_useless_trace_says_why(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(TraceError, match=why):
        Recorded(str(path))


def test_a_missing_trace_says_why(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        Recorded(str(tmp_path / "none"))


@pytest.mark.parametrize("n", [1, 4])
def test_the_changes_of_a_program_are_measured_in_every_design(tmp_path: Path, n: int) -> None:
    steps = [mprotect(3 * (at % 2), 3, (R, R | W)[at // 2 % 2], "ab"[at % 2]) for at in range(8)]
    name = f"recorded:{trace(tmp_path, *steps)}"
    for design in ("ioctl", "mprotect-prot"):
        c = Combination(design, "gramine", name, n)
        m = measure(c, workload(name), PROFILES["default"], 1)
        assert (m.reason, m.changes, m.pages) == ("", 8, 24)
