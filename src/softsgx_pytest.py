"""pytest plugin: a machine as a fixture, and tests that run over schedules.

    def test_protect(softsgx):
        machine = softsgx(cpus=2, epc="1M")

    @pytest.mark.softsgx_run(engine=["unicorn", "native"], linux=["6.1", "6.12"])
    def test_program(softsgx_run):
        result = softsgx_run(["./host", "enclave.sgxs", "enclave.sig"])
        assert result.leaves["EMODPR"] == 1

    @pytest.mark.explore(preemptions=2)
    def test_counter(execution):
        counter = Counter()
        execution.spawn(counter.add(), "A")
        execution.spawn(counter.add(), "B")

        def check():
            assert counter.value == 2

        return check

An explored test is called once for each schedule; what it returns is called when its tasks have
ended. An assertion that fails, in the test or in the tested code, is a finding; any other exception
means that the test itself is broken, and the report says so. The arguments of the mark are those of
`softsgx.explore.Plan`; `executions` is 10,000 by default. [tool.softsgx.pytest] of pyproject.toml,
in pytest's rootdir, has defaults for both (docs/pytest.md). This file is outside the package, and
imports it only when used, so that pytest starts no slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

EXECUTIONS = 10_000
OPTIONS = ("engine", "linux", "epc", "supervisor")  # those that the mark softsgx_run may vary
PLAN = ("strategy", "seed", "executions", "preemptions", "depth", "minimise")
# What [tool.softsgx.pytest] may have, with the types of TOML.
TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(OPTIONS, (str, list)),
    "options": (list,),
    "timeout": (int, float),
    **dict.fromkeys(PLAN, (int,)),
    "strategy": (str,),
    "minimise": (bool,),
}
DEFAULTS = pytest.StashKey[dict[str, Any]]()
BROKEN = "  the test itself is broken; this says nothing about the tested code"


def pytest_addoption(parser: pytest.Parser) -> None:
    """--explore-replay."""
    group = parser.getgroup("softsgx")
    text = "execute only this schedule of an explored test, as printed by its failure"
    group.addoption("--explore-replay", metavar="STRING", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """The marks, and the project's defaults."""
    config.addinivalue_line("markers", "explore(...): run the test over schedules of its tasks")
    text = "softsgx_run(engine=[...], linux=[...], epc=[...]): run the test with each of them"
    config.addinivalue_line("markers", text)
    config.stash[DEFAULTS] = _defaults(config.rootpath / "pyproject.toml")


def _defaults(file: Path) -> dict[str, Any]:
    """[tool.softsgx.pytest] of the file. pytest.UsageError."""
    try:
        if b"softsgx" not in file.read_bytes():
            return {}
    except OSError:
        return {}
    from softsgx.project.file import ProjectError, read

    try:
        found = read(file, "pytest", TYPES)
        if found:
            _check(file, found)
    except ProjectError as error:
        raise pytest.UsageError(f"softsgx: {error}") from None
    return found


def _check(file: Path, found: dict[str, Any]) -> None:
    """Whether the values are known ones. ProjectError."""
    from softsgx.explore import Plan
    from softsgx.linux.version import VERSIONS
    from softsgx.project.file import ProjectError, nearest_of, where
    from softsgx.runner.options import AUTO, ENGINES, SUPERVISORS

    known = {"engine": ENGINES, "linux": tuple(VERSIONS), "supervisor": (*SUPERVISORS, AUTO)}
    for key in OPTIONS:
        start = where(file, "pytest", key)
        if found.get(key) == []:
            raise ProjectError(f"{start}: an empty array would leave out every test")
        for word in _listed(found.get(key, [])):
            if key in known and word not in known[key]:
                raise ProjectError(f"{start}: {word}: unknown{nearest_of(word, known[key])}")
    try:
        Plan(**{key: value for key, value in found.items() if key in PLAN})
    except ValueError as error:
        raise ProjectError(f"{file}: [tool.softsgx.pytest]: {error}") from None


def _lists(defaults: dict[str, Any]) -> dict[str, Any]:
    """The options for which the project has a list: a test for each value."""
    return {name: defaults[name] for name in OPTIONS if isinstance(defaults.get(name), list)}


def _listed(values: Any) -> list[Any]:
    return [values] if isinstance(values, str) else list(values)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each combination of a mark softsgx_run, and of the project's lists."""
    if "softsgx_run" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("softsgx_run")
    if mark is not None and (mark.args or not set(mark.kwargs) <= set(OPTIONS)):
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: the mark softsgx_run takes {', '.join(OPTIONS)}"
        )
    defaults = metafunc.config.stash[DEFAULTS]
    asked = {**_lists(defaults), **(mark.kwargs if mark is not None else {})}
    if not asked:
        return
    choices = {name: _listed(values) for name, values in asked.items()}
    combined = [dict(zip(choices, each, strict=True)) for each in product(*choices.values())]
    ids = ["-".join(map(str, each.values())) for each in combined]
    metafunc.parametrize("softsgx_run", combined, ids=ids, indirect=True)


