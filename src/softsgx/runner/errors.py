"""Errors of a run: what cannot be used, and why."""

from __future__ import annotations

import errno


class RunnerError(ValueError):
    """A machine, option or file that cannot be used; the text is one line, `what: why`."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(" ".join(f"{what}: {why}".split()))
        self.what = what
        self.why = why


class ProgramError(RunnerError):
    """A program that cannot be executed. `errno` is that of execve, 0 if execve would not fail."""

    def __init__(self, what: str, why: str, number: int = 0) -> None:
        super().__init__(what, why)
        self.errno = number

    @property
    def missing(self) -> bool:
        """Whether it or its interpreter does not exist: env(1) then exits with 127, not 126."""
        return self.errno == errno.ENOENT


class LoadError(RuntimeError):
    """A process that cannot be prepared."""
