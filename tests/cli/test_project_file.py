"""[tool.softsgx.explore] of pyproject.toml: what it sets, what wins over it, what is refused."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from softsgx.cli.explore import TABLE
from softsgx.cli.main import Parser, main
from softsgx.explore.plan import DEEPENING, STATES
from softsgx.project.file import nearest
from tests.cli.test_explore import CORRECT

EXPLORE = "[tool.softsgx.explore]\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: two below that of pyproject.toml."""
    place = tmp_path / "src" / "enclave"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    return tmp_path


def write(project: Path, text: str) -> None:
    (project / "pyproject.toml").write_text(text, encoding="utf-8")


def parsed(*words: str) -> argparse.Namespace:
    """The arguments of `softsgx explore WORDS`, with all defaults."""
    parser = Parser(prog="softsgx explore")
    TABLE.register(parser)
    args = parser.parse_args(words)
    TABLE.mode(args)
    return args


def test_every_key_sets_its_option(project: Path) -> None:
    values: dict[str, Any] = {
        "strategy": "dfs",
        "preemptions": 1,
        "executions": 50,
        "budget": "2m",
        "seed": 9,
        "jobs": 2,
        "linux": "6.18",
        "order": "gramine",
        "no-progress": True,
    }
    assert values.keys() | {"depth"} == TABLE.in_file.keys()
    write(project, EXPLORE + "".join(f"{key} = {json.dumps(values[key])}\n" for key in values))
    found = vars(parsed("--shipped"))
    expected = {key.replace("-", "_"): value for key, value in values.items()}
    assert {key: found[key] for key in expected} == expected | {"budget": 120}
    assert parsed("--known-races").budget == 120
    write(project, EXPLORE + "depth = 4\n")
    assert parsed("X").depth == 3  # it is for other strategies than the default
    assert parsed("X", "--strategy", "pct").depth == 4


def test_a_budget_may_be_a_number_of_seconds(project: Path) -> None:
    write(project, EXPLORE + "budget = 1.5\n")
    assert parsed("X").budget == 1.5


def test_the_command_line_wins(project: Path) -> None:
    write(project, EXPLORE + 'strategy = "random"\nexecutions = 50\nno-progress = true\n')
    args = parsed("X", "--strategy", "states", "--executions", "7", "--progress")
    assert (args.strategy, args.executions, args.progress, args.no_progress) == (
        *("states", 7, True, False),
    )
    # random has no bound, so the project's strategy gives way.
    args = parsed("X", "--preemptions", "1")
    assert (args.strategy, args.preemptions) == (DEEPENING, 1)


def test_the_command_line_can_make_a_default_pointless(project: Path) -> None:
    write(project, EXPLORE + 'preemptions = 2\nlinux = "6.1"\n')
    assert parsed("X").preemptions == 2
    assert parsed("X", "--strategy", "random").preemptions is None
    assert parsed("--shipped").strategy == STATES
    assert parsed("--shipped").preemptions is None
    assert parsed("--shipped").linux == "6.1"
    assert parsed("--shipped", "--driver", "sgx.drv").linux is None


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        ("--driver x.drv --coverage lines.info", None),
        ("--driver x.drv --data-races", None),
        ("--cluster tcp://host:1", None),
        ("--cluster", 2),
        ("", 2),
    ],
)
def test_what_takes_one_process_or_workers_of_others(
    words: str, jobs: int | None, project: Path
) -> None:
    """The file's jobs made each of these an error, and no option could undo it."""
    write(project, EXPLORE + "jobs = 2\n")
    assert parsed("FirstTouch", *words.split()).jobs == jobs


def test_the_nearest_file_counts_even_without_the_table(project: Path) -> None:
    write(project, EXPLORE + "executions = 50\n")
    assert nearest() == project / "pyproject.toml"
    assert parsed("X").executions == 50
    write(project / "src", "[project]\nname = 'inner'\n")
    assert parsed("X").executions == 1_000_000
    (project / "src" / "enclave" / "pyproject.toml").mkdir()  # no file
    assert nearest() == project / "src" / "pyproject.toml"