@pytest.fixture
def softsgx() -> Callable[..., Any]:
    """Makes machines: `softsgx(cpus=2, epc="16M")`."""
    from softsgx import Machine

    return Machine


@pytest.fixture
def softsgx_run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """Runs programs under `softsgx run`: `softsgx_run([program, *arguments], epc="8M")`.

    Arguments and result: `softsgx.runner.run_result.run_program`. A program that does not end with
    the exit code `code` (0; None: any) fails the test, with what the model explains.
    """
    from softsgx.runner.run_result import ProgramFailed, run_program

    defaults = request.config.stash[DEFAULTS]
    lists = [*_lists(defaults)]
    if lists and not hasattr(request, "param"):
        pytest.fail(
            f"softsgx_run is asked for too late to be called for each {lists[0]} of "
            "pyproject.toml: make it an argument of the test",
            pytrace=False,
        )
    always = {
        name: value
        for name, value in defaults.items()
        if name in ("options", "timeout") or (name in OPTIONS and isinstance(value, str))
    }
    chosen: dict[str, Any] = {**always, **getattr(request, "param", {})}

    def run(command: Sequence[str], **options: Any) -> Any:
        try:
            return run_program(command, trace_in=tmp_path, **{**chosen, **options})
        except ProgramFailed as failed:
            pytest.fail(str(failed), pytrace=False)

    return run


@pytest.fixture
def execution() -> None:
    """The execution of an explored test; the plugin passes it when it calls the test."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Explore a marked test; leave others to pytest."""
    mark = pyfuncitem.get_closest_marker("explore")
    if mark is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    given = {name: pyfuncitem.funcargs[name] for name in names if name != "execution"}
    if "execution" not in names:
        pytest.fail("an explored test takes the argument `execution`", pytrace=False)
    options = _plan(pyfuncitem.config.stash[DEFAULTS], mark.kwargs)
    replay: str | None = pyfuncitem.config.getoption("--explore-replay")
    report = _explored(pyfuncitem.name, pyfuncitem.obj, given, options, replay)
    if report is not None:
        text = report.replace("REPLAY", f"pytest {pyfuncitem.nodeid!r} --explore-replay")
        pytest.fail(text, pytrace=False)
    return True


def _plan(defaults: dict[str, Any], marked: Mapping[str, Any]) -> dict[str, Any]:
    """What a mark explore asks for, with the project's defaults where they do not contradict it."""
    from softsgx.explore.plan import BOUNDED

    project = {name: defaults[name] for name in PLAN if name in defaults}
    if marked.get("strategy", BOUNDED[0]) not in BOUNDED:
        project.pop("preemptions", None)
    if "preemptions" in marked and project.get("strategy", BOUNDED[0]) not in BOUNDED:
        project.pop("strategy")
    return {"executions": EXECUTIONS, **project, **marked}


def _explored(
    name: str,
    test: Callable[..., Any],
    given: dict[str, Any],
    options: dict[str, Any],
    replay: str | None,
) -> str | None:
    """The report of the failure, None if there is none."""
    from softsgx.explore import Plan, ReplayRefused, explore, replay_string, replayed
    from softsgx.explore.table import table
    from softsgx.sim import ScheduleError

    scenario = _scenario(name, test, given)
    if replay is not None:
        try:
            failure = replayed(replay, scenario).failure
        except (ReplayRefused, ScheduleError) as error:
            return f"--explore-replay: {error}"
        found = "this schedule"
    else:
        try:
            plan = Plan(**options)
        except (TypeError, ValueError) as error:
            return f"the mark explore: {error}"
        outcome = explore(scenario, plan)
        failure = outcome.failure
        found = f"found after {outcome.found_in}, seed {plan.seed}"
    if failure is None:
        return None
    lines = [
        failure.headline if failure.finding else f"{failure.headline}\n{BROKEN}",
        f"  {failure.where}; {found}; {failure.size}",
        f"  replay: REPLAY {replay_string(scenario, failure.choices)!r}",
        table(scenario, failure.choices),
    ]
    return "\n".join(lines)


def _scenario(name: str, test: Callable[..., Any], given: dict[str, Any]) -> Any:
    """The test as a scenario."""
    from softsgx.explore import Scenario, Violation
    from softsgx.sim import Execution

    class Test(Scenario):
        """Calls the test in every execution."""

        ended: Callable[[], object] | None = None
        # An assert in a task is a finding, as one in what the test returns.
        violations = (AssertionError,)

        def start(self, execution: Execution) -> None:
            """The test spawns its tasks."""
            self.ended = test(execution=execution, **given)

        def check(self, execution: Execution) -> None:
            """Call what the test has returned."""
            if self.ended is None:
                return
            try:
                self.ended()
            except AssertionError as error:
                raise Violation("assertion of the test", str(error)) from error

        @property
        def file(self) -> str:
            """The file of the test."""
            return test.__code__.co_filename

    scenario = Test()
    scenario.name = name
    return scenario
