"""The pytest plugin, by running pytest on small test files."""

from __future__ import annotations

import re
import shlex

import pytest

pytest_plugins = ["pytester"]

COUNTER = """
import pytest

class Counter:
    def __init__(self, atomic):
        self.value = 0
        self.atomic = atomic

    def add(self):
        yield ("read", "value", False)
        value = self.value
        if not self.atomic:
            yield ("write", "value", True)
        self.value = value + 1

@pytest.mark.explore(preemptions=2)
@pytest.mark.parametrize("atomic", [False, True])
def test_counter(execution, atomic):
    counter = Counter(atomic)
    execution.spawn(counter.add(), "A")
    execution.spawn(counter.add(), "B")

    def check():
        assert counter.value == 2

    return check

def test_machine(softsgx):
    assert softsgx(cpus=2, epc="1M").cpus == 2

@pytest.mark.explore
def test_without():
    pass
"""


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "softsgx_pytest", "-p", "no:cacheprovider", *args)


@pytest.mark.parametrize("ci", [False, True], ids=["by-hand", "in-ci"])
def test_an_explored_test_fails_with_its_schedule_and_replays(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: bool
) -> None:
    monkeypatch.delenv("BUILD_NUMBER", raising=False)
    if ci:
        monkeypatch.setenv("CI", "true")
    else:
        monkeypatch.delenv("CI", raising=False)
    pytester.makepyfile(COUNTER)
    result = run(pytester)
    result.assert_outcomes(passed=2, failed=2)
    text = result.stdout.str()
    assert "VIOLATION assertion of the test: assert 1 == 2" in text
    assert "an explored test takes the argument `execution`" in text
    assert re.search(r"^ +3 +write value$", text, re.MULTILINE)
    # With CI in the environment pytest repeats a failure's whole text in its short summary.
    (line,) = set(re.findall(r"replay: pytest (.*)$", text, re.MULTILINE))
    again = run(pytester, *shlex.split(line))
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["*test_an_explored*; this schedule;*1 preemption, 4 steps*"])


def test_a_replay_of_another_test_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(COUNTER)
    result = run(pytester, "-k", "counter", "--explore-replay", "0/other/0/1:a")
    result.assert_outcomes(failed=2)
    assert "--explore-replay: made by softsgx 0" in result.stdout.str()
