"""`softsgx show`, and what all enclave commands do with standard output."""

import subprocess
import sys
from pathlib import Path

import pytest

from softsgx.cli.errors import EXIT_BAD_INPUT, EXIT_READER_GONE
from softsgx.image import sgxs
from tests.cli import snapshots
from tests.cli.enclave_files import Shell, contents
from tests.image.builders import poke, small_image


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("show-elf.txt", ["app", "--threads", "2"]),
        ("show-exec.txt", ["exec"]),
        ("show-selftest.txt", ["selftest", "--layout", "selftest"]),
        ("show-sgxs.txt", ["app.sgxs"]),
        ("show-sigstruct.txt", ["app.sig"]),
    ],
)
def test_output(name: str, argv: list[str], softsgx: Shell) -> None:
    done = softsgx("show", *argv)
    assert (done.code, done.err) == (0, "")
    snapshots.check(name, done.out)


def test_bad_sigstruct_is_a_finding(softsgx: Shell) -> None:
    raw = contents()["app.sig"]
    bits = poke(poke(raw, 928, 0x8F7, 8), 936, 0xFF, 8)
    (softsgx.directory / "bad.sig").write_bytes(poke(bits, 20, 0x20240229, 4))
    done = softsgx("show", "bad.sig")
    assert (done.code, done.err) == (1, "")
    snapshots.check("show-bad-sigstruct.txt", done.out)


def test_stream_that_is_not_canonical(softsgx: Shell) -> None:
    segments = small_image().segments
    turned = type(small_image())(size=0x8000, segments=(*segments[1:], segments[0]))
    (softsgx.directory / "turned").write_bytes(sgxs.write(turned))
    first, *_ = softsgx("show", "turned").out.splitlines()
    assert first == "enclave from SGXS, not canonical: offsets do not ascend"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("app", 40), "ELF header at byte 0: needs 64 bytes, but the file ends at byte 40"),
        (("app.sgxs", 100), "record 1 at byte 64: the stream ends after 36 of 64 bytes"),
        (("app.sig", 1807), "SIGSTRUCT: 1807 bytes, 1808 are needed"),
        (("app", 0), "content: begins with nothing: neither ELF, SGXS nor SIGSTRUCT"),
    ],
)
def test_cut_files(damage: tuple[str, int], message: str, softsgx: Shell) -> None:
    name, length = damage
    (softsgx.directory / "cut").write_bytes(contents()[name][:length])
    assert softsgx.refusal("show", "cut") == f"softsgx: show: cut: {message}\n"


def test_sigstruct_has_no_layout(softsgx: Shell) -> None:
    line = softsgx.refusal("show", "app.sig", "--nssa", "1")
    assert line == "softsgx: show: app.sig: layout: a SIGSTRUCT has no pages to lay out\n"


def process(directory: Path, *argv: str, stdout: int) -> tuple[int, str]:
    """`softsgx` as a process; exit code and standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "softsgx", *argv],
        cwd=directory,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("argv", [["show", "app"], ["measure", "app"], ["show", "app.sig"]])
def test_reader_that_is_gone_is_quiet_and_full_disk_one_line(
    argv: list[str], softsgx: Shell
) -> None:
    """A reader that is gone was bad input, exit code 2, with a line."""
    import os

    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert process(softsgx.directory, *argv, stdout=writer) == (EXIT_READER_GONE, "")
    finally:
        os.close(writer)
    with open("/dev/full", "wb") as full:
        assert process(softsgx.directory, *argv, stdout=full.fileno()) == (
            EXIT_BAD_INPUT,
            f"softsgx: {argv[0]}: standard output: No space left on device\n",
        )
