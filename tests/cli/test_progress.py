"""The line of --progress says what its numbers count."""

from __future__ import annotations

import pytest

from softsgx.cli.progress import ProgressLine
from softsgx.explore import Outcome


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        (
            "deepening",
            "100 executions, 10/s; all with up to 1; "
            "25.0% of the schedules with up to 2 preemptions; of roughly 4e+02 there, 30 s left",
        ),
        ("dfs", "100 executions, 10/s; 25.0% of the tree; of roughly 4e+02 there, 30 s left"),
        (
            "exhaustive",
            "100 executions, 10/s; 25.0% of the tree as far as it is known; "
            "of at least 4e+02 there, 30 s left",
        ),
        ("random", "100 executions, 10/s; 10.0% of 1000; 90 s left"),
    ],
)
def test_a_number_is_that_of_the_bound_in_progress(strategy: str, text: str) -> None:
    """The result said 2e7 schedules and the line 1.4e5: those of all bounds and those of one."""
    line = ProgressLine(1000)
    outcome = Outcome("s", strategy, executions=100, fraction=0.25)
    if strategy == "deepening":
        outcome.bound = 1
    assert line.text(outcome, line._start + 10.0) == text
