"""Counts, and the table of `--stats`."""

from __future__ import annotations

from softsgx.events.cpu import Left
from softsgx.events.kernel import CallEnded
from softsgx.report.stats import Stats
from tests.report.every_event import every_event
from tests.report.story import story


def counted() -> Stats:
    stats = Stats()
    for _, _, event in story():
        stats(event)
    return stats


def test_leaves_and_what_refused_them() -> None:
    stats = counted()
    assert stats.leaves["EMODPR"] == stats.leaves["EACCEPT"] == 1
    assert stats.leaves["EADD"] == 5
    assert stats.refused == {"EENTER #PF PAGING.01": 3}
    assert stats.accesses["ACCESS.12"] == 1


def test_calls_faults_entries_and_exits() -> None:
    stats = counted()
    assert stats.calls["SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS"] == 1
    assert stats.faults["SIGSEGV SEGV_ACCERR"] == 1
    assert stats.entries + stats.resumed == sum(stats.exits.values())
    assert stats.exits == {"EEXIT": 2, "AEX by #PF": 3}
    assert stats.signals == {"#PF returned by the vDSO": 1}


def test_failed_calls_have_their_errno() -> None:
    stats = Stats()
    stats(CallEnded(0, "t", "mmap", (), -13))
    stats(CallEnded(0, "t", "mmap", (), 0x7FFF_0000_0000))
    assert (stats.calls["mmap"], dict(stats.failed)) == (2, {"mmap -EACCES": 1})


def test_an_interrupt_is_not_an_exception() -> None:
    stats = Stats()
    stats(Left(0, 1, 0, 0xFB))
    assert stats.exits == {"AEX by interrupt": 1}


def test_every_event_can_be_counted() -> None:
    stats = Stats()
    for event in every_event():
        stats(event)
    assert stats.ipis == 2


def test_the_table_is_readable_in_columns() -> None:
    lines = counted().text([("seconds", "0.5 in all")]).splitlines()
    assert lines[0].startswith("  leaves       EEXTEND ")
    assert lines[-1] == "  seconds      0.5 in all"
    assert all(len(line) <= 92 for line in lines)
    assert all(line.startswith("  ") and line == line.rstrip() for line in lines)
    assert "  IPIs         1" in lines


def test_what_never_happened_is_left_out() -> None:
    assert "evicted" not in counted().text()
    assert [line.split()[0] for line in Stats().text().splitlines()] == []
