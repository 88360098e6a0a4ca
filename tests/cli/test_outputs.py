"""Files that commands write: no input is destroyed, `-` is standard output.

`run --trace host -- ./host` made the program a trace; `sign -o /dev/stdout` printed
MRENCLAVE over the SIGSTRUCT.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from softsgx.cli import files, outputs
from softsgx.cli.errors import (
    EXIT_BAD_INPUT,
    EXIT_OK,
    EXIT_READER_GONE,
    EXIT_RUN_FAILED,
    EXIT_RUN_NOT_EXECUTABLE,
    UsageError,
)
from softsgx.cli.main import COMMANDS, Parser, main
from softsgx.report.same_file import file_of, overwritten
from softsgx.runner.host.inherited import Inherited
from tests.cli import enclave_files
from tests.cli.enclave_files import contents

SCENARIO = """
from softsgx.explore import Scenario

class Nothing(Scenario):
    def start(self, execution):
        execution.spawn(self.body(), "a", 0)

    def body(self):
        yield ("step", "x", False)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with everything that a command could destroy."""
    enclave_files.write_all(tmp_path)
    (tmp_path / "scenario.py").write_text(SCENARIO)
    (tmp_path / "sub").mkdir()
    host = tmp_path / "host"
    host.write_bytes(Path("/bin/true").read_bytes())
    host.chmod(0o755)
    script = tmp_path / "script"
    script.write_text(f"#!{host} -x\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def by_another_name(how: str, path: str) -> str:
    """A name of the same file."""
    if how == "relative":
        return f"./sub/../{path}"
    if how == "absolute":
        return str(Path.cwd() / path)
    if how == "symbolic":
        Path("sub/symbolic").symlink_to(f"../{path}")
        return "sub/symbolic"
    if how == "hard":
        os.link(path, "hard")
        return "hard"
    if how == "descriptor":
        return f"/proc/self/fd/{os.open(path, os.O_RDONLY)}"
    return path


NAMES = ["itself", "relative", "absolute", "symbolic", "hard", "descriptor"]
# Command line; the input that OUT would destroy.
DESTROYING = [
    (["sign", "app", "--key", "key.pem", "-o", "OUT"], "app"),
    (["sign", "app", "--key", "key.pem", "-o", "OUT"], "key.pem"),
    (["sign", "app", "--key", "key.pem", "--sgxs", "OUT"], "app"),
    (["explore", "scenario.py", "--junit", "OUT"], "scenario.py"),
    (["explore", "scenario.py", "--sarif", "OUT"], "scenario.py"),
    (["run", "--trace", "OUT", "--", "./host"], "host"),
    (["run", "--sgxs-out", "OUT", "--", "./host"], "host"),
    (["run", "--trace", "OUT", "--", "host"], "host"),
    (["run", "--trace", "OUT", "--", "./script"], "script"),
    (["run", "--trace", "OUT", "--", "./script"], "host"),
    (["run", "--trace", "OUT", "--", "/bin/cat", "app.sgxs"], "app.sgxs"),
    (["run", "--trace", "OUT", "--", "/bin/cat", "--enclave=app.sgxs"], "app.sgxs"),
]


@pytest.mark.parametrize("how", NAMES)
@pytest.mark.parametrize(("argv", "target"), DESTROYING, ids=str)
def test_what_is_read_is_not_written_over(
    argv: list[str],
    target: str,
    how: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caller = Inherited((b"PATH=%s" % os.fsencode(here),))
    monkeypatch.setattr("softsgx.runner.host.inherited.inherited", lambda: caller)
    before = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
    out = by_another_name(how, target)
    code = main([out if word == "OUT" else word for word in argv])
    err = capsys.readouterr().err
    assert code == (EXIT_RUN_FAILED if argv[0] == "run" else EXIT_BAD_INPUT), err
    assert err.startswith(f"softsgx: {argv[0]}: {out}: ")
    assert err.endswith(": choose another name\n")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("how", ["itself", "relative", "symbolic", "hard"])
@pytest.mark.parametrize(
    "argv",
    [
        ["sign", "app", "--key", "key.pem", "-o", "one", "--sgxs", "OUT"],
        ["explore", "scenario.py", "--junit", "one", "--sarif", "OUT"],
    ],
    ids=lambda argv: argv[0],
)
def test_two_outputs_are_two_files(
    argv: list[str], how: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if how == "hard":
        (here / "one").write_bytes(b"before")
    out = by_another_name(how, "one")
    assert main([out if word == "OUT" else word for word in argv]) == EXIT_BAD_INPUT
    assert f" {out}: would be written over" in capsys.readouterr().err


def test_what_is_no_ordinary_file_may_be_named_again_and_again(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    null = "/dev/null"
    assert main(["sign", "app", "--key", "key.pem", "-o", null, "--sgxs", null]) == EXIT_OK
    assert capsys.readouterr().out.startswith("MRENCLAVE")
    assert main(["explore", "scenario.py", "--junit", null, "--sarif", null]) == EXIT_OK
    os.mkfifo("fifo")
    assert overwritten(["fifo", null], ["fifo", null, null, "fifo"]) is None
    assert file_of("fifo") is file_of(null) is file_of("sub") is None


def test_comparing_writes_over_no_prices_and_no_trace(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from softsgx.lab.prices import PROFILES

    lines = [f"{name} = {cycles}" for name, cycles in PROFILES["default"].cycles.items()]
    prices = here / "mine.toml"
    prices.write_text("\n".join(lines))
    os.link(prices, "hard.html")
    argv = ["compare", "--prices", "mine.toml", "--workloads", "relro", "--n", "1"]
    assert main([*argv, "--html", "hard.html"]) == EXIT_BAD_INPUT
    assert "hard.html: would be written over" in capsys.readouterr().err


def test_the_trace_is_none_of_the_streams(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for trace, sgxs_out in (("./x", "x"), ("x.2", "x"), ("sub/../x.64", "x")):
        argv = ["run", "--trace", trace, "--sgxs-out", sgxs_out, "--", "./host"]
        assert main(argv) == EXIT_RUN_FAILED
        assert "choose another name" in capsys.readouterr().err
    assert not Path("x").exists()


# Standard output


def softsgx(shell: str, where: Path) -> subprocess.CompletedProcess[bytes]:
    """A command line of sh in which $S is softsgx."""
    return subprocess.run(
        ["/bin/sh", "-c", shell.replace("$S", f"{sys.executable} -m softsgx")],
        cwd=where,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


SIGN = "$S sign app.sgxs --key key.pem"


@pytest.mark.parametrize("out", ["-", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"])
@pytest.mark.parametrize("to", [" | cat", " > all; cat all", " >> all; cat all"])
def test_the_sigstruct_on_standard_output_is_nothing_else(out: str, to: str, here: Path) -> None:
    done = softsgx(f"{SIGN} -o {out}{to}", here)
    assert done.stdout == contents()["app.sig"]
    assert [line.split()[0] for line in done.stderr.splitlines()] == [b"MRENCLAVE", b"MRSIGNER"]


def test_standard_output_by_its_name(here: Path) -> None:
    """`-o all > all`: a path that is standard output."""
    done = softsgx(f"{SIGN} -o all > all; cat all", here)
    assert done.stdout == contents()["app.sig"]
    assert done.stderr.startswith(b"MRENCLAVE")


def test_nothing_comes_together_where_nothing_is_kept(here: Path) -> None:
    """Text goes elsewhere only if it would be mixed with a file: not at /dev/null."""
    for argv in ("-o /dev/null > /dev/null", "-o /dev/null --sgxs /dev/null > /dev/null"):
        done = softsgx(f"{SIGN} {argv}", here)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_standard_output_takes_one_file_alone(here: Path) -> None:
    for command, why in (
        (f"{SIGN} -o - --sgxs -", b"sign: -: standard output can take one of them\n"),
        (f"{SIGN} -o - > all 2>&1; cat all >&2", b"standard output: would be written over"),
        (f"{SIGN} -o all 2> all; cat all >&2", b"sign: all: would be written over"),
        ("$S explore scenario.py --json --junit -", b"explore: --json: standard output is taken"),
        ("$S run --trace - -- /bin/true", b"--trace: -: standard output is the program's"),
    ):
        done = softsgx(command, here)
        assert done.stdout == b""
        assert why in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_reports_on_standard_output(here: Path) -> None:
    done = softsgx("$S explore scenario.py --junit -", here)
    assert done.stdout.startswith(b"<?xml")
    assert done.stdout.endswith(b"</testsuites>\n")
    assert done.stderr.startswith(b"Nothing: nothing found")


def test_reports_are_written_though_nobody_reads(here: Path) -> None:
    """The line that could not be printed came first, and then the report was missing."""
    done = softsgx("{ sleep 0.2; $S explore scenario.py --junit j.xml; echo $? >&2; } | true", here)
    assert done.stderr == b"%d\n" % EXIT_READER_GONE
    assert (here / "j.xml").read_text().endswith("</testsuites>\n")


def test_a_search_of_all_goes_on_for_its_reports(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = softsgx(
        "{ sleep 0.2; $S explore --shipped --linux v2 --order gramine --executions 1 --sarif s;"
        " echo $? >&2; } | true",
        here,
    )
    assert done.stderr == b"%d\n" % EXIT_READER_GONE
    assert (here / "s").read_text().endswith("}\n")


# A trace, which is written while the program runs


def test_a_trace_does_not_meet_the_streams_of_the_program(here: Path) -> None:
    """Trace and output overwrote each other, both from the beginning of the file."""
    for command in (
        "$S run --trace all -- /bin/echo hello > all",
        "$S run --trace /dev/stdout -- /bin/echo hello > all",
        "$S run --trace all -- /bin/echo hello 2> all; cat all >&2",
        "$S run --trace app -- /bin/cat < app",
    ):
        done = softsgx(command, here)
        assert b"the program uses this file, too: choose another name\n" in done.stderr, command
        assert done.stdout == b""
    assert (here / "app").read_bytes() == contents()["app"]


@pytest.mark.parametrize(
    "command",
    [
        "mkfifo f; cat f >&2 & $S run --trace f -- /bin/echo hello; wait",
        "{ $S run --trace /dev/stdout -- /bin/true | cat >&2; }; echo hello",
        "{ $S run --trace /dev/fd/3 -- /bin/echo hello; } 3>t; cat t >&2",
    ],
    ids=["fifo", "pipe", "descriptor"],
)
def test_a_trace_to_what_is_no_name_of_a_file(command: str, here: Path) -> None:
    done = softsgx(command, here)
    assert done.stdout == b"hello\n", done.stderr
    assert done.stderr.startswith(b'{"softsgx_trace": 1, ')
    assert b"ProcessEnded" in done.stderr


def test_a_trace_that_nobody_reads_ends_and_the_program_goes_on(here: Path) -> None:
    done = softsgx("mkfifo f; head -c 1 f >&2 & $S run --trace f -- /bin/echo hello; wait", here)
    assert done.stdout == b"hello\n"
    assert done.stderr.startswith(b"{")


def test_a_run_that_does_not_start_leaves_an_old_trace_alone(here: Path) -> None:
    old = here / "t.jsonl"
    old.write_text("old")
    for options in ("--vendor x", "--epc 999T", "--engine x", "--cpu-option x=1"):
        done = softsgx(f"$S run --trace t.jsonl {options} -- /bin/true", here)
        assert done.returncode == EXIT_RUN_FAILED, options
        assert done.stderr.count(b"\n") == 1, done.stderr
    assert old.read_text() == "old"


def test_a_program_that_cannot_be_executed_leaves_an_old_trace_alone(here: Path) -> None:
    """It was lost when exec failed. A program that runs replaces it, readable at once."""
    old = here / "t.jsonl"
    old.write_text("old\n" * 100_000)
    os.link(old, "other name")
    done = softsgx("exec 3>>host; $S run --trace t.jsonl -- ./host", here)
    assert done.returncode == EXIT_RUN_NOT_EXECUTABLE
    assert done.stderr == b"softsgx: run: ./host: Text file busy\n"
    assert old.read_text() == "old\n" * 100_000
    done = softsgx("$S run --trace t.jsonl -- /bin/sh -c 'head -c 40 t.jsonl; echo >&2'", here)
    assert done.returncode == EXIT_OK
    lines = Path("other name").read_text().splitlines()
    assert json.loads(lines[0])["softsgx_trace"] == 1
    assert json.loads(lines[-1])["what"] == "ProcessEnded"
    assert done.stdout == lines[0].encode()[:40]


# Writing


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = here / "report"
    out.write_bytes(b"before")
    out.chmod(0o640)
    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(UsageError, match="report: No space left on device"):
        files.write("report", b"after")
    assert out.read_bytes() == b"before"
    monkeypatch.undo()
    assert not [path.name for path in here.iterdir() if path.name.startswith(".softsgx")]
    files.write(str(out), b"after")
    assert (out.read_bytes(), stat.S_IMODE(out.stat().st_mode)) == (b"after", 0o640)


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "path", ["new", "./new", "sub/new", "app", "no/where", "sub", "app/new", ""]
)
@pytest.mark.parametrize("absolute", [False, True])
def test_what_would_be_refused_after_the_work_is_refused_before(
    path: str, absolute: bool, here: Path
) -> None:
    """As far as can be known: the directory exists, and the file is no directory."""
    path = str(here / path) if absolute and path else path
    said = []
    for refused in (files.expect_write, lambda path: files.write(path, b"after the work")):
        try:
            refused(path)
            said.append("")
        except UsageError as error:
            said.append(str(error))
    assert bool(said[0]) == bool(said[1]), said


def test_links_and_new_files_are_written_as_by_everybody(here: Path) -> None:
    os.umask(old := os.umask(0o027))
    files.write("new", b"1")
    assert stat.S_IMODE((here / "new").stat().st_mode) == 0o666 & ~old
    (here / "symbolic").symlink_to("new")
    files.write("symbolic", b"2")
    assert (here / "symbolic").is_symlink()
    os.link("new", "hard")
    files.write("hard", b"3")
    assert (here / "new").read_bytes() == b"3"
    (here / "dangling").symlink_to("sub/made")
    files.write("dangling", b"4")
    assert (here / "sub" / "made").read_bytes() == b"4"


# Every option


def written_options(name: str) -> dict[str, argparse.Action]:
    """The options of a command whose metavar or help says that they are written."""
    parser = Parser(prog=name)
    import_module(COMMANDS[name].module).register(parser)
    return {
        "/".join(action.option_strings): action
        for action in parser._actions
        if action.option_strings
        and (action.help or "").startswith("write") | (action.metavar == "SIG")
    }


def test_every_option_that_writes_a_file_is_known_as_one() -> None:
    """Only then is text kept apart from a file on standard output."""
    kinds: set[Callable[[str], str]] = {outputs.output, outputs.file_output}
    found = {(name, option): action for name in COMMANDS for option, action in
             written_options(name).items()}  # fmt: skip
    assert len(found) >= 7
    for (name, option), action in found.items():
        if action.metavar != "DIR":
            assert action.type in kinds, f"{name} {option}"
