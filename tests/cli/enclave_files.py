"""Files for the enclave commands, always with the same bytes, and a way to call the commands."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest

from softsgx.cli.main import main
from softsgx.cpu.signature import development_key
from softsgx.image import sgxs
from softsgx.image.sigstruct import sign
from tests.image.builders import (
    DATA,
    ET_EXEC,
    PF_R,
    PF_W,
    TEXT,
    Seg,
    elf_file,
    small_image,
    tcs_page,
)

READY = Seg(0x0, tcs_page(OSSA=0x3000, OENTRY=0x1000), PF_R | PF_W)
HIGH = [segment._replace(vaddr=0x40_0000 + segment.vaddr) for segment in (TEXT, DATA)]


@cache
def contents() -> dict[str, bytes]:
    """Name and bytes of each file."""
    return {
        "app": elf_file(Seg(0, b"header", PF_R), TEXT, DATA, e_entry=0x1010),
        "exec": elf_file(*HIGH, e_type=ET_EXEC, e_entry=0x40_1000),
        "selftest": elf_file(READY, TEXT, DATA),
        "app.sgxs": sgxs.write(small_image()),
        "app.sig": sign(small_image(), development_key()).pack(),
        "key.pem": files("softsgx.cpu").joinpath("development-key.pem").read_bytes(),
    }


def write_all(directory: Path) -> None:
    """All of them into a directory."""
    for name, data in contents().items():
        (directory / name).write_bytes(data)


class Done(NamedTuple):
    """The exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str


class Shell:
    """A directory with all files, and `softsgx` in it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self.capsys = directory, capsys

    def __call__(self, *argv: str) -> Done:
        self.capsys.readouterr()
        code = main(argv)
        return Done(code, *self.capsys.readouterr())

    def refusal(self, *argv: str) -> str:
        """The one line of a command that ends with exit code 2 and prints nothing else."""
        done = self(*argv)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
        return done.err
