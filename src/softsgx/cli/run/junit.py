"""JUnit XML: a run as a test case, which fails with the program."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from datetime import UTC, datetime

from softsgx import __version__
from softsgx.report import junit as report
from softsgx.report.junit import Case


def junit(argv: Sequence[str], code: int, began: datetime, explanations: Sequence[str]) -> str:
    """The document for a program that has just ended with a code."""
    case = Case("softsgx.run", shlex.join(argv), (datetime.now(UTC) - began).total_seconds())
    if code:
        text = "".join(explanations) or "no refusal was explained: see --explain\n"
        case = case._replace(outcome="failure", kind="program", message=_how(code), text=text)
    return report.junit("softsgx run", [case], {"softsgx": __version__}, began)


def _how(code: int) -> str:
    """How a program ended that has this exit code."""
    if 128 < code <= 128 + signal.SIGRTMAX:
        number = code - 128
        known = number in [*signal.Signals]
        return f"killed by {signal.Signals(number).name if known else f'signal {number}'}"
    return f"exit code {code}"
