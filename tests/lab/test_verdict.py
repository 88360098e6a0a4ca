"""The verdict, the table and the marks: what they say follows from the figures, and it fits."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from softsgx.lab.bench import NO_CHANGE
from softsgx.lab.compare import Comparison, Plan
from softsgx.lab.failures.matrix import matrix, verdicts
from softsgx.lab.failures.outcome import Outcome, play
from softsgx.lab.failures.table import marks, marks_text, matrix_text
from softsgx.lab.html import page
from softsgx.lab.measurement import QUANTILES, Measurement, supported
from softsgx.lab.plots import apart
from softsgx.lab.prices import PROFILES
from softsgx.lab.table import conclusions_text, table
from softsgx.lab.verdict import capital, cheapest, corners_text, verdict

TWO = (PROFILES["low"], PROFILES["high"])


def measured(design: str, n: int, profile: str, call: float | None, faults: int) -> Measurement:
    """A run in which a change takes `call` cycles and nobody else loses time; None: it cannot."""
    reason = "it cannot, for a reason that has quite a few words" if call is None else ""
    runtime = NO_CHANGE if design == NO_CHANGE else "gramine"
    latency = tuple(range(len(QUANTILES))) if faults else ()
    return Measurement(
        design, runtime, "jit", n, profile, 1, reason, 1, 1, call or 0.0, 0, 0, faults, latency,
        0, 1, 1, {},
    )  # fmt: skip


def comparison(calls: Mapping[str, list[list[float | None]]], faults: int = 0) -> Comparison:
    """By design, for 1, 4 and 16 processors, the cycles of a call at low and at high prices."""
    ns = (1, 4, 16)[: max(map(len, calls.values()))]
    plan = Plan(tuple(calls), ("gramine",), ("jit",), ns, TWO, 1)
    without: list[list[float | None]] = [[0.0, 0.0]] * 3
    runs = [
        measured(design, n, profile.name, call, faults)
        for design, rows in {NO_CHANGE: without, **calls}.items()
        for n, row in zip(ns, rows, strict=False)
        for profile, call in zip(TWO, row, strict=True)
    ]
    return Comparison(plan, runs)


def test_the_cheapest_is_so_with_every_price() -> None:
    calls: dict[str, list[list[float | None]]] = {
        "ioctl": [[9, 9], [5, 50], [5, 5]],
        "mprotect-read": [[1, 1], [6, 40], [None, None]],
    }
    # Cheaper with low prices only, with 4 processors: that is not "at all corners".
    assert cheapest(comparison(calls)) == ("ioctl", 1, 3, 16)
    calls["ioctl"][1] = [6, 40]
    assert cheapest(comparison(calls)) == ("ioctl", 2, 3, 4), "as little as the best counts"
    text = verdict(comparison(calls), [])
    assert text == (
        "ioctl loses the least time in 2 of 3 combinations at all 2 corners, in all of them from 4 "
        "processors on."
    )
    calls["ioctl"][2] = [7, 7]
    calls["mprotect-read"][2] = [6, 6]
    assert "from" not in verdict(comparison({"ioctl": calls["ioctl"]}), [])
    assert cheapest(comparison(calls)) == ("mprotect-read", 3, 3, 1)
    assert "in all 3 combinations at all 2 corners." in verdict(comparison(calls), [])


def test_nothing_measured_and_one_design() -> None:
    assert cheapest(comparison({"ioctl": [[None, None]]})) is None
    assert verdict(comparison({"ioctl": [[None, None]]}), []) == "nothing that works was measured."
    assert verdict(comparison({"ioctl": [[1, 1]]}), []) == "ioctl was measured alone."
    assert corners_text(1) == "at the one corner tried"
    assert capital("ioctl was") == "ioctl was"
    assert capital("nothing that") == "Nothing that"


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return matrix(["ioctl", "fault-always", "mprotect-read"])


def test_the_verdict_names_who_fails_in_silence(outcomes: list[Outcome]) -> None:
    some = comparison({"ioctl": [[1, 1]], "mprotect-read": [[2, 2]]})
    assert verdict(some, outcomes).endswith(
        "; fault-always and mprotect-read lose rights in silence (reclaimed and two-processes); "
        "only ioctl survives every failure."
    )
    one = [outcome for outcome in outcomes if outcome.design == "mprotect-read"]
    assert "mprotect-read loses rights in silence (two-processes); no design" in verdict(some, one)
    fine = [outcome for outcome in outcomes if outcome.design == "ioctl"]
    assert verdict(some, fine).endswith("; every design survives every failure.")


def test_a_mark_is_in_capitals_where_the_outcome_is_bad(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        found = marks(outcome, outcomes)
        assert outcome.bad == any(mark.isupper() for mark in found), (outcome, found)
        words = verdicts(outcome, outcomes)
        assert ("page NOT named" in words) == ("p" in found)
        assert ("failure NOT named" in words) == ("f" in found)
    assert marks(play("fault-once", "in-use"), []) == "-"


@pytest.mark.parametrize("width", [30, 60, 80])
def test_the_failures_fit(width: int, outcomes: list[Outcome]) -> None:
    text = marks_text(outcomes, width)
    assert max(map(len, text.splitlines())) <= width
    for design in ("ioctl", "fault", "mprotect"):
        assert f"  {design}" in text
    assert "  U   an access that is permitted faults\n" in marks_text(outcomes)
    assert "  W " not in text, "a legend of marks that are there"
    lines = matrix_text(outcomes, width=width).splitlines()
    # A schedule is one word.
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines if width > 70)


@pytest.mark.parametrize("width", [50, 80, 200])
def test_the_table_fits_and_names_what_it_leaves_out(width: int) -> None:
    found = comparison({"ioctl": [[5e4, 9e4]], "mprotect-read": [[None, None]]}, faults=150)
    text = table(found, (1,), width)
    assert max(map(len, text.splitlines())) <= width
    assert ("No room for" in text) == (width < 200)
    head = next(line for line in text.splitlines() if line.startswith("runtime")).split()
    whole = next(line for line in table(found, (1,)).splitlines() if line.startswith("runtime"))
    left = re.search(r"No room for ([^:]*):", text.replace("\n", " "))
    assert [*head, *(left[1].replace(",", "").split() if left else [])] == whole.split()
    assert "cannot (1)" in text
    assert "1 of 2 cannot work:" in text
    assert max(map(len, conclusions_text(found.conclusions(), TWO, width).splitlines())) <= 100


def test_a_quantile_needs_samples_on_both_sides() -> None:
    assert [supported(q, 99) for q in (500, 990, 999)] == [True, False, False]
    assert [supported(q, 100) for q in (0, 10, 990, 999, 1000)] == [True, True, True, False, True]
    assert [supported(q, 1000) for q in (1, 999)] == [True, True]
    assert not supported(0, 0)
    few = measured("ioctl", 1, "low", 1.0, 83)
    assert (few.latency_at(500), few.latency_at(990), few.latency_at(999)) == (10, None, None)
    assert measured("ioctl", 1, "low", 1.0, 0).latency_at(500) is None
    text = table(comparison({"ioctl": [[1, 1]]}, faults=83), (1,))
    row = next(line for line in text.splitlines() if line.startswith("gramine")).split()
    assert row[6:10] == ["83", "0.0", "-", "-"], "n, 50 %, 99 %, 99.9 %"


def test_the_conclusions_say_how_many_corners_there_are() -> None:
    found = comparison({"ioctl": [[1, 1]], "mprotect-read": [[2, 2]]})
    assert "at all 2 corners (low, high)" in conclusions_text(found.conclusions(), TWO)
    assert "at the one corner tried (low)" in conclusions_text(found.conclusions(), TWO[:1])


def test_labels_of_processors_do_not_collide() -> None:
    assert apart((1, 4, 16, 64)) == [1, 4, 16, 64]
    assert apart((1, 60, 64)) == [1, 64]
    assert apart((8,)) == [8]


def test_the_page_begins_with_the_verdict(outcomes: list[Outcome]) -> None:
    found = comparison({"ioctl": [[2, 2]], "mprotect-read": [[2, 2]]})
    text = page(found, outcomes, [], "softsgx compare")
    assert f'<p class="verdict">{capital(verdict(found, outcomes))}</p>' in text
    assert text.index('class="verdict"') < text.index("<h2>")
    assert '<span class="soft">equal</span>' in text, "equal is not red"
    assert "width=device-width" in text
    assert "prefers-color-scheme: dark" in text
    assert '<td class="bad" title="success; UNDESERVED FAULT; LOST in silence">UL' in text
