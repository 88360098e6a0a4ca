"""Exit codes, in one table: help, docs/exit-codes.md and the tests take them from here."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Final

DEBUG: Final = "SOFTSGX_DEBUG"
"""The environment variable that shows tracebacks."""

EXIT_OK: Final = 0
EXIT_FINDING: Final = 1
EXIT_BAD_INPUT: Final = 2
EXIT_BUG: Final = 70
"""EX_SOFTWARE of sysexits.h."""
EXIT_INTERRUPTED: Final = 130
"""128 + SIGINT, as shells report Ctrl-C."""
EXIT_READER_GONE: Final = 141
"""128 + SIGPIPE: the reader of standard output has exited, as with `| head -1`."""

# The codes of `run` itself, as for env(1), timeout(1) and chroot(1); else it ends as its program.
EXIT_RUN_FAILED: Final = 125
EXIT_RUN_NOT_EXECUTABLE: Final = 126
EXIT_RUN_NOT_FOUND: Final = 127

Codes = Mapping[int | str, str]
"""Exit codes of a command or mode, ascending, with their meanings."""

_FAILED: Final = "not done: bad input, the machine lacks something, or not modelled"
_BUG: Final = f"a bug in softsgx; {DEBUG}=1 shows the traceback"

OTHER_CODES: Final[Codes] = {
    EXIT_BAD_INPUT: _FAILED,
    EXIT_BUG: _BUG,
    EXIT_INTERRUPTED: "interrupted",
    EXIT_READER_GONE: "the reader of standard output is gone",
}
"""Of every command except `run`, besides 0 and 1."""


def codes(ok: str, finding: str = "", failed: str = "", interrupted: str = "") -> Codes:
    """The exit codes of a command or mode, from the meanings of 0 and 1.

    Without `finding` there is no 1; `failed` is added to the meaning of 2.
    """
    found: dict[int | str, str] = {EXIT_OK: ok}
    if finding:
        found[EXIT_FINDING] = finding
    found |= OTHER_CODES
    if failed:
        found[EXIT_BAD_INPUT] = f"{_FAILED}, {failed}"
    if interrupted:
        found[EXIT_INTERRUPTED] = interrupted
    return found


def epilog(of: Codes) -> str:
    """For --help: a line for each code."""
    lines = ["exit codes:"]
    for code, means in of.items():
        lines += wrap(means, 79, initial_indent=f"  {code:<5}", subsequent_indent=" " * 7)
    return "\n".join(lines)


def markdown(of: Codes) -> str:
    """For docs: a table."""
    rows = [f"| {code} | {means} |\n" for code, means in of.items()]
    return "| code | what it means |\n| --- | --- |\n" + "".join(rows)


class UsageError(Exception):
    """The request cannot be carried out. The message is `<what>: <why>`.

    It becomes the line `softsgx: <command>: <what>: <why>` (`softsgx.cli.ends`). The exit code is
    that of the command unless the error has its own.
    """

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code


class ReaderGone(Exception):
    """The reader of standard output has exited: the command ends silently."""
