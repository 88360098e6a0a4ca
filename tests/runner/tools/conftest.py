"""What the tests of this directory share."""

from pathlib import Path

import pytest

from tests.runner.programs import Workshop


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Builds programs and their enclaves, each once."""
    directory: Path = tmp_path_factory.mktemp("tools")
    return Workshop(directory)
