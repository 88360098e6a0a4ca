"""[tool.softsgx.pytest] of pyproject.toml: defaults of the fixture softsgx_run and of the marks."""

from __future__ import annotations

import re

import pytest

from softsgx_pytest import TYPES
from tests.tidy.source import ROOT

pytest_plugins = ["pytester"]
PLUGIN = ("-p", "softsgx_pytest", "-p", "no:cacheprovider")

# Instead of a program: what the fixture would run.
ASKED = """
import importlib
import pytest

@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    def asked(command, *, trace_in, **options):
        return options
    # Not the attribute of the package: pytester keeps sys.modules of each run apart.
    module = importlib.import_module("softsgx.runner.run_result")
    monkeypatch.setattr(module, "run_program", asked)
"""
TESTS = (
    ASKED
    + """
def test_defaults(softsgx_run):
    print("plain", sorted(softsgx_run(["x"]).items()))

def test_the_call_wins(softsgx_run):
    print("call", sorted(softsgx_run(["x"], epc="1M", options=["--sgx1"]).items()))

@pytest.mark.softsgx_run(engine="unicorn", epc=["2M", "4M"])
def test_the_mark_wins(softsgx_run):
    print("mark", sorted(softsgx_run(["x"]).items()))

def test_late(request):
    assert callable(request.getfixturevalue("softsgx_run"))
"""
)
SET = """
[tool.softsgx.pytest]
engine = "native"
linux = ["6.1", "6.18"]
epc = "8M"
options = ["--tick", "0"]
timeout = 30
"""


def told(pytester: pytest.Pytester, table: str, tests: str, *words: str) -> pytest.RunResult:
    pytester.makepyprojecttoml(table)
    pytester.makepyfile(tests)
    return pytester.runpytest_inprocess(*PLUGIN, *words)


def test_the_fixture_takes_the_table_and_lists_vary(pytester: pytest.Pytester) -> None:
    done = told(pytester, SET, TESTS, "-s", "-v")
    # The one that asks for it too late cannot be called for each kernel, and says so.
    done.assert_outcomes(passed=8, failed=1)
    done.stdout.fnmatch_lines(["softsgx_run is asked for too late*each linux of pyproject.toml*"])
    rest = "('options', ['--tick', '0']), ('timeout', 30)]"
    for linux in ("6.1", "6.18"):
        same = f"('linux', '{linux}')"
        for line in (
            f"plain [('engine', 'native'), ('epc', '8M'), {same}, {rest}",
            f"call [('engine', 'native'), ('epc', '1M'), {same}, ('options', ['--sgx1']), "
            "('timeout', 30)]",
            f"mark [('engine', 'unicorn'), ('epc', '2M'), {same}, {rest}",
            f"mark [('engine', 'unicorn'), ('epc', '4M'), {same}, {rest}",
        ):
            assert line in done.stdout.str()
    done.stdout.fnmatch_lines(["*test_the_mark_wins?6.18-unicorn-4M?*"])


def test_single_values_leave_the_names_of_tests(pytester: pytest.Pytester) -> None:
    done = told(pytester, '[tool.softsgx.pytest]\nepc = "8M"\n', TESTS, "-s", "-v")
    done.assert_outcomes(passed=5)
    done.stdout.fnmatch_lines(["*::test_defaults plain [[]('epc', '8M')[]]*"])


def test_without_a_table_nothing_is_set(pytester: pytest.Pytester) -> None:
    done = told(pytester, '[project]\nname = "of-softsgx"\n', TESTS, "-s")
    done.assert_outcomes(passed=5)
    assert "plain []" in done.stdout.str()


EXPLORED = """
import pytest
import softsgx.explore

@pytest.fixture(autouse=True)
def shown(monkeypatch):
    explore = softsgx.explore.explore
    def noted(scenario, plan):
        print(scenario.name, plan.strategy, plan.executions, plan.preemptions)
        return explore(scenario, plan)
    monkeypatch.setattr(softsgx.explore, "explore", noted)

def steps():
    yield ("read", "x", True)

@pytest.mark.explore
def test_plain(execution):
    execution.spawn(steps(), "A")

@pytest.mark.explore(strategy="pct", executions=9)
def test_strategy(execution):
    execution.spawn(steps(), "A")

@pytest.mark.explore(preemptions=1)
def test_bound(execution):
    execution.spawn(steps(), "A")

@pytest.mark.explore(strategy="dfs")
def test_bounded(execution):
    execution.spawn(steps(), "A")
"""


