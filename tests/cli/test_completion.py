"""The completion scripts, in the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from softsgx.cli.completion import SHELLS
from softsgx.cli.completion.scripts import script, tables
from softsgx.cli.main import COMMANDS
from softsgx.linux.version import VERSIONS
from tests.patience import LIMIT_S
from tools import man_page

ASK = """
source {file}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_softsgx
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(tmp_path: Path, words: str) -> set[str]:
    """What bash offers for the last of the words."""
    here = tmp_path / "here"
    here.mkdir(exist_ok=True)
    file = tmp_path / "softsgx.bash"
    file.write_text(script("bash"))
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK.format(file=file, words=words)],
        cwd=here, capture_output=True, text=True, timeout=LIMIT_S, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_options_values_files_and_programs(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "scenario.py").touch()
    assert completed(tmp_path, "softsgx ''") == {*COMMANDS, "--help", "--version"}
    assert completed(tmp_path, "softsgx com") == {"compare", "completion"}
    assert completed(tmp_path, "softsgx completion ''") >= set(SHELLS)
    assert completed(tmp_path, "softsgx run --en") == {"--engine"}
    assert completed(tmp_path, "softsgx explore scen") == {"scenario.py"}
    assert completed(tmp_path, "softsgx explore --junit s") == {"scenario.py"}
    assert completed(tmp_path, "softsgx run --supervisor s") == {"systrap"}
    assert completed(tmp_path, "softsgx driver --debian 6") == {"6.1", "6.12"}
    assert "scenario.py" in completed(tmp_path, "softsgx run --stats -- ./app s")
    assert completed(tmp_path, "softsgx run -- --en") == set()


def test_bash_knows_every_option_of_every_command(tmp_path: Path) -> None:
    for name, _, table in tables():
        options = {each for each in table.options if each.startswith("-")}
        assert completed(tmp_path, f"softsgx {name} -") == options | {"--help"}
        assert completed(tmp_path, f"softsgx {name} ''") >= options


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_takes_its_script(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "script"
    file.write_text(script(shell))
    done = subprocess.run(
        [shell, "-n", str(file)], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_fish_completes(tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    file = tmp_path / "softsgx.fish"
    file.write_text(script("fish"))
    ask = f'source {file}; complete -C "softsgx run --linux "; complete -C "softsgx dr"'
    done = subprocess.run(
        ["fish", "--no-config", "-c", ask], capture_output=True, text=True, timeout=LIMIT_S,
        check=True,
    )  # fmt: skip
    offered = {line.split("\t")[0] for line in done.stdout.splitlines()}
    assert offered >= {*VERSIONS, "driver"}


def test_zsh_completes(tmp_path: Path) -> None:
    """At a terminal: zsh completes nowhere else."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    (tmp_path / "_softsgx").write_text(script("zsh"))
    ask = f"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'PS1=; fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -D'
zpty -w z 'softsgx doc\t--js\t'
sleep 2
zpty -r z found '*--json*' && print right
zpty -d z
"""
    done = subprocess.run(
        ["zsh", "-f", "-c", ask], capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert "right" in done.stdout, done.stdout + done.stderr


def test_the_man_page_is_as_the_tables_are() -> None:
    assert man_page.PAGE.read_text(encoding="utf-8") == man_page.page(), "run make docs"


def test_the_man_page_is_formatted_without_a_warning() -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", str(man_page.PAGE)],
        capture_output=True, text=True, timeout=LIMIT_S, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert "--supervisor" in done.stdout
