"""The skip of tests that compile or assemble something."""

import shutil
from typing import Final

import pytest

needs_gcc: Final = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
