"""What a command's first word leads to: the kernel and execvp are asked beside our answer.

Story: a `#!` script as PROGRAM was dropped, and its interpreter started alone. It read an empty
standard input, did nothing, and ended with 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from softsgx.runner.errors import RunnerError
from softsgx.runner.process.exec_chain import check_program
from tests.patience import LIMIT_S
from tests.runner.code.test_elf_check import ONLY, changed, executable, program, refusal

__all__ = ["program"]

SHOWS = """
import os, sys
exe = os.path.basename(os.readlink("/proc/self/exe"))
sys.stdout.write(repr([sys.argv, sys.orig_argv[1:], exe]))
"""


def env(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    """The same by env(1), which execvp finds."""
    return run("env", command, **options)


def supervised(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    return run(sys.executable, ["-m", "softsgx", "run", "--", *command], **options)


def run(first: str, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        [first, *command], capture_output=True, check=False, timeout=LIMIT_S, stdin=-3, **options
    )
    return done


def alike(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run under env and under softsgx: output and exit code are the same."""
    expected, found = env(command, **options), supervised(command, **options)
    code = expected.returncode if expected.returncode >= 0 else 128 - expected.returncode
    assert (found.stdout, found.returncode) == (expected.stdout, code), found.stderr
    assert found.stderr == expected.stderr
    return found


def lines(path: Path, first: str, name: str) -> Path:
    """A script that shows how it was started."""
    return executable(path / name, f"{first}\n{SHOWS}")


PYTHON = "/usr/bin/python3"
has_python = pytest.mark.skipif(not os.path.exists(PYTHON), reason=f"no {PYTHON}")
FIRST_LINES = (
    '#!/bin/sh\necho "$0" "$@"; exit 7\n',
    '#! \t /bin/sh -e \t\necho "$0" "$@"; false; echo not reached\n',
    '#!/usr/bin/env sh\necho "$0" "$@"; exit 3\n',
    "#!/usr/bin/env -S sh -c 'echo $0 $@; exit 5'\n",
    # One argument, whatever is in it; then the name of the script, then the arguments.
    "#!/bin/echo one argument  with   blanks\t \n",
    "#!/bin/echo",
    "#!/bin/echo -n\0 not seen\n",
    # No #! line of the kernel's: the shell's.
    'echo "$0" "$@"; exit 9\n',
    'true\n#!/bin/false\nexec echo "$0" "$@"\n',
    "",
    "#!\nexit 4\n",
    "#!  \t\nexit 5\n",
    "# comment\nkill -9 $$\n",
    f"#!/bin/echo{' ' * 300}late\n",
    f"#!/bin/echo {'x' * 300}\n",
)


@pytest.mark.parametrize("content", FIRST_LINES, ids=lambda text: repr(text[:30]))
def test_scripts_run_as_by_the_kernel(content: str, tmp_path: Path) -> None:
    path = executable(tmp_path / "script", content)
    facts = check_program(str(path))
    assert facts.file == str(path) == facts.scripts[0]
    assert facts.path.startswith(("/bin/", "/usr/bin/"))
    alike([str(path), "first", "", "third argument"])


def test_without_arguments_nothing_is_dropped(tmp_path: Path) -> None:
    path = executable(tmp_path / "wrapper.sh", "#!/bin/sh\necho it ran; exit 42\n")
    found = supervised([str(path)])
    assert (found.stdout, found.returncode) == (b"it ran\n", 42)


def test_scripts_interpret_scripts(tmp_path: Path) -> None:
    """Five of them, and the kernel refuses a sixth."""
    path = executable(tmp_path / "0", "#!/bin/echo innermost\n")
    for number in range(1, 5):
        path = executable(tmp_path / str(number), f"#!{path} argument of {number}\n")
    assert len(check_program(str(path)).scripts) == 5
    alike([str(path), "last"])
    path = executable(tmp_path / "5", f"#!{path}\n")
    assert refusal(path) == "PROGRAM: more than 5 scripts interpret each other"
    assert b"Too many levels" in env([str(path)]).stderr


def test_unknown_interpreter_makes_the_outermost_file_a_shell_script(tmp_path: Path) -> None:
    inner = executable(tmp_path / "inner", "echo the inner one\n")
    outer = executable(tmp_path / "outer", f"#!{inner}\necho the outer one\n")
    assert check_program(str(outer)).scripts == (str(outer),)
    assert alike([str(outer)]).stdout == b"the outer one\n"


