"""Debian's source packages of the kernel: what a build needs of one, unpacked once."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from softsgx.cdriver.errors import DriverError
from softsgx.cdriver.tree import ARCH, BROUGHT, DRIVER
from softsgx.report.cache import directory

VERSIONS: Final = ("6.1", "6.12")
SOURCES: Final = Path("/usr/src")
_NEEDED: Final = ("Makefile", *(f"{ARCH}/{name}" for name in BROUGHT), f"{DRIVER}/")
_LAST: Final = f"{DRIVER}/"


def source(version: str) -> Path:
    """The tree of the installed package linux-source-`version`; DriverError if it is not there."""
    archive = SOURCES / f"linux-source-{version}.tar.xz"
    try:
        found = archive.stat()
    except OSError:
        package = f"linux-source-{version}"
        raise DriverError(
            f"{archive}: not there: install Debian's package: apt-get install {package}"
        ) from None
    cache = directory(os.environ)
    if cache is None:
        raise DriverError("neither XDG_CACHE_HOME nor HOME is an absolute path: no place for it")
    place = cache / "driver" / f"{version}-{int(found.st_mtime)}-{found.st_size}"
    try:
        if not place.exists():
            _unpack(archive, place)
    except (OSError, tarfile.TarError) as error:
        raise DriverError(f"{archive}: {error}") from None
    return place


def _unpack(archive: Path, place: Path) -> None:
    """Unpack what is needed, beside the place, and rename it."""
    new = place.with_suffix(f".{os.getpid()}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    with tarfile.open(archive, "r|xz") as tar:
        for member in _wanted(tar):
            tar.extract(member, new, filter="data")
    try:
        new.rename(place)
    except OSError:
        shutil.rmtree(new)  # another process was faster
        if not place.exists():
            raise


def _wanted(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members needed, without the top directory. The archive is sorted: the rest is unread."""
    seen = False
    for member in tar:
        name = member.name.removeprefix("./").partition("/")[2]
        if name.startswith(_NEEDED):
            seen = seen or name.startswith(_LAST)
            yield member.replace(name=name)
        elif seen:
            return
