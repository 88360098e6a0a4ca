"""What a test of a stream calls."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.cdriver import sources
from tests.differential.compare import compare
from tests.differential.operations import Op, Setting


def agree(linux: str, factory: pytest.TempPathFactory, setting: Setting, ops: Sequence[Op]) -> None:
    """Both drivers agree on a stream. Skipped where the kernel's source cannot be had."""
    driver = sources.driver_object(linux, factory)
    difference = compare(driver, linux, setting, ops)
    assert difference is None, str(difference)