def test_without_a_working_directory(project: Path) -> None:
    write(project, EXPLORE + "executions = 50\n")
    Path.cwd().rmdir()
    assert nearest() is None


def test_a_search_takes_it_and_says_so_in_json(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, EXPLORE + 'strategy = "random"\nexecutions = 3\n')
    Path("scenarios.py").write_text(CORRECT, encoding="utf-8")
    assert main(["explore", "scenarios.py", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["strategy"], found["executions"]) == ("random", 3)
    # A replay, a list: nothing of it applies, and nobody looks at it.
    write(project, "no TOML")
    assert main(["explore", "--list"]) == 0


REFUSED = {
    "not TOML": ("[tool.softsgx", "not TOML: "),
    "not UTF-8": ("caf\udce9", "not TOML: 'utf-8' codec can't decode"),
    "nested": ("a = " + "[" * 5000, "not TOML: "),
    "tool": ("tool = 3", "tool: not a table"),
    "softsgx": ("[tool]\nsoftsgx = 3", "tool.softsgx: not a table"),
    "explore": ("[tool.softsgx]\nexplore = 3", "tool.softsgx.explore: not a table"),
    "a table": ("[tool.softsgx.explor]", "[tool.softsgx] explor: unknown, did you mean explore?"),
    "another table": ("[tool.softsgx.x]", "[tool.softsgx] x: unknown: known are explore, pytest"),
    "a key": ("strategi = 'dfs'", "strategi: unknown, did you mean strategy?"),
    "an underscore": ("no_progress = true", "no_progress: unknown, did you mean no-progress?"),
    "a mode": ("shipped = true", "shipped: unknown: known are linux, order, strategy, "),
    "a word": ("strategy = 'dsf'", "strategy: dsf: unknown, did you mean dfs?"),
    "a kernel": ("linux = '5.4'", "linux: 5.4: unknown: known are 6.18, 6.12, 6.1, v2"),
    "a float": ("linux = 6.12", "linux: 6.12 is not a string"),
    "a string": ("executions = '50'", "executions: '50' is not a whole number"),
    "true": ("jobs = true", "jobs: True is not a whole number"),
    "an array": ("seed = [1]", "seed: [1] is not a whole number"),
    "a date": ("seed = 2026-01-01", "seed: datetime.date(2026, 1, 1) is not a whole number"),
    "a number": ("no-progress = 1", "no-progress: 1 is not true or false"),
    "negative": ("preemptions = -1", "preemptions: -1: not from 0 to 0xffff"),
    "none": ("executions = 0", "executions: 0: not from 1 to 0xffffffff"),
    "no time": ("budget = 'soon'", "budget: soon: not a duration such as 60s or 5m"),
    "for ever": ("budget = inf", "budget: inf: not a duration such as 60s or 5m"),
    "a bound": (
        "strategy = 'random'\npreemptions = 2",
        "preemptions: only with --strategy deepening or dfs",
    ),
    "a depth": ("strategy = 'dfs'\ndepth = 4", "depth: only with --strategy pct or guided"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_understood_is_refused_in_one_line(
    what: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, says = REFUSED[what]
    of_a_table = not text.startswith(("[", "tool", "caf", "a = "))
    file = project / "pyproject.toml"
    file.write_text((EXPLORE if of_a_table else "") + text, "utf-8", "surrogateescape")
    start = f"{file}: [tool.softsgx.explore] " if of_a_table else f"{file}: "
    for words in (["FirstTouch"], ["--shipped"]):
        assert main(["explore", *words]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith(f"softsgx: explore: {start}{says}"), line


def test_a_file_that_cannot_be_read(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "pyproject.toml").symlink_to("/proc/self/mem")
    assert main(["explore", "FirstTouch"]) == 2
    assert capsys.readouterr().err.endswith("pyproject.toml: Input/output error\n")
