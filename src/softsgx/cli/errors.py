"""What a command's end means to the shell that started it: exit codes, in one table.

Help, docs/exit-codes.md and the tests take their codes from here.
"""

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
"""By Ctrl-C, as shells say it."""
EXIT_READER_GONE: Final = 141
"""128 + SIGPIPE: nobody reads standard output any more, as with `| head -1`."""

# Of `run`, which otherwise ends as its program does: those of env(1), timeout(1), chroot(1).
EXIT_RUN_FAILED: Final = 125
EXIT_RUN_NOT_EXECUTABLE: Final = 126
EXIT_RUN_NOT_FOUND: Final = 127

Codes = Mapping[int | str, str]
"""Exit codes of one command or mode, ascending, with what each means."""

_FAILED: Final = "not done: bad input, the machine lacks something, or not modelled"
_BUG: Final = f"a bug of softsgx; {DEBUG}=1 shows the traceback"

OTHER_CODES: Final[Codes] = {
    EXIT_BAD_INPUT: _FAILED,
    EXIT_BUG: _BUG,
    EXIT_INTERRUPTED: "interrupted",
    EXIT_READER_GONE: "who read standard output is gone",
}
"""Of every command but `run`, beside 0 and 1."""


def codes(ok: str, finding: str = "", failed: str = "", interrupted: str = "") -> Codes:
    """One command's or mode's: what 0 and 1 mean (nothing: it has no findings), and 2 and 130."""
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
    """What was asked for cannot be done. The message is `<what>: <why>`, without the command.

    It becomes the one line `softsgx: <command>: <what>: <why>` (`softsgx.cli.ends`). The code is
    the command's for that, unless the error has one of its own.
    """

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code


class ReaderGone(Exception):
    """Nobody reads standard output any more: the command ends without a word."""
