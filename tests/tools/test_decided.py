"""What tools/decided.py makes of searches, and the table that it has written."""

from __future__ import annotations

from typing import Any

import pytest

from softsgx.explore import Plan, explore
from softsgx.linux.version import EXPLORED
from softsgx.system.scenarios.catalogue import SCENARIOS
from softsgx.system.scenarios.names import all_shipped, scenario_named
from tests.system.test_shipped import FOUND
from tools.decided import BEGIN, DOCUMENT, END, cell, put, table


def rows() -> dict[str, dict[str, str]]:
    """The cells of the table of docs/explore.md, by scenario and kernel."""
    written = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    cells = [line.strip("| ").split(" | ") for line in written.splitlines()[2:]]
    return {name: dict(zip(EXPLORED, each, strict=True)) for name, *each in cells}


def found(states: int, *, rule: str = "", complete: bool = True) -> dict[str, Any]:
    failure = {"rule": rule} if rule else None
    return {"states": states, "failure": failure, "complete": complete and not rule}


def test_a_cell_has_findings_or_numbers_of_states() -> None:
    assert cell([found(480), found(508), found(496)]) == "480 to 508 states"
    assert cell([found(1_470), found(1_470)]) == "1,470 states"
    assert cell([found(3, rule="lock order"), found(9, rule="lock order")]) == "lock order"
    assert cell([found(3, rule="lock order"), found(9)]) == "lock order; 9 states"
    assert cell([found(26_680, complete=False)]) == "open after 26,680 states"


def test_a_table_has_every_scenario_on_every_kernel() -> None:
    results = [{"scenario": each.name, **found(7)} for each in all_shipped()]
    lines = table(results).splitlines()
    assert lines[0] == "| scenario | 6.12 | 6.1 | v2 |"
    assert lines[2] == "| FirstTouch | 7 states | 7 states | 7 states |"
    assert len(lines) == 2 + len(SCENARIOS)


def test_only_what_is_between_the_marks_is_written() -> None:
    assert put(f"a\n{BEGIN}old\n{END}b\n", "new\n") == f"a\n{BEGIN}new\n{END}b\n"
    with pytest.raises(AssertionError, match="no <!-- make decided"):
        put("nothing", "new\n")


# The table in docs/explore.md


def test_every_shipped_scenario_is_decided() -> None:
    written = rows()
    assert list(written) == [scenario.__name__ for scenario in SCENARIOS]
    for name, cells in written.items():
        for linux, text in cells.items():
            rule = FOUND.get(name, {}).get(linux)
            assert text == rule if rule else text.endswith(" states"), (name, linux)


@pytest.mark.parametrize("name", ["PcmdSharing", "RestrictRefused", "SecsEviction"])
def test_the_states_of_the_small_ones_are_those_of_the_table(name: str) -> None:
    outcome = explore(scenario_named(f"{name},6.12"), Plan(strategy="states"))
    assert outcome.complete
    assert rows()[name]["6.12"] == f"{outcome.states:,} states"
