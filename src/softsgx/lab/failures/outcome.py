"""Checkers that turn the facts of a run and its final state into verdicts.

Verified: what the caller was told, rights wider or narrower than due, faults of permitted accesses,
the effect of a repair that uses only what the caller was told. Not verified: whether a better
repair exists, and any interleaving other than the one played.
"""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

from softsgx.lab.failures.catalogue import FAILURES
from softsgx.lab.failures.injected import InjectedFailure
from softsgx.lab.failures.meeting import InUse
from softsgx.lab.failures.stage import PAGES, Facts, Stage, rights_beyond
from softsgx.linux.errno import errno_text
from softsgx.spec.epcm import PENDING, PR, RWX
from softsgx.spec.status import status_name


class Outcome(NamedTuple):
    """One design and one failure.

    arises       whether the failure can happen at all
    told         what the failing call told its caller, as text
    errno, result  of that answer
    page         whether the answer names the page that failed; None if there is none to name
    left         the state before any repair
    repair       "yes", "no", or "" if there is nothing to repair
    undeserved   faults of accesses that both old and new rights permit
    wider        pages with rights wider than due, of which no error told
    wider_told   pages with rights wider than due that a call or EACCEPT reported
    lost         pages without rights that are due, of which no error told
    unmodelled   what the model lacks; verdicts cover the run up to there
    schedule     the schedule that was played
    """

    design: str
    failure: str
    arises: bool
    told: str
    errno: int
    result: int
    page: bool | None
    left: str
    repair: str
    undeserved: tuple[str, ...]
    wider: tuple[int, ...]
    wider_told: tuple[int, ...]
    lost: tuple[int, ...]
    unmodelled: str
    schedule: str

    def evidence(self) -> str:
        """One line: what the caller was told, what is left, and what went wrong."""
        if not self.arises:
            return "does not arise, wherever the other thread enters its leaf"
        parts = [self.told, self.left, *self.undeserved]
        if self.unmodelled:
            parts.append(f"not modelled: {self.unmodelled}")
        return "; ".join(parts)

    @property
    def bad(self) -> bool:
        """An undeserved fault, wrong rights without an error, or a failure beyond repair."""
        return bool(self.undeserved or self.wider or self.lost or self.repair == "no")


def play(design: str, failure: str, schedule: str | None = None) -> Outcome:
    """Run one failure on one design, or replay a schedule."""
    return _outcome(design, failure, *_play(design, failure, schedule))


def story(design: str, failure: str, schedule: str | None = None) -> tuple[Outcome, list[str]]:
    """As `play`, with a line for every leaf and refused access, in order."""
    if schedule is None:
        schedule = play(design, failure).schedule
    lines: list[str] = []
    outcome = _outcome(design, failure, *_play(design, failure, schedule, lines))
    return outcome, lines


def _outcome(
    design: str, failure: str, injected: InjectedFailure, stage: Stage, played: str
) -> Outcome:
    """The verdicts; repairs are tried before the last ones."""
    facts = stage.facts
    arises = not isinstance(injected, InUse) or injected.refused
    left = stage.state_text()
    answer = next((a for a in facts.answers if a.errno), facts.answers[0])
    wider, wider_told, lost = _rights(stage, facts)
    told = "; ".join([a.text() for a in facts.answers] + _refusals(facts))
    page = None
    if injected.at_page is not None and arises:
        page = answer.done == injected.at_page and bool(answer.errno)
    repair = ""
    if injected.repairs and arises and not facts.unmodelled and not _fulfilled(stage):
        stage.remark("repair, with what was told:")
        injected.repair(stage)
        repair = "yes" if _fulfilled(stage) else "no"
    stage.remark("afterwards:")
    injected.afterwards(stage)
    stage.remark("")
    undeserved = tuple(
        f"{met.who}: {met.doing} of page {met.page} refused, #PF {met.code:#x}"
        for met in facts.undeserved
    )
    return Outcome(
        design, failure, arises, told, answer.errno, answer.result or 0, page, left, repair,
        undeserved, wider, wider_told, lost, facts.unmodelled, played,
    )  # fmt: skip


def _play(
    design: str, failure: str, schedule: str | None, lines: list[str] | None = None
) -> tuple[InjectedFailure, Stage, str]:
    """Run the failure; for a meeting of two threads, try places until EMODPR is refused."""
    kind = FAILURES[failure]
    if not issubclass(kind, InUse) or schedule:
        injected = kind()
        stage = Stage(design, injected.asked)
        if lines is not None:
            stage.tell(lines)
        return injected, stage, injected.run(stage, schedule)
    for attempt in (1, 2):
        for meeting in count(1):
            found = kind(meeting, attempt)
            stage = Stage(design, found.asked)
            played = found.run(stage)
            if found.refused:
                return found, stage, played
            if not found.met:
                break
    return found, stage, played


def _refusals(facts: Facts) -> list[str]:
    """What EACCEPT reported, page by page."""
    return [
        f"EACCEPT of page {page}: {'fault' if status is None else status_name(status)}"
        for page, status in facts.accepts.items()
        if status != 0
    ]


def _rights(stage: Stage, facts: Facts) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Pages with wider rights, unreported and reported, and with lost rights, unreported."""
    failed = any(answer.errno for answer in facts.answers)
    wider: list[int] = []
    told: list[int] = []
    lost: list[int] = []
    for page in range(PAGES):
        word = stage.word(page)
        if not word or word & PENDING:
            continue
        due = facts.entitled.get(page, stage.asked)
        known = failed or facts.accepts.get(page, 0) != 0
        if rights_beyond(word, due) or stage.cached(page) & ~due & RWX:
            (told if known else wider).append(page)
        if due & ~word and not known:
            lost.append(page)
    return tuple(wider), tuple(told), tuple(lost)


def _fulfilled(stage: Stage) -> bool:
    """Whether every page exists, has the rights asked for, and is accepted."""
    return all(
        word & (RWX | PR | PENDING) == stage.asked and bool(word)
        for word in (stage.word(page) for page in range(PAGES))
    )


def answer_text(outcome: Outcome) -> str:
    """errno and code, for a table."""
    code = f", {status_name(outcome.result)}" if outcome.result else ""
    return (errno_text(outcome.errno) if outcome.errno else "success") + code
