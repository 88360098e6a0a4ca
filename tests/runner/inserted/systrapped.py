"""Programs under systrap_harness.c: the stub without a tracer, with the simplest of supervisors."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from softsgx.runner.inserted import systrap
from softsgx.runner.inserted.systrap_code import LABELS
from tests.patience import LIMIT_S
from tools.systrap_header import numbers

HERE: Final = Path(__file__).parent


class Outcome(NamedTuple):
    """How a program ended, and what it and the harness printed."""

    code: int
    out: str
    err: str


def _harness_header() -> str:
    """Numbers and labels, but nothing that the C library's headers define."""
    names = (
        "SYSTRAP_",
        "GATE_",
        "RECORD",
        "SHARED_",
        "TABLE_",
        "KIND_",
        "COMMAND_",
        "BLOCK",
        "INTERRUPT",
    )
    chosen = {
        name: value
        for name, value in numbers().items()
        if name.startswith(names) or name in ("IDLE", "REQUEST", "REPLY", "TRAP_DATA")
    }
    labels = {f"LABEL_{name}": systrap.address(name) for name in LABELS}
    lines = [f"#define {name} {value:#x}" for name, value in {**chosen, **labels}.items()]
    return "\n".join(["#include <stdint.h>", *lines, ""])


class Systrap(NamedTuple):
    """The compiled harness and the image that it maps."""

    harness: Path
    image: Path

    def run(self, *command: str | Path, **environment: str) -> Outcome:
        """Run a program under the harness; HARNESS_... as systrap_harness.c says."""
        return _outcome([self.harness, self.image, *command], environment)


def natively(*command: str | Path) -> Outcome:
    """Run a program without the harness: what it should print."""
    return _outcome(command, {})


def _outcome(command: Sequence[str | Path], environment: dict[str, str]) -> Outcome:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        env={**os.environ, **environment},
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def compile_here(directory: Path, source: str) -> Path:
    """Compile a source of this directory that uses the stub's numbers."""
    (directory / "harness.h").write_text(_harness_header(), encoding="utf-8")
    program = directory / Path(source).stem
    command = ["gcc", "-O2", "-pthread", f"-I{directory}", "-o", str(program)]
    subprocess.run([*command, str(HERE / source)], check=True)
    return program


def build(directory: Path) -> Systrap:
    """Compile the harness."""
    image = directory / "image"
    image.write_bytes(systrap.image())
    return Systrap(compile_here(directory, "systrap_harness.c"), image)
