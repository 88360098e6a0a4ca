"""How the memfd that stands for an open device node is recognised: by device and inode number."""

from __future__ import annotations

import os

Identity = tuple[int, int]


def identity(path: str | bytes) -> Identity:
    """st_dev and st_ino; inode numbers alone are not unique. OSError if the file is gone."""
    found = os.stat(path)
    return found.st_dev, found.st_ino
