"""The file of `--junit`: a run as a test case, which fails with the program."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from softsgx import __version__
from softsgx.report.junit import Case, junit
from softsgx.runner.errors import RunnerError


def check_junit(path: str) -> None:
    """Raise RunnerError if the file cannot be written; what is in it stays."""
    _write(path, "", "a")


def write_junit(
    path: str, argv: Sequence[str], code: int, began: float, explanations: Sequence[str]
) -> None:
    """Write the result of a program; `began`: in seconds since the epoch. RunnerError."""
    case = Case("softsgx.run", shlex.join(argv), time.time() - began)
    if code:
        text = "".join(explanations) or "no refusal was explained: see --explain\n"
        case = case._replace(outcome="failure", kind="program", message=_how(code), text=text)
    _write(
        path,
        junit("softsgx run", [case], {"softsgx": __version__}, datetime.fromtimestamp(began, UTC)),
        "w",
    )


def _write(path: str, text: str, mode: str) -> None:
    try:
        with open(path, mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RunnerError("--junit", f"{path}: {error.strerror}") from None


def _how(code: int) -> str:
    """How a program ended that has this exit code."""
    if 128 < code <= 128 + signal.SIGRTMAX:
        number = code - 128
        known = number in [*signal.Signals]
        return f"killed by {signal.Signals(number).name if known else f'signal {number}'}"
    return f"exit code {code}"
