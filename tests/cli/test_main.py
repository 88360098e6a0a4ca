"""The frame of the command line: what every subcommand can rely on."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import softsgx
from softsgx.cli.errors import EXIT_BAD_INPUT, UsageError
from softsgx.cli.main import COMMANDS, Command, main

FAKE = "tests.cli.fake_command"
FRAME = {
    "count": Command(FAKE, "add one"),
    "broken": Command("softsgx.cli.there_is_no_such_module", "cannot even be imported"),
}


@pytest.mark.parametrize(
    ("argv", "code", "out", "err"),
    [
        (["count", "4"], 0, "5\n", ""),
        (["count", "4", "--", "./app", "-x"], 0, "5 ./app -x\n", ""),
        (["count", "0"], 1, "1\n", ""),
        (
            ["count", "--", "-4"],
            2,
            "",
            "softsgx: count: -4: negative, only natural numbers have successors here\n",
        ),
        (
            ["count", "four"],
            2,
            "",
            "softsgx: count: argument number: invalid int value: 'four': "
            "see softsgx count --help\n",
        ),
        (
            ["cuont"],
            2,
            "",
            "softsgx: cuont: unknown command, did you mean count?: see softsgx --help\n",
        ),
        (["sing"], 2, "", "softsgx: sing: unknown command: see softsgx --help\n"),
        (
            ["--loud", "count", "4"],
            2,
            "",
            "softsgx: count: --loud: options go after the command: see softsgx count --help\n",
        ),
        (
            ["--by", "3", "count", "4"],
            2,
            "",
            "softsgx: 3: unknown command: options go after the command: see softsgx count --help\n",
        ),
        (
            ["count", "4", "--loud"],
            2,
            "",
            "softsgx: count: unrecognized arguments: --loud: see softsgx count --help\n",
        ),
        (["--loud"], 2, "", "softsgx: unrecognized arguments: --loud: see softsgx --help\n"),
    ],
)
def test_exit_code_and_one_line(
    argv: Sequence[str], code: int, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv, FRAME) == code
    assert capsys.readouterr() == (out, err)


def test_no_arguments_is_help_and_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == EXIT_BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: softsgx ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"softsgx {softsgx.__version__}\n"


def test_help_lists_the_commands_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"], FRAME)
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "count" in out
    assert "cannot even be imported" in out


def test_help_of_a_command_shows_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["count", "--help"], FRAME)
    assert stop.value.code == 0
    assert "number" in capsys.readouterr().out


def test_help_has_one_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = set()
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        main([], FRAME)
        outputs.add(capsys.readouterr().err)
    assert len(outputs) == 1


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_can_be_imported_and_has_help(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert COMMANDS[name].help in capsys.readouterr().out


def test_usage_error_is_one_line() -> None:
    assert str(UsageError("a:\n  b")) == "a: b"


@pytest.mark.parametrize(
    "command",
    [
        [str(Path(sys.executable).with_name("softsgx"))],
        [sys.executable, "-m", "softsgx"],
    ],
)
def test_installed_command_starts(command: list[str]) -> None:
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"softsgx {softsgx.__version__}\n"


def test_start_imports_no_room() -> None:
    script = "import sys, softsgx.cli.main; print(*(m for m in sys.modules if 'softsgx.' in m))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert {name.split(".")[1] for name in done.stdout.split()} == {"cli"}
