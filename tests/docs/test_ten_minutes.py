"""docs/ten-minutes.md: its commands, in their order, answer as it says."""

from __future__ import annotations

import shutil
from pathlib import Path

from softsgx.cdriver import debian
from softsgx.cdriver.errors import DriverError
from tests.docs.page import demo, follow, sections
from tests.runner.explored.built import EXAMPLE, build
from tests.runner.gcc import needs_gcc

PATH = "docs/ten-minutes.md"
OF_THE_DRIVER = ("softsgx driver", "softsgx run --driver", "softsgx explore FirstTouch --driver")


def has_source() -> bool:
    """Whether Debian's package is installed."""
    try:
        debian.source("6.12")
    except DriverError:
        return False
    return True


@needs_gcc
def test_the_page(tmp_path: Path) -> None:
    """What needs the sources of the kernel, where they can be had."""
    demo(tmp_path)
    explored = tmp_path / "build" / "explored"
    explored.mkdir()
    shutil.copy(EXAMPLE / "attacks.py", explored)
    build(EXAMPLE / "attacks.c", explored / "attacks")
    build(EXAMPLE / "attacks.c", explored / "attacks-repaired", "-DREPAIRED")
    left_out = () if has_source() else OF_THE_DRIVER
    assert follow(PATH, tmp_path, left_out) == 13 - len(left_out)


def test_every_kind_of_user_has_a_section() -> None:
    text = "".join(block.text for block, _, _ in sections(PATH))
    for command in ("softsgx run --explain", "pytest -q", *OF_THE_DRIVER, "make explored"):
        assert f"$ {command}" in text, command
