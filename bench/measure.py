"""How a figure is taken: several rounds of the processor's time, beside the target of its issue.

Processor time, not elapsed time: everything measured runs in one thread and never waits, so on a
quiet machine the two are equal, and on a shared one other load does not count.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple


class Figure(NamedTuple):
    """One row: what, median and best, unit, target (0 = none), and a remark."""

    what: str
    median: float
    best: float
    unit: str
    target: float = 0.0
    remark: str = ""

    @property
    def verdict(self) -> str:
        """Whether the median meets the target."""
        if not self.target:
            return ""
        return "yes" if self.median <= self.target else "NO"


def per_call(
    what: str,
    call: Callable[[], object],
    *,
    number: int,
    rounds: int = 9,
    unit: str = "us",
    target: float = 0.0,
    divide: float = 1.0,
    remark: str = "",
) -> Figure:
    """Time `number` calls per round; the figure is the time of one call, divided by `divide`."""
    scale = {"us": 1e6, "ms": 1e3, "s": 1.0}[unit] / number / divide
    times = []
    for _ in range(rounds):
        gc.collect()
        start = time.process_time()
        for _ in range(number):
            call()
        times.append((time.process_time() - start) * scale)
    return Figure(what, median(times), min(times), unit, target, remark)


def loop_cost(number: int = 200_000) -> Figure:
    """The yardstick: an empty Python function call, so that figures of two machines compare."""

    def nothing() -> None:
        return None

    return per_call("empty function call (yardstick)", nothing, number=number)


def table(title: str, figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"## {title}",
        "",
        "| what | median | best | target | met | remark |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for f in figures:
        target = f"{f.target:g} {f.unit}" if f.target else ""
        lines.append(
            f"| {f.what} | {f.median:.3g} {f.unit} | {f.best:.3g} {f.unit} | {target} "
            f"| {f.verdict} | {f.remark} |"
        )
    return "\n".join([*lines, ""])
