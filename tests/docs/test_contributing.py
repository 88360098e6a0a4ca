"""CONTRIBUTING.md: its commands can be run, its examples are in the history."""

from __future__ import annotations

import re
import subprocess

import pytest

from tools.documents import ROOT, all_blocks

PATH = "CONTRIBUTING.md"
MAKE = re.compile(r"make ([a-z-]+)((?: [A-Z]+=\d+)*)$")


def marked(name: str) -> list[str]:
    return [line for b in all_blocks() if b.path == PATH and name in b.mark for line in b.lines]


def commands() -> list[str]:
    """The lines of the block, and what the table names between backticks."""
    found = []
    for line in marked("test_every_command_can_be_run"):
        if line.startswith("|"):
            found += re.findall(r"`(make [^`]+)`", line)
            found += [f"pytest {path}" for path in re.findall(r"`(tests/[^`]+)`", line)]
        elif not line.startswith("```"):
            found.append(line.partition("#")[0].strip())
    return found


def test_commands_are_found() -> None:
    assert {"make setup", "make conformance", "pytest tests/quality"} <= {*commands()}


@pytest.mark.parametrize("command", commands())
def test_every_command_can_be_run(command: str) -> None:
    """`make -n` knows target and variables; of pytest, the tests are there."""
    if MAKE.match(command):
        done = subprocess.run(
            ["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        for variable in re.findall(r"([A-Z]+)=", command):
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert f"$({variable})" in makefile
        return
    assert re.match(r"(\.venv/bin/python -m )?pytest ", command), command
    place = ROOT / command.split()[-1]
    assert place.name.startswith("test_") or any(place.rglob("*")), command


def examples() -> list[str]:
    """`hash subject` of each row."""
    rows = marked("test_every_example_is_in_the_history")[2:]
    return [row.strip("|").rpartition("|")[2].strip() for row in rows]


@pytest.mark.parametrize("example", examples())
def test_every_example_is_in_the_history(example: str) -> None:
    """By its subject, which a rebase keeps; a shallow clone or an archive has no history."""
    commit, subject = example.split(" ", 1)
    log = ["git", "log", "-1", "--format=%h %s", commit]
    if not (ROOT / ".git").exists() or _is_shallow():
        pytest.skip("no history here")
    done = subprocess.run(log, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" ", 1)[1].strip() == subject


def _is_shallow() -> bool:
    asked = ["git", "rev-parse", "--is-shallow-repository"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() != "false"