def test_relative_interpreter_is_one_of_the_current_directory(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        executable(tmp_path / name / "echo", f"#!/bin/echo {name}\n")
    executable(tmp_path / "there" / "script", "#!./echo\n")
    assert alike(["../there/script", "x"], cwd=tmp_path / "here").stdout.startswith(b"here ")


@has_python
def test_entry_points_and_shims(tmp_path: Path) -> None:
    """A console script of a virtual environment, by a relative path and by PATH; a pyenv shim."""
    (tmp_path / "bin").mkdir()
    lines(tmp_path / "bin", f"#!{PYTHON} -I", "entry")
    executable(tmp_path / "bin" / "shim", f'#!/usr/bin/env bash\nexec {PYTHON} -c "$@"\n')
    environ = dict(os.environ, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    for command in (["bin/entry", "a b"], ["./bin/entry"], ["entry", "c"]):
        alike(command, cwd=tmp_path, env=environ)
    alike(["shim", SHOWS, "shimmed"], env=environ)


def test_name_of_a_program_stays_as_it_was_typed(tmp_path: Path) -> None:
    """argv[0] of an ELF program is the word; a script's interpreter gets the path found."""
    environ = dict(os.environ, PATH=f"{tmp_path}::/bin:/usr/bin")
    (tmp_path / "named").symlink_to("/bin/sh")
    assert alike(["named", "-c", "echo $0"], env=environ).stdout == b"named\n"
    executable(tmp_path / "script", '#!/bin/sh\necho "$0"\n')
    alike(["script"], env=environ)
    inner = tmp_path / "inner"
    inner.mkdir()
    executable(inner / "only-here", '#!/bin/sh\necho "$0"\n')
    alike(["only-here"], env=environ, cwd=inner)


def test_search_of_path_goes_on_where_execvp_does(tmp_path: Path) -> None:
    """A script without its interpreter is ENOENT: the next entry of PATH is tried."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    executable(tmp_path / "a" / "tool", "#!/no/such/interpreter\n")
    (tmp_path / "b" / "tool").write_text("#!/bin/sh\n")
    executable(tmp_path / "c" / "tool", "#!/bin/echo from c\n")
    environ = dict(os.environ, PATH=":".join(str(tmp_path / x) for x in "abc"))
    assert check_program("tool", environ).file == str(tmp_path / "c" / "tool")
    path = Path(tmp_path / "c" / "tool")
    path.unlink()
    said = refusal("tool", PATH=environ["PATH"])
    assert said == f"{tmp_path}/a/PROGRAM: its interpreter /no/such/interpreter: {MISSING}"


MISSING = "no such file or directory"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("#!/no/such/interpreter -x\n", f"its interpreter /no/such/interpreter: {MISSING}"),
        ("#!/dev/null\n", "its interpreter /dev/null: is not a regular file"),
        ("#!/tmp\n", "its interpreter /tmp: is a directory"),
        ("#!", "its #! line names no interpreter"),
        ("#! \0/bin/sh\n", "its #! line names no interpreter"),
    ],
)
def test_scripts_that_lead_nowhere(content: str, why: str, tmp_path: Path) -> None:
    path = executable(tmp_path / "script", content)
    assert refusal(path) == f"PROGRAM: {why}"
    found = supervised([str(path)])
    assert found.returncode == env([str(path)]).returncode, "the kernel agrees"
    assert found.stderr.decode() == f"softsgx: run: {path}: {why}\n"


def test_interpreter_must_be_a_program_that_can_be_supervised(
    program: Path, tmp_path: Path
) -> None:
    """One line for the whole chain: which script, which interpreter, why."""
    foreign = changed(tmp_path / "foreign", program, (18, "<H", 183))
    inner = executable(tmp_path / "inner", f"#!{foreign}\n")
    outer = executable(tmp_path / "outer", f"#!{inner}\n")
    said = f"{inner}: its interpreter {foreign}: program for AArch64; {ONLY}"
    with pytest.raises(RunnerError) as refused:
        check_program(str(outer))
    assert str(refused.value) == said
    setuid = executable(tmp_path / "setuid", program.read_bytes())
    setuid.chmod(0o4755)
    script = executable(tmp_path / "script", f"#!{setuid}\n")
    assert "setuid program" in refusal(script)
    # The kernel ignores the setuid bit of a script.
    script = executable(tmp_path / "privileged", "#!/bin/echo\n")
    script.chmod(0o4755)
    alike([str(script)])


def test_registered_formats_come_first(program: Path, tmp_path: Path) -> None:
    """binfmt_misc: by magic and mask, by extension; disabled ones and those with F."""
    misc = tmp_path / "binfmt_misc"
    misc.mkdir()
    (misc / "status").write_text("enabled\n")
    (misc / "register").write_text("")
    entry = "{}\ninterpreter {}\nflags: {}\n{}\n"
    magic = "offset 4\nmagic 0201000001\nmask ff000000ff"
    (misc / "qemu").write_text(entry.format("enabled", "/bin/echo", "PF", magic))
    (misc / "other").write_text(entry.format("disabled", "/bin/false", "", "extension .pyc"))
    (misc / "pyc").write_text(entry.format("enabled", "/bin/sh", "", "extension .pyc"))
    (misc / "gone").write_text(entry.format("enabled", "/not/here", "F", "extension .gone"))
    foreign = changed(tmp_path / "foreign", program, (8, "<B", 1))
    for path, ends in (
        (foreign, "/bin/echo"),
        (executable(tmp_path / "x.pyc", "\x01\x02"), "/bin/sh"),
        (executable(tmp_path / "x.gone", "#!/bin/echo\n"), "/not/here"),
        (program, str(program)),
        (executable(tmp_path / "pyc", "#!/bin/echo\n"), "/bin/echo"),
    ):
        assert check_program(str(path), {}, misc).path == ends, path
    (misc / "status").write_text("disabled\n")
    assert check_program(str(tmp_path / "x.pyc"), {}, misc).path == "/bin/sh"
    assert check_program(str(foreign), {}, misc).path == str(foreign)
