"""What a command's end means to the shell that started it: exit codes, in one table.

Help and the tests take their codes from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Final

EXIT_OK: Final = 0
EXIT_FINDING: Final = 1
EXIT_BAD_INPUT: Final = 2
EXIT_INTERRUPTED: Final = 130
"""By Ctrl-C, as shells say it."""

Codes = Mapping[int | str, str]
"""Exit codes of one command or mode, ascending, with what each means."""

OTHER_CODES: Final[Codes] = {EXIT_BAD_INPUT: "bad input", EXIT_INTERRUPTED: "interrupted"}
"""Of every command but `run`, beside 0 and 1."""


def codes(ok: str, finding: str = "", failed: str = "", interrupted: str = "") -> Codes:
    """One command's or mode's: what 0 and 1 mean (nothing: it has no findings), and 2 and 130."""
    found: dict[int | str, str] = {EXIT_OK: ok}
    if finding:
        found[EXIT_FINDING] = finding
    found |= OTHER_CODES
    if failed:
        found[EXIT_BAD_INPUT] = f"bad input; {failed}"
    if interrupted:
        found[EXIT_INTERRUPTED] = interrupted
    return found


def epilog(of: Codes) -> str:
    """For --help: a line for each code."""
    lines = ["exit codes:"]
    for code, means in of.items():
        lines += wrap(means, 79, initial_indent=f"  {code:<5}", subsequent_indent=" " * 7)
    return "\n".join(lines)


class UsageError(Exception):
    """The input cannot be used. The message is `<what>: <why>`, without the command's name.

    `main` prints it as the one line `softsgx: <command>: <what>: <why>`.
    """

    exit_code: Final = EXIT_BAD_INPUT

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
