"""Programs under the stub without a tracer do what they do without it."""

import subprocess
from pathlib import Path
from typing import Final

import pytest

from softsgx.runner.inserted import systrap, systrap_code
from tests.runner.gcc import needs_gcc
from tests.runner.inserted.systrapped import HERE, Systrap, build, natively
from tools import systrap_image

pytestmark = needs_gcc

PYTHON: Final = """
import signal, subprocess, threading
print(subprocess.run(["echo", "x"], capture_output=True).stdout)
thread = threading.Thread(target=print, args=(5,))
thread.start()
thread.join()
signal.signal(signal.SIGUSR1, lambda *_: print("caught"))
signal.raise_signal(signal.SIGUSR1)
"""
COMMANDS: Final = {
    "true": ("/bin/true",),
    "exit code": ("sh", "-c", "exit 3"),
    "pipes": ("bash", "-c", "ls / | wc -l; (exit 3); echo $?; echo abc | (read x; echo $x)"),
    "jobs": ("bash", "-c", "sleep 0.05 & wait; echo $?; sleep 9 & kill $!; wait $!; echo $?"),
    "traps": ("bash", "-c", "trap 'echo usr1' USR1; kill -USR1 $$; trap '' INT; kill -INT $$"),
    "deaths": ("bash", "-c", "sh -c 'kill -SEGV $$'; echo $?; sh -c 'kill -TERM $$'; echo $?"),
    "python": ("/usr/bin/python3", "-c", PYTHON),
}


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Systrap:
    return build(tmp_path_factory.mktemp("systrap"))


@pytest.mark.parametrize("stops", [{}, {"HARNESS_OPENS": "1"}, {"HARNESS_EXITS": "1"}], ids=str)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_does_what_it_does_without_the_stub(
    stub: Systrap, name: str, stops: dict[str, str]
) -> None:
    """Also if calls are reported, made for the program, and reported again when they are done."""
    both = {"HARNESS_OPENS": "1", **stops} if stops else {}
    command = COMMANDS[name]
    assert stub.run(*command, **both)[:2] == natively(*command)[:2]


@pytest.mark.parametrize("name", ["threads", "signals", "waits"])
def test_a_program_prints_what_it_prints_without_the_stub(
    stub: Systrap, tmp_path: Path, name: str
) -> None:
    program = tmp_path / name
    source = HERE / f"systrap_{name}.c"
    subprocess.run(["gcc", "-O1", "-pthread", "-o", program, source], check=True)
    expected = natively(program)
    assert expected.code == 0
    assert stub.run(program)[:2] == expected[:2]


def test_a_program_that_dies_by_a_fault_dies_by_it(stub: Systrap) -> None:
    code = "import ctypes; ctypes.string_at(8)"
    assert stub.run("/usr/bin/python3", "-c", code).code == 128 + 11


def test_the_committed_image_is_what_the_compiler_makes() -> None:
    if systrap_image.compiler_version() != systrap_code.COMPILER:
        pytest.skip("another compiler")
    linked = systrap_image.link()
    assert systrap.image().startswith(linked.image), "run make asm"
    assert linked.labels == systrap_code.LABELS, "run make asm"
