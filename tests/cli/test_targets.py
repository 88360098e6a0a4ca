"""Wrong TARGETs and replay strings of `softsgx explore`: the message says what is wrong.

A C file, a directory and an ELF file were "no file, and no scenario"; a replay string of another
scenario was "FirstTouch has no scenario FirstTouch"; an exception out of a scenario's `__init__`
was a traceback.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from softsgx.cli.main import main
from tests.cli.test_explore import CORRECT, COUNTER


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["explore", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line.removeprefix("softsgx: explore: ")


def test_what_is_there_and_no_file_of_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    Path("main.c").write_text("int main;")
    Path("FirstTouch.d").mkdir()
    Path("odd.py").mkdir()
    Path("app").write_bytes(b"\x7fELF" + bytes(60))
    Path("empty").touch()
    os.mkfifo("pipe.py")
    Path("loop").symlink_to("loop")
    python = "is not a Python file: the name of a file with scenarios ends in .py"
    directory = "is a directory; TARGET is a Python file with scenarios, or a shipped scenario"
    for name, why in {
        "main.c": python,
        "empty": python,
        "FirstTouch.d": directory,
        "odd.py": directory,
        "app": "is an ELF file: a scenario of it is an ElfScenario in a Python file",
        "pipe.py": "is not a regular file",
        "loop": "no such file",
        "nowhere.py": "no such file",
        "no/where": "no such file",
    }.items():
        assert refused(capsys, name) == f"{name}: {why}"


def test_a_name_that_is_nearly_one_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "FirstTuch")
    wanted = "neither a file nor a scenario"
    assert line.startswith(f"FirstTuch: {wanted}, did you mean FirstTouch?; known")
    assert refused(capsys, "Zzz").startswith(f"Zzz: {wanted}; known are FirstTouch,")


def test_a_switch_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The last one won."""
    for switches in ("remove_vs_fault=0,remove_vs_fault=1", "order=enarx,order=gramine"):
        race = switches.split("=")[0]
        name = f"TwoProtects,6.12,{switches}"
        assert refused(capsys, name) == f"{name}: {race} is given twice"


@pytest.mark.parametrize("error", ["ValueError", "TypeError", "AssertionError"])
def test_a_scenario_that_cannot_be_made_is_refused_with_its_line(
    error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = f"\n    def __init__(self):\n        raise {error}('no')\n"
    Path("made.py").write_text(CORRECT + made)
    number = (CORRECT + made).splitlines().index(f"        raise {error}('no')") + 1
    assert refused(capsys, "made.py") == f"made.py:{number}: Correct(): {error}: no"


def test_the_string_of_another_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    Path("scenarios.py").write_text(COUNTER + CORRECT)
    string = "--replay 0.1.0/{}/00000000/1:a".format
    for target, name, why in (
        ("FirstTouch", "FirstTouch", "; TARGET FirstTouch is FirstTouch,6.12"),
        ("RemoveTouch", "FirstTouch,6.12", "; TARGET RemoveTouch is RemoveTouch,6.12"),
        ("scenarios.py", "FirstTouch,6.12", "; TARGET scenarios.py has Counter, Correct"),
        ("", "Counter", ", which is not a shipped one: give the file that has it as TARGET"),
    ):
        argv = [*string(name).split(), *([target] if target else [])]
        assert refused(capsys, *argv) == f"--replay: the string is for scenario {name}{why}"


def test_a_replay_is_reported_as_a_search_is(capsys: pytest.CaptureFixture[str]) -> None:
    """--json, --junit and --sarif did nothing with --replay."""
    Path("scenarios.py").write_text(COUNTER)
    assert (
        main(["explore", "scenarios.py", "--json", "--junit", "1.xml", "--sarif", "1.sarif"]) == 1
    )
    (searched,) = json.loads(capsys.readouterr().out)
    replay = searched["failure"]["replay"].split("--replay ")[1]
    argv = ["scenarios.py", "--replay", replay, "--json", "--junit", "2.xml", "--sarif", "2.sarif"]
    assert main(["explore", *argv]) == 1
    (replayed,) = json.loads(capsys.readouterr().out)
    assert replayed["strategy"] == "replay"
    assert (replayed["executions"], replayed["points"]) == (1, searched["failure"]["steps"])
    searched["failure"]["found_after"] = 1
    assert replayed["failure"] == searched["failure"]
    assert Path("1.sarif").read_text() == Path("2.sarif").read_text()
    assert (
        Path("1.xml").read_text().split("time=")[0] == Path("2.xml").read_text().split("time=")[0]
    )


def test_a_string_that_is_longer_than_its_execution_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The rest was ignored, as with `compare --failure ioctl/pending --schedule 1:z`."""
    Path("scenarios.py").write_text(COUNTER)
    assert main(["explore", "scenarios.py", "--json"]) == 1
    (searched,) = json.loads(capsys.readouterr().out)
    replay = searched["failure"]["replay"].split("--replay ")[1]
    line = refused(capsys, "scenarios.py", "--replay", f"{replay}aa")
    assert line == "--replay: choice 3 of the schedule: the execution has ended before it"
    assert main(["compare", "--failure", "ioctl/pending", "--schedule", "1:z"]) == 2
    assert "--schedule: choice 0 of the schedule: the exec" in capsys.readouterr().err
