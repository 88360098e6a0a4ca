"""Programs that the tests of this directory compile, once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runner.inserted.harness import Harness, compile_c, start


@pytest.fixture(scope="session")
def harness_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    return compile_c(tmp_path_factory.mktemp("harness"), "harness.c", name="harness")


@pytest.fixture
def harness(harness_program: Path) -> Iterator[Harness]:
    with start(harness_program) as running:
        yield running
