"""The result of a comparison in one sentence: who loses the least time, and who fails how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from softsgx.lab.compare import EQUAL, Comparison, Row
from softsgx.lab.designs import DESIGNS
from softsgx.lab.failures.outcome import Outcome

# A verb for one design and for several, what it does, and whether an outcome shows it.
_FAILS: Final[tuple[tuple[str, str, str, Callable[[Outcome], object]], ...]] = (
    ("loses", "lose", "rights in silence", lambda outcome: outcome.lost),
    ("leaves", "leave", "rights too wide in silence", lambda outcome: outcome.wider),
)


class Cheapest(NamedTuple):
    """How often a design loses the least time, or as little as the best, at every corner.

    best, places  in so many of the places, a place being a workload, a runtime and a number of
                  processors in which some design works
    since         the least number of processors from which on it is so everywhere; 0 if there is
                  none
    """

    design: str
    best: int
    places: int
    since: int


def cheapest(comparison: Comparison) -> Cheapest | None:
    """The design that loses the least time most often; None if nothing was measured."""
    places: dict[tuple[int, str, str], list[Row]] = {}
    for row in comparison.rows():
        c = row.combination
        if not row.reason:
            places.setdefault((c.n, c.workload, c.runtime), []).append(row)
    if not places:
        return None
    best = {place: _best(rows, comparison) for place, rows in places.items()}

    def often(design: str) -> int:
        return sum(design in found for found in best.values())

    design = max(comparison.plan.designs, key=often)
    fails = max((n for (n, _, _), found in best.items() if design not in found), default=0)
    since = min((n for n, _, _ in places if n > fails), default=0)
    return Cheapest(design, often(design), len(places), since)


def _best(rows: Sequence[Row], comparison: Comparison) -> set[str]:
    """The designs that lose the least time with every profile."""
    found = {row.combination.design for row in rows}
    for profile in comparison.plan.profiles:
        lost = {row.combination.design: row.figures[profile.name].lost for row in rows}
        least = min(lost.values())
        found = {name for name in found if lost[name] - least <= EQUAL * abs(lost[name])}
    return found


def verdict(comparison: Comparison, outcomes: Sequence[Outcome]) -> str:
    """The sentence. Without `outcomes`, as after an interrupt, it is about costs alone."""
    parts = [_cost(comparison)]
    for one, several, what, fails in _FAILS:
        met = [outcome for outcome in outcomes if fails(outcome)]
        designs = list(dict.fromkeys(outcome.design for outcome in met))
        if designs:
            verb = one if len(designs) == 1 else several
            failures = _listed(outcome.failure for outcome in met)
            parts.append(f"{_listed(designs)} {verb} {what} ({failures})")
    if outcomes:
        parts.append(_survivors(outcomes))
    return "; ".join(parts) + "."


def _survivors(outcomes: Sequence[Outcome]) -> str:
    bad = {outcome.design for outcome in outcomes if outcome.bad}
    fine = list(dict.fromkeys(o.design for o in outcomes if o.design not in bad))
    if not bad:
        return "every design survives every failure"
    if not fine:
        return "no design survives every failure"
    return f"only {_listed(fine)} survive{'s' * (len(fine) == 1)} every failure"


def _cost(comparison: Comparison) -> str:
    found = cheapest(comparison)
    if found is None:
        return "nothing that works was measured"
    corners = corners_text(len(comparison.plan.profiles))
    if len(comparison.plan.designs) == 1:
        return f"{found.design} was measured alone"
    if found.best == found.places:
        return f"{found.design} loses the least time in all {found.places} combinations {corners}"
    text = f"{found.design} loses the least time in {found.best} of {found.places} combinations"
    if found.since:
        return f"{text} {corners}, in all of them from {found.since} processors on"
    return f"{text} {corners}"


def corners_text(number: int) -> str:
    """At how many prices something was tried."""
    return "at the one corner tried" if number == 1 else f"at all {number} corners"


def capital(sentence: str) -> str:
    """With a capital, unless it begins with a name: names of designs are written small."""
    first = sentence.split()[0]
    return sentence if first in DESIGNS else sentence[:1].upper() + sentence[1:]


def _listed(names: Iterable[str]) -> str:
    """Names in the order in which they come first: a, b and c."""
    *first, last = dict.fromkeys(names)
    return f"{', '.join(first)} and {last}" if first else last
