"""What a command's end means to the shell that started it."""

from typing import Final

EXIT_OK: Final = 0
EXIT_FINDING: Final = 1
EXIT_BAD_INPUT: Final = 2
EXIT_INTERRUPTED: Final = 130
"""By Ctrl-C, as shells say it."""


class UsageError(Exception):
    """The input cannot be used. The message is `<what>: <why>`, without the command's name.

    `main` prints it as the one line `softsgx: <command>: <what>: <why>`.
    """

    exit_code: Final = EXIT_BAD_INPUT

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
