"""Programs under the stub without a tracer do what they do without it."""

import subprocess
from pathlib import Path
from typing import Final

import pytest

from softsgx.runner.inserted import systrap, systrap_code
from softsgx.runner.inserted.systrap_layout import (
    BLOCK_INT80,
    BLOCK_STRIDE,
    RECORD_AT,
    RECORD_STRIDE,
    RECORDS,
    RECORDS_MAX,
    SYSTRAP_BLOCKS,
    SYSTRAP_CODE,
)
from tests.patience import until
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


def _compiled(directory: Path, name: str) -> Path:
    program = directory / name
    source = HERE / f"systrap_{name}.c"
    subprocess.run(["gcc", "-O1", "-pthread", "-o", program, source], check=True)
    return program


@pytest.mark.parametrize("name", ["threads", "signals", "waits", "children", "storm"])
def test_a_program_prints_what_it_prints_without_the_stub(
    stub: Systrap, tmp_path: Path, name: str
) -> None:
    program = _compiled(tmp_path, name)
    expected = natively(program)
    assert expected.code == 0
    assert stub.run(program)[:2] == expected[:2]


@pytest.mark.parametrize("stops", [{}, {"HARNESS_OPENS": "1", "HARNESS_EXITS": "1"}], ids=str)
def test_interrupts_of_the_supervisor_are_not_seen(
    stub: Systrap, tmp_path: Path, stops: dict[str, str]
) -> None:
    """They once came as SIGSYS, which the kernel keeps once for a thread.

    One that was pending swallowed the SIGSYS of a call that trapped at that moment: the program
    went on with the number of the call as its result, and died of SIGSEGV soon.
    """
    program = _compiled(tmp_path, "storm")
    expected = natively(program)
    for _ in range(5):
        assert stub.run(program, HARNESS_STORM="100", **stops)[:2] == expected[:2]


@pytest.mark.parametrize("ending", [{}, {"HARNESS_ENDING": "1"}], ids=str)
def test_a_parent_waits_until_its_child_is_registered_or_dead(
    stub: Systrap, tmp_path: Path, ending: dict[str, str]
) -> None:
    program = _compiled(tmp_path, "children")
    assert stub.run(program, HARNESS_ENCLAVE="1", **ending)[:2] == natively(program)[:2]


@pytest.mark.parametrize("name", ["signals", "children", "storm"])
def test_what_a_held_thread_can_be_told(stub: Systrap, tmp_path: Path, name: str) -> None:
    """To make a call, to stop at the first instruction of a handler, and to step from there."""
    program = _compiled(tmp_path, name)
    tricks = {"HARNESS_TRICKS": "1", "HARNESS_ENCLAVE": "1", "HARNESS_ENDING": "1"}
    got = stub.run(program, HARNESS_OPENS="1", HARNESS_EXITS="1", **tricks)
    assert got == natively(program)


def test_a_call_that_is_repeated_is_interrupted_by_a_handler(stub: Systrap, tmp_path: Path) -> None:
    program = _compiled(tmp_path, "restart")
    assert stub.run(program, HARNESS_OPENS="1", HARNESS_RESTART="1").out.splitlines() == [
        "interrupted: -1 errno 4  seen 10",
        "restarted: 3 errno 0 abc seen 10",
        "ignored: 3 errno 0 def seen 0",
        "interrupted: -1 errno 4  seen 10",
    ]


@pytest.mark.parametrize("opens", [{}, {"HARNESS_OPENS": "1"}], ids=str)
def test_filters_of_the_program_trap_its_calls(
    stub: Systrap, tmp_path: Path, opens: dict[str, str]
) -> None:
    program = _compiled(tmp_path, "filters")
    expected = natively(program)
    assert "errno 9" in expected.out
    assert stub.run(program, **opens)[:2] == expected[:2]


def test_a_program_dies_with_its_supervisor(stub: Systrap) -> None:
    """The harness kills itself at the first report of an open of /etc/hostname's shell."""
    died = stub.run("sh", "-c", "echo $$; exec 3</etc/hostname", HARNESS_DIE="1", HARNESS_OPENS="1")
    assert died.code == -9
    pid = int(died.out)
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in _state(pid), "the end of the program")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1]
    except FileNotFoundError:
        return "Z"


def test_a_program_that_dies_by_a_fault_dies_by_it(stub: Systrap) -> None:
    code = "import ctypes; ctypes.string_at(8)"
    assert stub.run("/usr/bin/python3", "-c", code).code == 128 + 11


def test_the_committed_image_is_what_the_compiler_makes() -> None:
    if systrap_image.compiler_version() != systrap_code.COMPILER:
        pytest.skip("another compiler")
    linked = systrap_image.link()
    assert systrap.image().startswith(linked.image), "run make asm"
    assert linked.labels == systrap_code.LABELS, "run make asm"


@pytest.mark.parametrize("record", [0, 1, 255, 256, RECORDS_MAX - 1])
def test_a_block_goes_on_where_its_record_says(record: int) -> None:
    """Two ways: syscall; mov rcx, [rip + distance]; jmp rcx, and int 0x80; jmp [rip + distance].

    The word is NEXT of its own record.
    """
    start = SYSTRAP_BLOCKS + record * BLOCK_STRIDE
    block = systrap.image()[start - SYSTRAP_CODE :][:BLOCK_STRIDE]
    call, distance, jump = block[:5], int.from_bytes(block[5:9], "little", signed=True), block[9:11]
    assert (call, jump) == (bytes.fromhex("0f05488b0d"), bytes.fromhex("ffe1"))
    word = RECORDS + record * RECORD_STRIDE + RECORD_AT["NEXT"]
    assert start + 9 + distance == word
    at = BLOCK_INT80
    assert block[at : at + 4] == bytes.fromhex("cd80ff25")
    assert start + at + 8 + int.from_bytes(block[at + 4 : at + 8], "little", signed=True) == word
    assert set(block[11:at] + block[at + 8 :]) == {0xCC}