@pytest.mark.parametrize(
    ("lines", "plans"),
    [
        (
            'strategy = "random"\nexecutions = 4',
            [
                *("plain random 4 None", "strategy pct 9 None", "bound deepening 4 1"),
                "bounded dfs 4 None",
            ],
        ),
        (
            "preemptions = 2",
            [
                *("plain deepening 10000 2", "strategy pct 9 None", "bound deepening 10000 1"),
                "bounded dfs 10000 2",
            ],
        ),
    ],
)
def test_the_mark_explore_takes_the_table(
    pytester: pytest.Pytester, lines: str, plans: list[str]
) -> None:
    done = told(pytester, f"[tool.softsgx.pytest]\n{lines}\n", EXPLORED, "-s")
    done.assert_outcomes(passed=4)
    for plan in plans:
        assert f"test_{plan}\n" in done.stdout.str()


def test_the_table_of_the_document(pytester: pytest.Pytester) -> None:
    """It is taken, and with its comments it names every key."""
    text = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert all(re.search(rf"\b{key}\b", table) for key in TYPES)
    done = told(pytester, table, TESTS, "-s")
    done.assert_outcomes(passed=6, failed=1)  # test_late, as above
    assert "('engine', 'native'), ('epc', '8M'), ('linux', '6.12')" in done.stdout.str()


REFUSED = {
    "engin = 'native'": "engin: unknown, did you mean engine?",
    "engine = 'natve'": "engine: natve: unknown, did you mean native?",
    "linux = ['6.18', '5.4']": "linux: 5.4: unknown: known are 6.18, 6.12, 6.1, v2",
    "supervisor = 'trace'": "supervisor: trace: unknown, did you mean ptrace?",
    "linux = 6.12": "linux: 6.12 is not a string or an array of strings",
    "linux = [6.12]": "linux: [6.12] is not a string or an array of strings",
    "linux = []": "linux: an empty array would leave out every test",
    "options = '--sgx1'": "options: '--sgx1' is not an array of strings",
    "timeout = '3'": "timeout: '3' is not a whole number or a number",
    "executions = true": "executions: True is not a whole number",
    "minimise = 1": "minimise: 1 is not true or false",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_not_understood_is_refused(pytester: pytest.Pytester, line: str) -> None:
    done = told(pytester, f"[tool.softsgx.pytest]\n{line}\n", TESTS)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    start = f"ERROR: softsgx: {pytester.path / 'pyproject.toml'}: [tool.softsgx.pytest] "
    assert f"{start}{REFUSED[line]}" in [text.rstrip() for text in done.errlines]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("[tool.softsgx.pytets]", "[tool.softsgx] pytets: unknown, did you mean pytest?"),
        ("[tool.softsgx]\npytest = 3", "tool.softsgx.pytest: not a table"),
        (
            "[tool.softsgx.pytest]\nexecutions = 0",
            "[tool.softsgx.pytest]: executions = 0: not a number from 1 up",
        ),
        (
            "[tool.softsgx.pytest]\nstrategy = 'random'\npreemptions = 1",
            "[tool.softsgx.pytest]: strategy random has no bound of preemptions: "
            "deepening and dfs do",
        ),
        ("[tool.softsgx.pytest", "not TOML: "),
    ],
)
def test_a_file_that_is_wrong_elsewhere(pytester: pytest.Pytester, table: str, says: str) -> None:
    (pytester.path / "pyproject.toml").write_text(table)
    (pytester.path / "other.ini").write_text("[pytest]\n")  # pytest itself reads no broken TOML
    done = pytester.runpytest_inprocess(*PLUGIN, "-c", "other.ini", "--rootdir", ".")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (text for text in done.errlines if "softsgx" in text)
    assert line.startswith(f"ERROR: softsgx: {pytester.path / 'pyproject.toml'}: {says}")
