"""A source tree of the kernel: which version it is, and the files of the driver in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softsgx.cdriver.errors import DriverError

DRIVER: Final = "arch/x86/kernel/cpu/sgx"
SOURCES: Final = ("driver.c", "encl.c", "ioctl.c", "main.c")
"""virt.c, for guests, is left out."""
ARCH: Final = "arch/x86/include"
# The headers that a tree brings itself; all others are those of `c/include`.
BROUGHT: Final = ("asm/sgx.h", "uapi/asm/sgx.h")

OLDEST: Final = (6, 0)
"""The first kernel whose driver changes pages of a running enclave."""

_VERSION: Final = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL)\s*=\s*(\d+)\s*$", re.MULTILINE)
_INCLUDE: Final = re.compile(r"^\s*#\s*include\s*<([^>]+)>", re.MULTILINE)


@dataclass(frozen=True)
class Tree:
    """A tree that has the driver. `version` is (version, patch level, sublevel)."""

    top: Path
    version: tuple[int, int, int]

    @property
    def release(self) -> str:
        """The version as text."""
        return ".".join(map(str, self.version))

    @property
    def code(self) -> int:
        """LINUX_VERSION_CODE: 8 bits for each part."""
        major, minor, patch = self.version
        return major << 16 | minor << 8 | min(patch, 255)

    @property
    def driver(self) -> Path:
        """The directory of the driver."""
        return self.top / DRIVER

    def files(self) -> list[Path]:
        """All files that a build may read, in a fixed order."""
        found = [*sorted(self.driver.glob("*.h")), *(self.driver / name for name in SOURCES)]
        return [*found, *(self.top / ARCH / name for name in BROUGHT)]

    def includes(self) -> list[str]:
        """The names in angle brackets that these files include and the tree does not bring."""
        names: dict[str, None] = {}
        for path in self.files():
            text = path.read_text(encoding="utf-8", errors="replace")
            names.update(dict.fromkeys(_INCLUDE.findall(text)))
        return sorted(name for name in names if name not in BROUGHT)


def find(top: Path) -> Tree:
    """The tree at `top`. DriverError if it has no SGX driver, or one that is too old."""
    if not top.is_dir():
        raise DriverError(f"{top}: No such directory")
    try:
        text = (top / "Makefile").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    numbers = dict(_VERSION.findall(text))
    if len(numbers) < 3:
        raise DriverError(f"{top}: not a source tree of the kernel: no version in its Makefile")
    version = (int(numbers["VERSION"]), int(numbers["PATCHLEVEL"]), int(numbers["SUBLEVEL"]))
    tree = Tree(top, version)
    missing = next((path for path in tree.files() if not path.is_file()), None)
    if missing is not None:
        where = missing.relative_to(top)
        raise DriverError(f"{top}: Linux {tree.release} without the SGX driver: no {where}")
    if version[:2] < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise DriverError(f"{top}: Linux {tree.release} is too old: {oldest} is the oldest")
    return tree
