"""What stands for an open node is known by its device and inode, as any file."""

from __future__ import annotations

import os

Identity = tuple[int, int]


def identity(path: str | bytes) -> Identity:
    """st_dev and st_ino: numbers of inodes repeat on other file systems. OSError if it is gone."""
    found = os.stat(path)
    return found.st_dev, found.st_ino
