"""A short run of storm.py; `make signal-storm` is the long one."""

from __future__ import annotations

import pytest

from tests.runner.gcc import needs_gcc
from tests.runner.programs import ENGINES, Workshop
from tests.signals.comparing import SUPERVISORS, there
from tests.signals.storm import storm

SECONDS = 3


@needs_gcc
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("supervisor", SUPERVISORS)
def test_no_signal_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, supervisor: str, engine: str
) -> None:
    if not there(supervisor):
        pytest.skip(f"`softsgx run` has no --supervisor {supervisor} yet")
    workshop = Workshop(tmp_path_factory.mktemp("storm"))
    assert not storm(workshop, supervisor, engine, SECONDS, seed=1)
