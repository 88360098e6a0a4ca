"""Traces of `softsgx run --trace`, read leniently."""

import json
from pathlib import Path
from typing import Any

import pytest

from softsgx.lab.bench import Combination, measure
from softsgx.lab.prices import PROFILES
from softsgx.lab.workloads import workload
from softsgx.lab.workloads.recorded import Change, Recorded, TraceError, read
from softsgx.spec.epcm import R, W, X


def trace(tmp_path: Path, *records: dict[str, Any]) -> str:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_ioctls_and_mprotects_are_changes(tmp_path: Path) -> None:
    path = trace(
        tmp_path,
        {"event": "create", "base": "0x10000", "fd": 3},
        {"call": "ioctl", "name": "SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS", "tid": 7, "fd": 3,
         "args": {"offset": 0x2000, "length": 0x2000, "permissions": 1}, "ret": 0, "time": 1.5},
        {"syscall": "mprotect", "thread": 8, "address": "0x12000", "length": 4096, "prot": "r-x"},
        {"syscall": "mprotect", "address": 0x12000, "length": 4096, "prot": 1, "ret": -12},
        {"syscall": "mmap", "address": 0x12000, "length": 4096, "prot": 3},
        {"what": "else"},
    )  # fmt: skip
    assert read(path) == [Change(7, 1.5, 0x12, 2, R), Change(8, -1.0, 0x12, 1, R | X)]


def test_pages_are_numbered_without_gaps(tmp_path: Path) -> None:
    far = {"call": "mprotect", "length": 4096, "prot": 1, "address": 1 << 40}
    near = {"call": "mprotect", "length": 8192, "prot": 3, "address": 0x5000}
    recorded = Recorded(trace(tmp_path, far, near))
    assert recorded.pages == 3
    assert [(c.first, c.pages, c.rights) for c in recorded.all] == [(2, 1, R), (0, 2, R | W)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no change of enclave page permissions in it"),
        ('{"call": "mmap"}\n', "no change of enclave page permissions in it"),
        ("{}\n{\n", ":2: Expecting property name"),
        ("[]\n", ":1: not a JSON object"),
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
    records = [
        {"call": "mprotect", "tid": 10 + at % 2, "address": 0x4000 + 0x3000 * (at % 2),
         "length": 0x3000, "prot": (R, R | W)[at // 2 % 2]}
        for at in range(8)
    ]  # fmt: skip
    name = f"recorded:{trace(tmp_path, *records)}"
    for design in ("ioctl", "mprotect-prot"):
        c = Combination(design, "gramine", name, n)
        m = measure(c, workload(name), PROFILES["default"], 1)
        assert (m.reason, m.changes, m.pages) == ("", 8, 24)
