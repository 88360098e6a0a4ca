"""What cannot be run, and why."""

from __future__ import annotations

from typing import Final


class RunnerError(ValueError):
    """A program, file or machine that cannot be used; the text is one line, `what: why`.

    `exit_code` is what the command ends with: 2, bad input (`softsgx.cli.errors`).
    """

    exit_code: Final = 2

    def __init__(self, what: str, why: str) -> None:
        super().__init__(" ".join(f"{what}: {why}".split()))
        self.what = what
        self.why = why


class LoadError(RuntimeError):
    """A process that cannot be prepared."""
