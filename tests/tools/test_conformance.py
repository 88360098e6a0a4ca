"""What tools/conformance.py makes of a TAP report and of --stats. The reports are made up."""

import re
import signal
from itertools import product
from pathlib import Path

import pytest

from tools import conformance
from tools.conformance import (
    DRIVERS,
    EMULATED,
    ENGINES,
    GP,
    TESTS,
    UD,
    VERSIONS,
    CannotRunError,
    Outcome,
    evictions,
    markdown,
    table,
    totals,
    verdict,
    ways,
    write_document,
)

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
        Outcome("6.1", "C", "unicorn", EMULATED, GOOD, 1234, 1.25, ""),
        Outcome("6.12", "Python", "native", GP, {}, 0, 1800, "too slow"),
    ]
    assert table(runs).splitlines() == [
        "Linux   driver  engine    ENCLU is             pass fail skip  evicted       s",
        "6.1     C       unicorn   the model's            16    0    0     1234     1.2",
        "6.12    Python  native    #GP or #PF              -    -    -        0  1800.0  too slow",
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (signal.SIGILL, [(UD, ""), (f"{GP}, played", "with-sgx")]),
        (signal.SIGSEGV, [(GP, ""), (f"{UD}, played", "without-sgx")]),
    ],
)
def test_native_runs_are_on_both_kinds_of_processor(
    answer: int, expected: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance, "enclu_answer", lambda: answer)
    found = ways(["unicorn", "native"])
    assert found == [("unicorn", EMULATED, ""), *(("native", *way) for way in expected)]


def test_the_document_has_the_table_of_a_run() -> None:
    """Every selftest passes with each engine, natively on both kinds, and says on which machine."""
    document = conformance.DOCUMENT.read_text(encoding="utf-8")
    written = conformance.BEGIN + document.partition(conformance.BEGIN)[2]
    written = written.partition(conformance.END)[0] + conformance.END
    rows = [line.split(" | ") for line in written.splitlines() if line.startswith("| Linux")]
    outcomes = []
    for version, driver, engine, enclu, *counts in rows:
        passed, failed, skipped, evicted = (int(count.strip(" |")) for count in counts)
        found = {"pass": passed, "fail": failed, "skip": skipped}
        number = version.removeprefix("| Linux ")
        outcomes.append(Outcome(number, driver, engine, enclu, found, evicted, 0.0, ""))
    machine = re.search(
        r"^Made on: (.+ \(family \d+, model \d+, .+\), Linux [\d.]+)\.$", written, re.M
    )
    assert machine is not None
    assert written == markdown(outcomes, machine[1])
    kinds = {"unicorn": {EMULATED}, "native": {UD, GP}}
    for version in VERSIONS:
        for driver, engine in product(DRIVERS, ENGINES):
            how = (version, driver, engine)
            ours = [o for o in outcomes if (o.version, o.driver, o.engine) == how]
            assert {o.enclu.removesuffix(", played") for o in ours} == kinds[engine]
            assert all(o.totals["pass"] == TESTS and o.evictions for o in ours)
            assert not any(o.totals["fail"] or o.totals["skip"] for o in ours)


def test_the_table_of_the_document_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    document = tmp_path / "run.md"
    document.write_text(f"before\n{conformance.BEGIN}\nold\n{conformance.END}\nafter\n")
    new = markdown([Outcome("6.1", "C", "unicorn", EMULATED, GOOD, 7, 1.0, "")], "Z80 (family 1)")
    write_document(new, document)
    assert document.read_text() == f"before\n{new}\nafter\n"
    document.write_text("no marks\n")
    with pytest.raises(CannotRunError, match="no <!--"):
        write_document(new, document)
    assert document.read_text() == "no marks\n"
