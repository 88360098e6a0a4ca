"""Outputs that must stay byte-identical, kept as files in tests/snapshots/cli.

SOFTSGX_WRITE_SNAPSHOTS=1 writes them anew; a reviewer then sees the change.
"""

import os
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parent.parent / "snapshots" / "cli"


def check(name: str, text: str) -> None:
    """Compare with the file `name`."""
    path = DIRECTORY / name
    if os.environ.get("SOFTSGX_WRITE_SNAPSHOTS"):
        path.write_bytes(text.encode())
    assert text.encode() == path.read_bytes(), f"{name}: SOFTSGX_WRITE_SNAPSHOTS=1 if intended"
