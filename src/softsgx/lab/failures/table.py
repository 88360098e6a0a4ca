"""The failures as text: a matrix of marks, or a block for each with its evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from softsgx.lab.failures.catalogue import FAILURES
from softsgx.lab.failures.matrix import failure_named, verdicts
from softsgx.lab.failures.outcome import Outcome
from softsgx.lab.table import wrapped

NO_FAILURE: Final = "-"
FINE: Final = "ok"
_ENDS: Final = {NO_FAILURE: "the failure does not arise", FINE: "none of these"}

# Capitals are what makes an outcome bad.
_MARKS: Final[dict[str, tuple[str, Callable[[Outcome, Sequence[Outcome]], bool]]]] = {
    "U": ("an access that is permitted faults", lambda o, _: bool(o.undeserved)),
    "L": ("rights are lost in silence", lambda o, _: bool(o.lost)),
    "W": ("rights stay too wide in silence", lambda o, _: bool(o.wider)),
    "X": ("not repairable with what the caller was told", lambda o, _: o.repair == "no"),
    "w": ("rights stay too wide, but the caller was told", lambda o, _: bool(o.wider_told)),
    "p": ("the answer does not name the page", lambda o, _: o.page is False),
    "f": (
        "other failures have the same answer",
        lambda o, everything: bool(o.errno) and not failure_named(o, everything),
    ),
    "?": ("not modelled from here on", lambda o, _: bool(o.unmodelled)),
}


def marks(outcome: Outcome, among: Sequence[Outcome]) -> str:
    """A cell of the matrix; `among` are all failures of the design."""
    if not outcome.arises:
        return NO_FAILURE
    return "".join(mark for mark, (_, has) in _MARKS.items() if has(outcome, among)) or FINE


def legend(cells: Sequence[str]) -> dict[str, str]:
    """What the marks in these cells mean."""
    found = {mark: text for mark, (text, _) in _MARKS.items() if any(mark in c for c in cells)}
    return found | {end: text for end, text in _ENDS.items() if end in cells}


def marks_text(outcomes: Sequence[Outcome], width: int | None = None) -> str:
    """The matrix: a line for each failure, a column for each design; and its legend.

    Designs for which there is no room in `width` follow in a further matrix.
    """
    cells = {(o.failure, o.design): marks(o, outcomes) for o in outcomes}
    failures = list(dict.fromkeys(failure for failure, _ in cells))
    designs = list(dict.fromkeys(design for _, design in cells))
    names = max(len(failure) for failure in failures)
    columns = {
        design: max(len(text) for text in [*design.split("-"), *_column(cells, design)])
        for design in designs
    }
    title = "failures: what goes wrong in each design; --failures shows the evidence"
    lines = ["", *wrapped(title, width)]
    while designs:
        now = designs[:1]
        for design in designs[1:]:
            room = names + sum(2 + columns[each] for each in [*now, design])
            if width is not None and room > width:
                break
            now.append(design)
        designs = designs[len(now) :]
        for at in range(max(len(design.split("-")) for design in now)):
            heads = [design.split("-")[at : at + 1] for design in now]
            texts = ["".join(head).ljust(columns[d]) for d, head in zip(now, heads, strict=True)]
            lines.append("  ".join(["".ljust(names), *texts]).rstrip())
        for failure in failures:
            row = [cells.get((failure, design), "").ljust(columns[design]) for design in now]
            lines.append("  ".join([failure.ljust(names), *row]).rstrip())
        lines.append("")
    for mark, text in legend(list(cells.values())).items():
        lines += wrapped(text, width, f"  {mark:<2}  ", "      ")
    return "\n".join(lines) + "\n"


def _column(cells: dict[tuple[str, str], str], design: str) -> list[str]:
    return [text for (_, each), text in cells.items() if each == design]


def matrix_text(
    outcomes: Sequence[Outcome],
    among: Sequence[Outcome] | None = None,
    width: int | None = None,
) -> str:
    """The failures: a block for each, a line for each design, evidence and schedule below it.

    `among` are all outcomes of these designs, if `outcomes` are only some of them.
    """
    lines = ["", "failures: what the caller learns, and what is left"]
    for failure in dict.fromkeys(outcome.failure for outcome in outcomes):
        lines += ["", *wrapped(f"{failure}: {FAILURES[failure].about}", width)]
        for outcome in outcomes:
            if outcome.failure == failure:
                words = "; ".join(verdicts(outcome, among or outcomes))
                evidence = f"{outcome.evidence()}; schedule {outcome.schedule}"
                lines += wrapped(words, width, f"  {outcome.design:<14} ", " " * 17)
                lines += wrapped(evidence, width, " " * 19, " " * 19)
    return "\n".join(lines) + "\n"
