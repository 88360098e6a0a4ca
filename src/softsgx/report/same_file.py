"""Whether two names lead to the same file: output must not overwrite input.

Files are compared by what is on the disk, not by name: through symbolic and hard links, relative
paths, /proc/self/fd. Only regular files count: writing to /dev/null, a terminal or a pipe destroys
nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Iterable


def file_of(name: str | int) -> Hashable | None:
    """A key that is equal for all names of a regular file; `name` may be a descriptor.

    For a file that does not exist yet it is the path where it would be made. None if writing
    destroys nothing.
    """
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return os.path.realpath(name) if isinstance(name, str) and name else None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def overwritten(inputs: Iterable[str | int], outputs: Iterable[str | int]) -> str | int | None:
    """The first output that is also an input or an earlier output, or None."""
    taken = {file_of(name) for name in inputs} - {None}
    for name in outputs:
        file = file_of(name)
        if file in taken:
            return name
        if file is not None:
            taken.add(file)
    return None


def named_in(words: Iterable[str]) -> list[str]:
    """The words of a command that name files: as they are, after the `=` of an option, or after its
    one letter."""
    parts = []
    for word in words:
        parts += [word, word.partition("=")[2], word[2:] if word.startswith("-") else ""]
    return [part for part in parts if part and os.path.exists(part)]
