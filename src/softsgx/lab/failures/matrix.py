"""All failures in all designs, and which of them a caller can tell apart."""

from __future__ import annotations

from collections.abc import Sequence

from softsgx.lab.failures.catalogue import FAILURES
from softsgx.lab.failures.outcome import Outcome, answer_text, play


def matrix(designs: Sequence[str]) -> list[Outcome]:
    """Every failure in every design."""
    return [play(design, failure) for failure in FAILURES for design in designs]


def failure_named(outcome: Outcome, all_of_them: Sequence[Outcome]) -> bool:
    """Whether no other failure of the same design gives its caller the same answer.

    Errno and code are compared; a success never identifies a failure.
    """
    if not outcome.errno:
        return False
    same = [
        other
        for other in all_of_them
        if other.design == outcome.design
        and (other.errno, other.result) == (outcome.errno, outcome.result)
        and other.failure != outcome.failure
        and other.arises
    ]
    return not same


def verdicts(outcome: Outcome, all_of_them: Sequence[Outcome]) -> list[str]:
    """The verdicts in a cell of the table; bad ones are in capitals."""
    if not outcome.arises:
        return ["does not arise"]
    words = [answer_text(outcome)]
    if outcome.page is not None:
        words.append("page named" if outcome.page else "page NOT named")
    if outcome.errno:
        known = failure_named(outcome, all_of_them)
        words.append("failure named" if known else "failure NOT named")
    if outcome.repair:
        words.append("repaired" if outcome.repair == "yes" else "NOT repairable")
    if outcome.undeserved:
        words.append("UNDESERVED FAULT")
    if outcome.wider:
        words.append("WIDER in silence")
    if outcome.wider_told:
        words.append("wider, told")
    if outcome.lost:
        words.append("LOST in silence")
    if outcome.unmodelled:
        words.append("not modelled from here on")
    return words
