"""`sites.scan` of a file by name, remembered between runs in $XDG_CACHE_HOME/softsgx.

A result belongs to a path together with the size, the times and the inode of the file. The cache
is a convenience: if it is damaged, foreign or unwritable, the search is only repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from softsgx.report.cache import directory
from softsgx.runner.code.sites import PATTERNS, Site, Sites, Unproven, scan

# To be increased whenever the search of `sites` or the format below changes.
VERSION: Final = 1
# Smaller files without a pattern are searched faster than the cache is read.
_WORTH_BYTES: Final = 1 << 18


def find_sites(path: str, environ: Mapping[str, str] = os.environ) -> Sites:
    """The CPUID and ENCLU instructions of the file at an absolute path. Never raises."""
    try:
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            entry = _entry(path, environ)
            key = [VERSION, path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            found = _load(entry, key, file.fileno()) if entry is not None else None
            if found is not None:
                return found
            found = scan(file.read())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Sites(reason=reason)
    if entry is not None and (found.patch or found.unproven or stat.st_size >= _WORTH_BYTES):
        _store(entry, key, found)
    return found


def _entry(path: str, environ: Mapping[str, str]) -> Path | None:
    where = directory(environ)
    name = sha256(os.fsencode(path)).hexdigest()[:32]
    return where / f"sites-{name}.json" if where is not None else None


def _load(entry: Path, key: list[Any], fd: int) -> Sites | None:
    """The cached result, if it is for exactly this file."""
    try:
        content = json.loads(entry.read_bytes())
        if not isinstance(content, dict) or content.get("key") != key:
            return None
        body = content["sites"]
        if content["check"] != _check(key, body):
            return None
        patch = tuple(Site(*row) for row in body["patch"])
        unproven = tuple(Unproven(*row) for row in body["unproven"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    # The bytes to be patched must still be those that were found.
    for site in patch:
        if PATTERNS.get(os.pread(fd, 2, site.offset)) != site.kind:
            if PATTERNS.get(os.pread(fd, 3, site.offset)) != site.kind:
                return None
    return Sites(patch, unproven, str(body["reason"]))


def _store(entry: Path, key: list[Any], found: Sites) -> None:
    body = {"patch": found.patch, "unproven": found.unproven, "reason": found.reason}
    body = json.loads(json.dumps(body))
    text = json.dumps({"key": key, "check": _check(key, body), "sites": body})
    with contextlib.suppress(OSError, UnicodeError):
        entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(dir=entry.parent, prefix=entry.name)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, entry)
        except OSError:
            os.unlink(temporary)
            raise


def _check(key: list[Any], body: Any) -> str:
    return sha256(json.dumps([key, body]).encode()).hexdigest()
