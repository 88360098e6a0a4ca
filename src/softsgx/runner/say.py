"""What a run has to say goes to standard error, if somebody is there."""

from __future__ import annotations

import sys
from contextlib import suppress


def say(text: str) -> None:
    """Write it at once. Where standard error is closed, full or broken the program goes on."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()
