"""Commands in the documents: each is one that softsgx understands, and the short ones are run."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from softsgx.cli.main import COMMANDS
from tools.documents import ROOT, all_blocks, documents

SHOWN = re.compile(r"`(softsgx [^`]+)`")
# Words that stand for what the reader fills in.
STANDS_FOR = {"TARGET", "FILE", "ADDRESS", "S", "DESIGN/FAILURE", "NAME=VALUE", "HOW", "N"}


def commands() -> list[str]:
    """Those on lines of blocks, and those within sentences."""
    found: dict[str, None] = {}
    for block in all_blocks():
        if block.kind in ("indented", "fenced sh"):
            for line in block.text.splitlines():
                command = line.partition(" #")[0].strip()
                if command.startswith("softsgx "):
                    found[command] = None
    for path in documents():
        text = (ROOT / path).read_text(encoding="utf-8")
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for command in SHOWN.findall(prose):
            found[" ".join(command.split())] = None
    return list(found)


def test_commands_are_found() -> None:
    assert {"softsgx doctor", "softsgx compare", "softsgx explore --known-races"} <= {*commands()}


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str) -> None:
    name, *words = shlex.split(command.partition(" | ")[0])[1:]
    if words in (["--help"], ["--version"]) or name.startswith("-"):
        assert name in ("COMMAND", "--help", "--version", *COMMANDS)
        return
    # Several at once: "`softsgx measure`, `sign`" are single ones; "softsgx run" alone is a name.
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    import_module(COMMANDS[name].module).register(parser)
    if not words:
        return
    options = {option for action in parser._actions for option in action.option_strings}
    if STANDS_FOR & {part for word in words for part in word.split(":")}:
        named = {w.partition("=")[0] for w in words if w.startswith("--") and w != "--"}
        assert named <= options
        return
    if all(word.startswith("--") for word in words):
        assert {w.partition("=")[0] for w in words} <= options
        takes = {o: a.nargs != 0 for a in parser._actions for o in a.option_strings}
        if any(takes[word] for word in words):
            return  # the name of an option within a sentence
    parser.parse_args(words)


def test_a_command_that_is_none_is_noticed() -> None:
    with pytest.raises(KeyError):
        test_commands_are_understood("softsgx exlore FirstTouch")
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        test_commands_are_understood("softsgx explore FirstTouch --unknown 1")


# Those of README that are run here, with what each prints; the long ones are given less to do.
RUNS = {
    "softsgx doctor": ("doctor", {0, 1}, "ptrace"),
    "softsgx compare --failure ioctl/pending": ("compare --failure ioctl/pending", {0}, "repaired"),
    "softsgx explore FirstTouch": ("explore FirstTouch", {1}, "VIOLATION spurious fault"),
    "softsgx explore --shipped --linux 6.12 --jobs 2": (
        "explore --shipped --linux 6.12 --jobs 2 --executions 20",
        {1},
        "HostileHost",
    ),
}
# Those that other tests run.
ELSEWHERE = {
    "softsgx run -- ./app ARGS": "tests/runner/test_programs.py",
    "softsgx run --explain --stats -- ./app": "tests/docs/test_blocks.py",
    "softsgx compare": "tests/cli/test_compare.py",
    "softsgx explore --known-races": "tests/docs/test_blocks.py",
}


def test_every_command_of_the_readme_is_run_somewhere() -> None:
    shown = {
        line.partition(" #")[0].strip()
        for block in all_blocks()
        if block.path == "README.md" and block.kind == "indented"
        for line in block.text.splitlines()
    }
    assert {line for line in shown if line.startswith("softsgx ")} == {*RUNS, *ELSEWHERE}
    assert all((ROOT / path).exists() for path in ELSEWHERE.values())


@pytest.mark.parametrize("command", RUNS)
def test_commands_of_the_readme_do_what_they_say(command: str, tmp_path: Path) -> None:
    words, codes, says = RUNS[command]
    line = [sys.executable, "-m", "softsgx", *words.split()]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in codes, done.stdout + done.stderr
    assert says in done.stdout


def test_make_targets_are_there() -> None:
    """Every `make TARGET` of every document, with its variables."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^(\w+) *[?:]?=", makefile, re.MULTILINE)) | {"CONFORMANCE"}
    found = 0
    for path in documents():
        text = (ROOT / path).read_text(encoding="utf-8")
        shown = re.findall(
            r"(?:`|^    |<!-- )make ([a-z-]+)((?: [A-Z_]+=\S+)*)", text, re.MULTILINE
        )
        for target, given in shown:
            assert target in targets, f"{path}: make {target}"
            assert set(re.findall(r"([A-Z_]+)=", given)) <= variables, f"{path}: {given}"
            found += 1
    assert found > 10


def test_the_example_for_pytest(tmp_path: Path) -> None:
    (example,) = (b for b in all_blocks() if "pytest.mark.explore" in b.text)
    counter = next(b.text for b in all_blocks() if "class Counter(Scenario)" in b.text)
    body = counter.partition("    def add")[2].partition("    def check")[0]
    source = (
        "import pytest\n\n\nclass Counter:\n    value = 0\n\n    def add"
        + body
        + "\n\n"
        + example.text
    )
    (tmp_path / "test_example.py").write_text(source, encoding="utf-8")
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "--explore-replay" in done.stdout
