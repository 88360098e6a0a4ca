"""What cannot be run, and why."""

from __future__ import annotations

import errno


class RunnerError(ValueError):
    """A machine, option or file that cannot be used; the text is one line, `what: why`."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(" ".join(f"{what}: {why}".split()))
        self.what = what
        self.why = why


class ProgramError(RunnerError):
    """A program that cannot be executed. `errno` is what execve would answer, 0 if it would not."""

    def __init__(self, what: str, why: str, number: int = 0) -> None:
        super().__init__(what, why)
        self.errno = number

    @property
    def missing(self) -> bool:
        """Whether it, or what would interpret it, is not there: 127 instead of 126 in env(1)."""
        return self.errno == errno.ENOENT


class LoadError(RuntimeError):
    """A process that cannot be prepared."""
