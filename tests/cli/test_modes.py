"""The tables of modes: an option that would have no effect is refused in one line.

`explore --list --junit FILE`, `--replay --json`, `--known-races TARGET`, `compare --failure X
--json`, `compare --validate --json` and `compare --schedule S` alone were accepted and did nothing.
Every pair of a mode and an option of another one is tried here.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

import pytest

from softsgx.cli import modes
from softsgx.cli.declared import Mode, Option
from softsgx.cli.errors import codes
from softsgx.cli.main import COMMANDS, main
from softsgx.cli.modes import Table
from tests.cli import tables
from tests.cli.tables import TABLES


def choosers(command: str) -> set[str]:
    return {mode.chosen for mode in TABLES[command].modes if mode.chosen}


def misplaced() -> Iterator[Any]:
    """Each mode with each option of other modes, with some value and with the default."""
    for command, mode in tables.modes():
        for option in TABLES[command].options.values():
            if option.name in mode.names or (not mode.chosen and option.name in choosers(command)):
                continue  # with one that chooses it is another mode
            for words in (tables.words(command, option), tables.with_default(option)):
                if words is not None:
                    identity = f"{tables.name(command, mode)}-{' '.join(words)}"
                    yield pytest.param(command, mode, option, words, id=identity)


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The line of the refusal."""
    assert main(argv) == COMMANDS[argv[0]].failure_codes.failed
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mode may even be imported."""

    def never(module: str) -> None:
        raise AssertionError(f"{module} was to be run")

    monkeypatch.setattr(modes, "import_module", never)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("command", "mode", "option", "words"), list(misplaced()))
def test_an_option_of_another_mode_is_refused(
    command: str,
    mode: Mode,
    option: Option,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused([*tables.least(command, mode), *words], capsys)
    assert line.startswith(f"softsgx: {command}: ")
    assert line.endswith(f": see softsgx {command} --help")
    chosen = [mode.chosen, option.name] if option.name in choosers(command) else [option.name]
    assert any(f" {name}: " in line for name in chosen)
    if mode.chosen and option.name not in choosers(command):
        assert f"{option.name}: not with {mode.chosen}: " in line


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("explore --list --junit x", "--junit: not with --list"),
        ("explore FirstTouch --known-races", "TARGET: not with --known-races"),
        ("explore FirstTouch --linux v2", "--linux: only with --shipped"),
        ("explore --list --replay x", "--replay: not with --list"),
        ("compare --schedule 1:a", "--schedule: only with --failure"),
        ("compare --validate --seed 1", "--seed: not with --validate"),
        ("compare --validate --failure ioctl/pending", "--validate: not with --failure"),
        ("compare --all --json", "--all: not with --json"),
        ("explore", "TARGET or one of --shipped, --list, --replay, --known-races is needed"),
    ],
)
def test_the_line_names_option_and_mode(
    command: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = command.split()
    expected = f"softsgx: {argv[0]}: {line}: see softsgx {argv[0]} --help"
    assert refused(argv, capsys) == expected


def settings(option: Option) -> list[tuple[object, list[str]]]:
    """Values of an option, each with its words on the command line."""
    if option.flag:
        return [(True, [option.name])]
    if not option.choices:
        return [(option.default, [])]
    return [(value, [option.name, value]) for value in option.choices]


def conditions() -> Iterator[Any]:
    """Each option with each value of another one that disables it."""
    for command, mode in tables.modes():
        for name in mode.options:
            option = TABLES[command].options[name]
            if option.only is None:
                continue
            other, values = option.only
            for value, said in settings(TABLES[command].options[other]):
                if value not in values:
                    words = [*tables.words(command, option), *said]
                    identity = f"{tables.name(command, mode)}-{' '.join(words)}"
                    yield pytest.param(command, mode, option, other, words, id=identity)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("command", "mode", "option", "other", "words"), list(conditions()))
def test_an_option_that_another_one_switches_off_is_refused(
    command: str,
    mode: Mode,
    option: Option,
    other: str,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused([*tables.least(command, mode), *words], capsys)
    assert f"{option.name}: " in line
    assert f" with {other}" in line


def each_option() -> Iterator[Any]:
    for command, table in TABLES.items():
        for option in table.options.values():
            yield pytest.param(command, option, id=f"{command} {option.name}")


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("command", "option"), list(each_option()))
def test_an_option_twice_or_with_an_empty_value_is_refused(
    command: str, option: Option, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first was forgotten, and `--junit ""` was ignored."""
    mode = next(mode for mode in TABLES[command].modes if option.name in mode.names)
    argv = [command, *tables.words(command, option)]
    if not option.positional and not option.many:
        line = refused([*argv, *tables.words(command, option)], capsys)
        assert f"{option.name}: is given twice" in line
    if not option.flag and not option.rest:
        least = [word for word in tables.least(command, mode) if option.name != word]
        empty = [""] if option.positional else [option.name, ""]
        empty = [f"{option.name}="] if option.joined else empty
        assert option.name in refused([command, *empty, *least[1:]], capsys)


def test_the_word_after_an_option_whose_value_is_joined_is_not_its_value() -> None:
    """`run --stats ./app` has always been possible; so its format only comes after "="."""
    joined = TABLES["run"].joined
    assert joined(["--epc", "8M", "--stats", "./app"]) == ["--epc", "8M", "--stats=text", "./app"]
    assert joined(["--stats=json", "./app", "--stats"]) == ["--stats=json", "./app", "--stats"]
    assert joined(["--", "--stats"]) == ["--", "--stats"]
    assert joined(["--vendor", "--stats", "--stats"]) == ["--vendor", "--stats", "--stats=text"]


@pytest.mark.parametrize("command", list(TABLES))
def test_the_help_has_every_mode_with_its_options_and_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = capsys.readouterr().out
    table = TABLES[command]
    usage = re.split(r"^ *(?:usage: | +)softsgx ", out.split("\n\n")[0], flags=re.MULTILINE)[1:]
    assert len(usage) == len(table.modes)
    for mode, text in zip(table.modes, usage, strict=True):
        found = set(re.findall(r"(?<![\w-])-{1,2}[a-z][a-z0-9-]*|\b[A-Z]+\b(?=$|\s|\])", text))
        options = {name for name in found if name in table.options}
        called = {name: list(each) for name, each in mode.takes.items() if name not in each}
        assert all(" ".join(each) in text for each in called.values())
        assert options == set(mode.names) - set(called)
    assert max(map(len, out.splitlines())) <= 80
    shown = " ".join(out.split())
    for mode in table.modes:
        assert mode.about in shown or len(table.modes) == 1
        for code, means in mode.codes.items():
            assert re.search(rf" {code} .*{re.escape(means)}", shown)


def test_a_table_with_an_option_that_is_not_declared_is_refused() -> None:
    mode = Mode(about="", options=("--nothing",), codes=codes("done"), module="none")
    with pytest.raises(AssertionError, match="unknown option"):
        Table("command", {}, (mode,))


def test_a_code_that_the_table_does_not_have_is_a_broken_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mode = Mode(about="", codes=codes("done"), module="none")
    ending = argparse.Namespace(run=lambda args: 1)
    monkeypatch.setattr(modes, "import_module", lambda module: ending)
    with pytest.raises(AssertionError):
        Table("command", {}, (mode,)).run(argparse.Namespace())
