"""Whether names lead to one file: what is written must not destroy what is read.

A file is what it is on the disk, whatever it is called: through symbolic and hard links, relative
paths, /proc/self/fd. Only ordinary files can be destroyed: /dev/null, terminals and pipes may be
written to by as many as like.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Iterable


def file_of(name: str | int) -> Hashable | None:
    """What is equal for names of one ordinary file; a name, or a descriptor of this process.

    A name that leads to nothing yet is the path that it would be made at. None for what cannot be
    destroyed by writing.
    """
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return os.path.realpath(name) if isinstance(name, str) and name else None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def overwritten(inputs: Iterable[str | int], outputs: Iterable[str | int]) -> str | int | None:
    """The first output that is an input or another output; None if there is none."""
    taken = {file_of(name) for name in inputs} - {None}
    for name in outputs:
        file = file_of(name)
        if file in taken:
            return name
        if file is not None:
            taken.add(file)
    return None


def named_in(words: Iterable[str]) -> list[str]:
    """The words of a command that are names of files: alone, or behind the `=` or the one letter of
    an option."""
    parts = []
    for word in words:
        parts += [word, word.partition("=")[2], word[2:] if word.startswith("-") else ""]
    return [part for part in parts if part and os.path.exists(part)]
