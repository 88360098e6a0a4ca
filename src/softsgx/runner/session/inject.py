"""What `softsgx run --inject` asks for. As strace --inject counts calls:

SITE                     every time
SITE:when=3              the third time
SITE:when=3+             from the third time on
SITE:when=1..4           the first four times
SITE:when=2+3            the second time, and every third after it
SITE:when=2..9+3         the same, up to the ninth time
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from softsgx.linux.failures import ENDLESS, PYTHON_ONLY, SITES, Rule
from softsgx.report.near import meant
from softsgx.runner.errors import RunnerError

_RULE: Final = re.compile(r"\w+(?::when=(\d+)(?:\.\.(\d+))?(?:(\+)(\d+)?)?)?")


def asked(texts: Sequence[str], *, object_driver: bool) -> list[Rule]:
    """The failures that the options ask for. RunnerError if one of them is not valid."""
    try:
        rules = [rule(text) for text in texts]
    except ValueError as error:
        raise RunnerError("--inject", f"{error}: --inject help lists all") from None
    if object_driver and (absent := {r.site for r in rules} & PYTHON_ONLY):
        raise RunnerError("--inject", f"{min(absent)}: not with --driver")
    return rules


def rule(text: str) -> Rule:
    """What SITE[:when=...] means. ValueError says what is wrong."""
    site, colon, _ = text.partition(":")
    if site not in SITES:
        raise ValueError(f"{site!r}: no such site{meant(site, SITES)}")
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r}: SITE[:when=FIRST[..LAST][+[STEP]]] is needed")
    if not colon:
        return _ending(Rule(site, 1, 0, 1, text))
    begin, end, plus, step = found.groups()
    first = int(begin)
    last = int(end) if end else 0 if plus else first
    made = Rule(site, first, last, int(step) if step else 1, text)
    if first < 1 or made.step < 1 or (end and last < first):
        raise ValueError(f"{text!r}: times are counted from 1, upwards")
    return _ending(made)


def _ending(made: Rule) -> Rule:
    """The rule. ValueError if the kernel would never get on."""
    if made.site in ENDLESS and not made.last:
        raise ValueError(f"{made.text!r}: the kernel would try for ever: :when=1..8 for example")
    return made


def listing() -> str:
    """Every site, one a line, and what a failure there does."""
    return "".join(f"{site:<22}  {what}\n" for site, what in SITES.items())
