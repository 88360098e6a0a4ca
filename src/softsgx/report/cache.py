"""Where softsgx keeps what it can make again, by the XDG Base Directory Specification."""

import os
from collections.abc import Mapping
from pathlib import Path


def directory(environ: Mapping[str, str]) -> Path | None:
    """$XDG_CACHE_HOME/softsgx, or below ~/.cache; None where neither is an absolute path."""
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = environ.get("HOME", "")
        if not os.path.isabs(home):
            return None
        base = os.path.join(home, ".cache")
    return Path(base) / "softsgx"
