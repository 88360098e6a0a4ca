"""docs/ and README.md agree with the tables of modes about options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from softsgx.cli.main import COMMANDS, Parser
from softsgx.explore import STRATEGIES
from tests.cli.tables import TABLES

ROOT = Path(__file__).resolve().parents[2]
STANDS_FOR = {"recorded:FILE": "stacks", "FILE": "low", "DESIGN/FAILURE": "ioctl/pending"}
"""What a word in capitals may stand for, where the argument is checked while it is parsed."""

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[tuple[str, str]]:
    """Command lines in code blocks, and those between backquotes that have arguments."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = re.findall(r"^ *softsgx (.*)$", text, re.MULTILINE)
        lines += re.findall(r"`softsgx ([^`\n]+)`", text)
        for line in lines:
            words = re.split(r" *(?:\s#| \|\| | \| |; |>)", line)[0].strip()
            if words.split()[0] in COMMANDS and not re.search(r"\[|\.\.\.|\$", words):
                found.append((page.name, words))
    return list(dict.fromkeys(found))


def test_there_are_commands_of_every_table() -> None:
    assert {words.split()[0] for _page, words in commands()} == set(TABLES)
    assert len(commands()) > 60


@pytest.mark.parametrize(("page", "words"), commands())
def test_a_documented_command_line_is_not_refused(page: str, words: str) -> None:
    """It has the options of one mode; a FILE in it stands for any file."""
    command, *argv = shlex.split(words)
    if argv in ([], ["--help"]):
        return
    argv = [STANDS_FOR.get(word, word) for word in argv]
    parser = Parser(prog="softsgx")
    TABLES[command].register(parser)
    args = parser.parse_args(argv)
    table = TABLES[command]
    # Some lines have only options: they may lack the argument, but nothing else.
    chosen = any(mode.chosen in argv for mode in table.modes)
    if chosen or set(vars(args)) & {"target", "file", "program"} or not table.modes[0].needs:
        table.mode(args)


def test_the_options_of_run() -> None:
    """The table in docs/run.md has all of them, in any order, with their defaults."""
    text = (ROOT / "docs" / "run.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(--[a-z0-9-]+) ?([^`]*)` \|", text, re.MULTILINE))
    options = TABLES["run"].options
    assert set(rows) == {name for name in options if name.startswith("--")}
    for name, value in rows.items():
        assert value in (options[name].metavar, options[name].default_text)


def test_the_strategies_and_the_modes_of_explore() -> None:
    text = (ROOT / "docs" / "explore.md").read_text(encoding="utf-8")
    table = text[text.index("| strategy |") :].split("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z]+)`", table, re.MULTILINE)) == set(STRATEGIES)
    for mode in TABLES["explore"].modes:
        assert f"`{mode.chosen}`" in text or not mode.chosen
    for name in set(re.findall(r"`(--[a-z-]+)", text)) - {"--explore-replay", "--help"}:
        assert name in TABLES["explore"].options, name
