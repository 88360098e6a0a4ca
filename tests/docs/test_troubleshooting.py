"""docs/troubleshooting.md: its messages are those of the source, its rows those of doctor."""

from __future__ import annotations

import argparse
import ast
import errno
import os
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from softsgx.cli.main import COMMANDS
from softsgx.runner.doctor.doctor import examine
from tests.patience import LIMIT_S
from tools.documents import ROOT, blocks

PATH = "docs/troubleshooting.md"
CODE = re.compile(r"`([^`]+)`")
SCRIPTS = ("tools/make-venv",)


def table(head: str) -> list[list[str]]:
    """The cells of the table with this first heading."""
    text = (ROOT / PATH).read_text(encoding="utf-8")
    (found,) = (b for b in blocks(PATH, text) if b.lines[0].startswith(f"| {head} |"))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found.lines[2:]]


def messages() -> list[str]:
    return [CODE.findall(row[0])[0] for row in table("message")]


@cache
def printed() -> str:
    """Every text in the source, and those of errno; what is filled in ends one. Scripts whole."""
    found = [(ROOT / path).read_text(encoding="utf-8") for path in SCRIPTS]
    found += [os.strerror(number).lower() for number in errno.errorcode]
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def unknown(message: str) -> list[str]:
    """The parts of a message between what differs that no text of the source has."""
    _, command, rest = message.split(": ", 2) if message.count(": ") > 1 else ("", "", message)
    texts = printed()
    parts = [part.strip(" :;,.") for part in re.split(r"\.\.\.|[:;,] ", rest)]
    wrong = [part for part in parts if part and part not in texts]
    return wrong + [command] * (command not in ("", "setup", "unfinished", *COMMANDS))


@pytest.mark.parametrize("message", messages())
def test_every_message_is_in_the_source(message: str) -> None:
    assert unknown(message) == []


def test_a_message_that_nothing_prints_is_noticed() -> None:
    assert unknown("softsgx: run: ...: is not executable: chmod +w") == ["chmod +w"]
    assert unknown("softsgx: rum: ...: is not executable") == ["rum"]
    assert unknown("softsgx: explore: ...: no class in it derives from Scenarios") != []


# What is typed, and the row of the table that its line is.
TYPED = (
    ("run -- ./none", 127, "no such file"),
    ("run -- ./file", 126, "is not executable"),
    ("run", 125, "no program"),
    ("run --none -- /bin/true", 125, "unrecognized arguments"),
    ("explore empty.py", 2, "no class in it"),
    ("explore FirsTouch", 2, "did you mean"),
    ("explore --replay 0.0.1/FirstTouch,6.12/c6cd75af/1:a3b4", 2, "made by softsgx"),
    ("explore --replay 0.1.0/FirstTouch,6.12/00000000/1:a3b4", 2, "has changed since"),
)


@pytest.mark.parametrize(("words", "code", "row"), TYPED, ids=[words for words, _, _ in TYPED])
def test_messages_are_printed_as_they_stand_there(
    words: str, code: int, row: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty.py").write_text("")
    command = [sys.executable, "-m", "softsgx", *words.split()]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    (message,) = (message for message in messages() if row in message)
    pattern = ".*".join(map(re.escape, message.split("...")))
    assert done.returncode == code
    assert re.fullmatch(pattern, done.stderr.strip()), done.stderr


def test_every_row_of_doctor_is_explained() -> None:
    named = [name for row in table("rows") for name in CODE.findall(row[0])]
    assert len(named) == len({*named})
    assert {*named} == {check.name for check in examine()}


def test_every_option_is_one() -> None:
    """Each `COMMAND --option VALUE` of the table is understood."""
    given = [code for row in table("what") for code in CODE.findall(row[2]) if " --" in code]
    assert len(given) > 8
    for line in given:
        name, *words = line.split()
        parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
        import_module(COMMANDS[name].module).register(parser)
        options = {option: a for a in parser._actions for option in a.option_strings}
        assert words[0] in options, line
        if len(words) > 1:
            parser.parse_known_args(words)
