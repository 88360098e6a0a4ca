"""`--sgxs-out`: the streams of what real programs built, in the files that are named at the end."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from softsgx.image import sgxs
from softsgx.image.difference import compare
from softsgx.image.image import ALL_CHUNKS, NO_CHUNKS
from softsgx.spec.epcm import REG, R, W
from tests.runner.programs import ENGINES, PROGRAMS, Program, Workshop, supervised

WRITTEN = re.compile(
    r"softsgx: run: --sgxs-out: (\S+): enclave (\d+), (\d+) pages, MRENCLAVE (\w+), EINIT (.*)"
)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    workshop = Workshop(tmp_path_factory.mktemp("built"))
    return workshop.command(Program.read(PROGRAMS / "built.c"))


def run(*options: str, program: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return supervised(program, *options, cwd=cwd)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_enclave_is_written_as_it_was_built(
    engine: str, command: list[str], tmp_path: Path
) -> None:
    """Of four enclaves two are what was signed, one is refused, and one was never finished."""
    done = run("--engine", engine, "--sgxs-out", "out.sgxs", program=command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = WRITTEN.findall(done.stderr)
    assert [(line[0], line[4]) for line in lines] == [
        ("out.sgxs", "accepted"),
        ("out.sgxs.2", "refused: SGX_INVALID_MEASUREMENT (EINIT.13)"),
        ("out.sgxs.3", "not executed"),
        ("out.sgxs.4", "accepted"),
    ]
    signed = Path(command[1]).read_bytes()
    assert (tmp_path / "out.sgxs").read_bytes() == signed
    assert (tmp_path / "out.sgxs.4").read_bytes() == signed
    for name, _, pages, mrenclave, _ in lines:
        image = sgxs.read((tmp_path / name).read_bytes())
        assert image.mrenclave().hex() == mrenclave
        assert image.page_count() == int(pages)
    more = compare(sgxs.read(signed), sgxs.read((tmp_path / "out.sgxs.2").read_bytes()))
    (page,) = more.pages
    assert (page.a, page.b) == (None, (REG | R | W, NO_CHUNKS))
    assert (more.secs, more.moved, more.contents) == ((), (), ())
    killed = sgxs.read((tmp_path / "out.sgxs.3").read_bytes())
    assert [(page.offset, page.flags, page.chunks) for page in killed.pages()] == [
        (0x3000, REG | R | W, ALL_CHUNKS),
        (0x1000, REG | R, ALL_CHUNKS),
    ]
    last = list(sgxs.read((tmp_path / "out.sgxs.2").read_bytes()).pages())[-1]
    assert last.content[300:304] == b"host"


def test_what_was_not_measured_is_in_the_stream(command: list[str], tmp_path: Path) -> None:
    """A stream that is loaded from a stream is the same again."""
    run("--sgxs-out", "first", program=command, cwd=tmp_path)
    again = [command[0], "first.2", *command[2:]]
    done = run("--sgxs-out", "second", program=again, cwd=tmp_path)
    assert done.returncode == 1
    assert (tmp_path / "second").read_bytes() == (tmp_path / "first.2").read_bytes()


def test_no_enclave_no_file(tmp_path: Path) -> None:
    done = run("--sgxs-out", "out", program=["true"], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        0,
        "softsgx: run: --sgxs-out: no enclave was created, so out is not written\n",
    )
    assert not list(tmp_path.iterdir())


def test_no_input_is_written_over(command: list[str], tmp_path: Path) -> None:
    """Neither at the start nor, under the name of a later enclave, when it is created; by no name
    of the file."""
    before = [Path(name).read_bytes() for name in command]
    link, hard = tmp_path / "link", tmp_path / "hard"
    link.symlink_to(command[2])
    os.link(command[1], hard)
    for name in (command[1], str(link), str(hard), command[0], "."):
        done = run("--sgxs-out", name, program=command, cwd=tmp_path)
        assert done.returncode not in (0, 1)
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
    os.link(command[2], tmp_path / "out.2")
    done = run("--sgxs-out", "out", program=command, cwd=tmp_path)
    assert done.returncode == 0
    second = next(line for line in done.stderr.splitlines() if "out.2: " in line)
    assert second.endswith("; not complete: an argument of the program, so it was left as it is")
    assert [Path(name).read_bytes() for name in command] == before


def test_a_device_and_a_name_of_nothing_are_no_inputs(command: list[str], tmp_path: Path) -> None:
    """Only what exists and can be destroyed. The story: /dev/null was taken for an input."""
    for name in ("/dev/null", "new"):
        done = run("--sgxs-out", name, program=[*command, name], cwd=tmp_path)
        assert "EINIT accepted\n" in done.stderr, done.stderr
    assert (tmp_path / "new").stat().st_size


def test_a_full_disk_stops_the_stream_and_not_the_program(
    command: list[str], tmp_path: Path
) -> None:
    done = run("--sgxs-out", "/dev/full", program=command, cwd=tmp_path)
    assert done.returncode == 0
    first, second = done.stderr.splitlines()[:2]
    assert first.endswith("EINIT accepted; not complete: No space left on device")
    assert second.startswith("softsgx: run: --sgxs-out: /dev/full: enclave ")


def test_nothing_is_made_beside_a_device(command: list[str], tmp_path: Path) -> None:
    """The story: the suite, run as root, left /dev/null.2 to /dev/null.4 and the like behind."""
    (tmp_path / "out").symlink_to("/dev/null")
    done = run("--sgxs-out", "out", program=command, cwd=tmp_path)
    assert done.stderr.count("softsgx: run: --sgxs-out: out: enclave ") == 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_interpreter_of_a_script_is_no_file_for_a_later_enclave(
    command: list[str], tmp_path: Path
) -> None:
    """The story: --trace knew all files of a program, the later streams only its words."""
    shell = tmp_path / "out.2"
    shell.write_bytes(Path("/bin/sh").read_bytes())
    shell.chmod(0o755)
    script = tmp_path / "script"
    script.write_text(f'#!{shell}\nexec "$@"\n')
    script.chmod(0o755)
    done = run("--sgxs-out", "out", program=[str(script), *command], cwd=tmp_path)
    assert "out.2: " in done.stderr, done.stderr
    assert shell.read_bytes() == Path("/bin/sh").read_bytes()
