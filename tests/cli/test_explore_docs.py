"""The examples of docs/explore.md do what the text says."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from softsgx.cli.explore import TABLE
from softsgx.cli.main import main
from softsgx.linux.version import VERSIONS
from softsgx.system.checkers import CHECKERS
from softsgx.system.scenarios.catalogue import KNOWN_RACES
from tests.patience import LIMIT_S

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "explore.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def examples() -> list[str]:
    return [text for language, text in BLOCKS if language == "python"]


def test_the_counter_gives_the_report_of_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scenarios.py").write_text(examples()[0])
    assert main(["explore", "scenarios.py"]) == 1
    (expected,) = [text for language, text in BLOCKS if language == "text"]
    found = capsys.readouterr().out
    # The identity of the file and the line are those of the text, by `make docs`.
    time = re.compile(r"\d+\.\d s")
    assert time.sub("", found) == time.sub("", expected)


def commands() -> list[str]:
    text = "".join(text for language, text in BLOCKS if language == "sh")
    elsewhere = ("--known-races", "explored")  # tests/runner/explored/test_attacks.py
    return [line for line in text.splitlines() if not any(word in line for word in elsewhere)]


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_text_find_something(command: str, tmp_path: Path) -> None:
    """Those of known races and of binaries have tests of their own."""
    (tmp_path / "scenarios.py").write_text(examples()[0])
    program, *argv = shlex.split(command)
    assert program == "softsgx"
    # A process of its own: Dask has threads that outlive a call.
    line = [sys.executable, "-m", "softsgx.cli.main", *argv]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 1, done.stderr
    assert "violation" in done.stdout.lower()


def test_a_scenario_takes_20_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in examples():
        assert len([line for line in text.splitlines() if line.strip()]) <= 20
    path = tmp_path / "touch.py"
    path.write_text(examples()[1])
    assert main(["explore", str(path), "--preemptions", "1"]) == 1
    assert capsys.readouterr().out.startswith("VIOLATION spurious fault: toucher 1 gets SIGBUS")


def test_every_rule_is_in_the_table() -> None:
    for checker in CHECKERS:
        assert checker.rule in TEXT


def test_the_table_of_races_is_that_of_the_program() -> None:
    text = (DOCS / "kernel-races.md").read_text(encoding="utf-8")
    for race in KNOWN_RACES:
        row = next(line for line in text.splitlines() if line.startswith(f"| {race.number} |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1] == race.scenario.__name__
        assert cells[-1] == race.mainline
    assert VERSIONS["6.12"].races.lookup_before_removal


def test_the_table_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken, and with its comments it names every key."""
    (table,) = re.findall(
        r"^```toml\n(.*?)^```", (DOCS / "explore.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert all(re.search(rf"\b{key}\b", table) for key in TABLE.in_file)
    (tmp_path / "pyproject.toml").write_text(table)
    monkeypatch.chdir(tmp_path)
    args = argparse.Namespace(shipped=True)
    TABLE.mode(args)
    found = (args.strategy, args.preemptions, args.budget, args.linux, args.no_progress)
    assert found == ("deepening", 2, 300, "6.12", True)
