"""Enclaves in C for scenarios, built with gcc."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.runner.programs import ROOT

EXAMPLE = ROOT / "examples" / "explored"
FLAGS = (
    *("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-nostdlib", "-static-pie", "-fpie"),
    *("-fno-stack-protector", "-fcf-protection=none"),
    "-Wl,-z,max-page-size=4096,-z,noexecstack",
)


def build(source: Path, output: Path, *flags: str) -> Path:
    """Build an enclave; entry.h of the example can be included."""
    command = ["gcc", *FLAGS, *flags, f"-I{EXAMPLE}", "-o", str(output), str(source)]
    subprocess.run(command, check=True)
    return output
