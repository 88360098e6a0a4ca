"""Rules about files that are not Python: what they must not name, and pins with their reasons."""

import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tidy.source import ROOT
from tools.pins import pins

# In pieces, so that this file passes its own rule. A path counts where it begins, not as a part of
# a longer one.
BANNED: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?<![\w.~}-])/" + "work/",
        r"(?<![\w.~}-])/" + "root/",
        "pypi" + r"\.org",
        "python" + "hosted",
        "debi" + r"an\.org",
        "npm" + "js",
    )
)
CHANGELOG_WIDTH: Final = 120
NOT_OURS: Final = (".git", ".venv", "build", "dist")


def text_files() -> Iterator[tuple[str, str]]:
    """Path and text of all files that are, or would be, committed; binary files are left out."""
    for path in _paths():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data:
            yield path, data.decode("utf-8", errors="replace")


def _paths() -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return sorted(path for path in done.stdout.split("\0") if (ROOT / path).is_file())
    # An unpacked archive: everything but what the Makefile makes.
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if _is_ours(path))


def _is_ours(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    made = parts[0] in NOT_OURS or any(p.endswith(("_cache", "__", ".egg-info")) for p in parts)
    return path.is_file() and not made


def banned_words(path: str, text: str) -> Iterator[str]:
    """Names of one workplace, or of registry hosts, which mean nothing to other readers."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern in BANNED:
            if found := pattern.search(line):
                yield f"{path}:{number}: names {found.group()}"


def wide_lines(path: str, text: str, columns: int) -> Iterator[str]:
    """Lines of prose that are read as they are in the file."""
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > columns:
            yield f"{path}:{number}: {len(line)} columns, {columns} are allowed"


def reasoned_ranges(pyproject: str) -> Iterator[str]:
    """Dependencies without a lowest version, pinned, or without a comment on their line or above.

    Whoever installs the package beside others needs ranges; exact versions are the lock's.
    """
    lines = ["", *pyproject.splitlines()]
    for pin in pins(pyproject):
        if not re.fullmatch(r"[\w.-]+(\[[\w,.-]+\])?>=[\w.]+(,<[\w.]+)?( *;.*)?", pin):
            yield f"{pin}: no range from a lowest version on"
        reasons = [
            above.lstrip().startswith("#") or "#" in line.split(pin, 1)[1]
            for above, line in pairwise(lines)
            if f'"{pin}"' in line
        ]
        if not any(reasons):
            yield f"{pin}: no comment says why"


def stale_lock(pyproject: str, lock: str) -> Iterator[str]:
    """Requirements of pyproject.toml of which the lock has no version that they allow."""
    locked = {}
    for line in lock.splitlines():
        if "==" in line:
            name, version = line.split("==")
            locked[canonicalize_name(name)] = version
    for pin in pins(pyproject):
        wanted = Requirement(pin)
        locked_version = locked.get(canonicalize_name(wanted.name))
        if locked_version is None or not wanted.specifier.contains(locked_version):
            yield f"{pin}: not in requirements/dev.txt: run make lock"
