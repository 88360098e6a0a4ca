"""What the caller can do something about: a tree, a compiler or a driver object."""

from __future__ import annotations


class DriverError(Exception):
    """A driver object cannot be made or used. The text is one line: `<what>: <why>`."""


class CompileError(DriverError):
    """The compiler refused a file. `output` has its own lines."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output
