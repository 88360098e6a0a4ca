"""Source trees for tests: the kernel's, where a package of Debian is installed, and small ones."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from softsgx.cdriver import debian
from softsgx.cdriver.build import build
from softsgx.cdriver.errors import DriverError
from softsgx.cdriver.tree import ARCH, BROUGHT, DRIVER, SOURCES, Tree, find

VERSIONS = debian.VERSIONS


@cache
def kernel(version: str) -> Tree | str:
    """Debian's tree of a version, or why it cannot be had."""
    try:
        return find(debian.source(version))
    except DriverError as error:
        return str(error)


def kernel_or_skip(version: str) -> Tree:
    """The tree; the test is skipped where it cannot be had."""
    found = kernel(version)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@cache
def _object(version: str, encls: str, place: Path) -> Path:
    path = place / f"{version}-{encls}-{os.getpid()}.drv"
    built = build(kernel_or_skip(version), encls)
    path.write_bytes(built.data)
    return path


def driver_object(version: str, factory: pytest.TempPathFactory, encls: str = "call") -> Path:
    """The driver object of Debian's tree, built once for all tests of the process."""
    kernel_or_skip(version)
    return _object(version, encls, factory.getbasetemp())


def small_tree(top: Path, version: str = "6.12.0", **files: str) -> Path:
    """A tree whose driver does nothing; `files` replaces the contents of encl.c as `encl_c`."""
    numbers = version.split(".")
    names = ("VERSION", "PATCHLEVEL", "SUBLEVEL")
    lines = [f"{name} = {number}" for name, number in zip(names, numbers, strict=True)]
    for name in SOURCES:
        write(top / DRIVER / name, files.get(name.replace(".", "_"), "#include <linux/types.h>\n"))
    for name in BROUGHT:
        write(top / ARCH / name, "#include <linux/bits.h>\n")
    write(top / "Makefile", "\n".join(lines) + "\n")
    return top


def write(path: Path, text: str) -> None:
    """A file, with the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
