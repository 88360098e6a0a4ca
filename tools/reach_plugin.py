"""pytest plugin of `make mutants`: notes the blocks that each test reaches, one JSON line a test.

`-p tools.reach_plugin`, with SOFTSGX_REACH naming the file for the lines. Without that it only sets
a profile of hypothesis, which neither shrinks nor keeps what it finds.
"""

import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

import hypothesis
import pytest

from tools.reach import HITS

hypothesis.settings.register_profile(
    "mutants",
    hypothesis.settings.get_profile("ci"),
    database=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)
OUT: Final = os.environ.get("SOFTSGX_REACH", "")


def _processor_time() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class _Recorder:
    """What a fixture of a module or session reaches counts for all tests of its file."""

    def __init__(self) -> None:
        self.hits = __import__(HITS).hits
        self.shared: dict[str, set[int]] = {}
        self.passed: dict[str, bool] = {}

    def take(self) -> set[int]:
        """The blocks reached since the last call."""
        raw = bytes(self.hits[:])
        self.hits[:] = bytes(len(raw))
        return {number for number, byte in enumerate(raw) if byte}

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makemodule(self, module_path: Path) -> Generator[None, object, object]:
        self.take()
        return (yield)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        # Importing the file of the test, and its tables, ran before its first item is made.
        self.shared.setdefault(item.nodeid.split("::")[0], set()).update(self.take())

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        if request.scope == "function":
            return (yield)
        before = self.take()
        result = yield
        file = request.node.nodeid.split("::")[0]
        self.shared.setdefault(file, set()).update(self.take())
        for number in before:
            self.hits[number] = 1
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self.take()
        started, used = time.monotonic(), _processor_time()
        result = yield
        line = {
            "test": item.nodeid,
            "seconds": round(time.monotonic() - started, 4),
            "processor": round(_processor_time() - used, 4),
            "passed": self.passed.get(item.nodeid, False),
            "hits": sorted(self.take()),
        }
        self._write(line)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        passed = self.passed.get(report.nodeid, True) and report.outcome == "passed"
        self.passed[report.nodeid] = passed

    def pytest_sessionfinish(self) -> None:
        for file, hits in self.shared.items():
            self._write({"file": file, "hits": sorted(hits)})

    @staticmethod
    def _write(line: dict[str, object]) -> None:
        with open(OUT, "a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Record where there is something to write to."""
    if OUT:
        config.pluginmanager.register(_Recorder(), "softsgx-reach")
