"""Trials and what spoils them: the order of checks, tested pair by pair.

A `Spoil` breaks exactly one condition of an operation that would succeed. One alone gives the row
of its rule; two at once must give the rule that the operation listing tests first. Spoils that
touch the same thing (`aspects`) exclude each other and are not paired.
"""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from tests.cpu.table import Attempt, Expected, Row, run_row

Trial = TypeVar("Trial")


class Spoil(NamedTuple, Generic[Trial]):
    """One broken condition; `aspects` are words, separated by blanks, for what it touches."""

    rule: str
    aspects: str
    apply: Callable[[Trial], None]
    expected: Expected
    note: str = ""


class Trials(NamedTuple, Generic[Trial]):
    """How trials are made: a fresh one that would succeed, and the instruction it attempts."""

    fresh: Callable[[], Trial]
    attempt: Callable[[Trial], Attempt]

    def build(self, *spoils: Spoil[Trial]) -> Callable[[], Attempt]:
        """A builder for `Row`: the last spoil is applied first, so that earlier ones prevail."""

        def built() -> Attempt:
            trial = self.fresh()
            for spoil in reversed(spoils):
                spoil.apply(trial)
            return self.attempt(trial)

        return built

    def rows(self, spoils: Sequence[Spoil[Trial]], note: str = "") -> list[Row]:
        """One row per spoil; `note` goes before the notes of the spoils."""
        return [
            Row(s.rule, self.build(s), s.expected, " ".join(filter(None, (note, s.note))))
            for s in spoils
        ]

    def verify_order(self, spoils: Sequence[Spoil[Trial]], first: Spoil[Trial]) -> int:
        """Run `first` together with every later spoil; how many pairs there were."""
        rest = spoils[spoils.index(first) + 1 :]
        paired = [s for s in rest if s.rule != first.rule and independent(first, s)]
        for second in paired:
            run_row(Row(first.rule, self.build(first, second), first.expected, second.rule))
        return len(paired)


def independent(a: Spoil[Trial], b: Spoil[Trial]) -> bool:
    """Whether two spoils touch different things."""
    return not set(a.aspects.split()) & set(b.aspects.split())


def spoil_id(spoil: Spoil[Trial]) -> str:
    """The name of a spoil in pytest's output."""
    return f"{spoil.rule}-{spoil.note}" if spoil.note else spoil.rule
