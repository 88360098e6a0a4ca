"""What tools/conformance.py makes of a TAP report and of --stats. The reports are made up."""

import pytest

from tools.conformance import TESTS, Outcome, evictions, table, totals, verdict

GOOD = {"pass": TESTS, "fail": 0, "xfail": 0, "xpass": 0, "skip": 0, "error": 0}


def report(**counts: int) -> str:
    words = " ".join(f"{name}:{count}" for name, count in {**GOOD, **counts}.items())
    return f"TAP version 13\n1..16\nok 1 enclave.first\n# Totals: {words}\n"


def test_totals_are_those_of_the_last_line() -> None:
    assert totals(report()) == GOOD
    assert totals(report(skip=3) + report(skip=1))["skip"] == 1
    assert totals("ok 1 enclave.first\n") == {}


@pytest.mark.parametrize(
    ("stats", "count"),
    [
        ("", 0),
        ("ioctls 117\nevictions 0\n", 0),
        ("evictions: 1234\n", 1234),
        ("evicted   77 pages", 77),
        ("99 evictions", 99),
    ],
)
def test_evictions(stats: str, count: int) -> None:
    assert evictions(stats) == count


@pytest.mark.parametrize(
    ("counts", "evicted", "code", "why"),
    [
        (GOOD, 1, 0, ""),
        ({}, 1, 0, "no totals, exit code 0"),
        ({**GOOD, "pass": 15, "fail": 1}, 1, 1, "not 16 passed"),
        ({**GOOD, "pass": 17}, 1, 0, "not 16 passed"),
        ({**GOOD, "skip": 1}, 1, 0, "skip"),
        ({**GOOD, "xfail": 1, "error": 2}, 1, 0, "xfail, error"),
        (GOOD, 1, 3, "exit code 3"),
        (GOOD, 0, 0, "nothing was evicted"),
    ],
)
def test_verdict(counts: dict[str, int], evicted: int, code: int, why: str) -> None:
    assert verdict(counts, evicted, code) == why


def test_table_has_a_line_for_each_run() -> None:
    runs = [
        Outcome("6.1", "unicorn", GOOD, 1234, 1.25, ""),
        Outcome("6.12", "native", {}, 0, 1800, "not done in 1800 s"),
    ]
    assert table(runs).splitlines() == [
        "Linux   engine     pass fail skip  evicted       s",
        "6.1     unicorn      16    0    0     1234     1.2",
        "6.12    native        -    -    -        0  1800.0  not done in 1800 s",
    ]
