"""The line on standard error that shows that long work goes on: one for all commands.

On a terminal it is there by default, is written over in place, and is gone at the end. It consists
of text, carriage returns and spaces, without an escape sequence, so NO_COLOR needs no case. If
standard error is not a terminal, `--progress` gives lines instead, and without it there is nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Final, Self

from softsgx.cli.declared import Option
from softsgx.cli.ends import on_terminal, print_stderr

EVERY_S: Final = 0.5
EVERY_LINE_S: Final = 5.0
"""The interval if standard error is not a terminal: each text is then a line of its own."""

WIDTH_DEFAULT: Final = 80

LEAST: Final = 0.01
"""The part of some work that must be done before the time left is estimated."""

PROGRESS: Final = Option(
    name="--progress",
    help="show how far the work is on standard error, as lines if that is not a terminal; a "
    "terminal shows it without this option",
    only=("--no-progress", (False,)),
)
NO_PROGRESS: Final = Option(name="--no-progress", help="do not show how far the work is")
OPTIONS: Final = (PROGRESS, NO_PROGRESS)
NAMES: Final = tuple(option.name for option in OPTIONS)

Clock = Callable[[], float]


class Line:
    """Where progress is shown, at intervals. `shown` is False if nobody wants to see it."""

    def __init__(self, shown: bool, terminal: bool, clock: Clock = time.monotonic) -> None:
        self.shown = shown
        self.clock = clock
        self._terminal = terminal
        self._last = clock()
        self._length = 0  # of the text that is on the terminal

    @classmethod
    def of(cls, args: argparse.Namespace) -> Self:
        """As the options of a command ask for it."""
        terminal = on_terminal() and os.environ.get("TERM") != "dumb"
        return cls(args.progress or (terminal and not args.no_progress), terminal)

    def begin(self, text: str) -> None:
        """On a terminal, show a text at once: the first result may take long."""
        if self.shown and self._terminal:
            self._write(text)

    def show(self, text: Callable[[], str]) -> None:
        """Show a text if the interval has passed."""
        if not self.shown:
            return
        now = self.clock()
        if now - self._last < (EVERY_S if self._terminal else EVERY_LINE_S):
            return
        self._last = now
        if self._terminal:
            self._write(text())
        else:
            print_stderr(text())

    def _write(self, text: str) -> None:
        # A character in the last column would wrap the line.
        text = text[: _width() - 1]
        print_stderr(f"\r{text:<{self._length}}", "")
        self._length = len(text)

    def clear(self) -> None:
        """Take the text off the terminal, before something else is printed."""
        if self._length:
            print_stderr(f"\r{'':<{min(self._length, _width() - 1)}}\r", "")
            self._length = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


class Estimate:
    """How long the rest of some work takes, from how long its first part took.

    The work has the size `total`, in any unit; it begins when this is made.
    """

    def __init__(self, total: float, clock: Clock) -> None:
        self._total = total
        self._clock = clock
        self._start = clock()

    def left(self, done: float) -> float | None:
        """Seconds until all is done, if `done` of it is; None before there is enough to go by."""
        if done <= 0 or done < self._total * LEAST:
            return None
        return (self._clock() - self._start) * max(0.0, self._total - done) / done

    def text(self, done: float, most: float | None = None) -> str:
        """The part that is done and the time left, which is at most `most` seconds."""
        left = self.left(done)
        if left is None or (most is not None and left > most):
            left = most
        part = f"{done / self._total:.0%}"
        return part if left is None else f"{part}, about {duration(left)}"


def duration(seconds: float) -> str:
    """A time that is left, as text."""
    if seconds < 120:
        return f"{seconds:.0f} s left"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min left"
    return f"{seconds / 3600:.3g} h left"


def _width() -> int:
    """The columns of the terminal that standard error is."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or WIDTH_DEFAULT
    except (OSError, ValueError, AttributeError):
        return WIDTH_DEFAULT
