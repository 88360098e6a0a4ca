"""A short run of fuzz.py, in a process of its own; `make fuzz-run` is the long one."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from softsgx.runner.options import SUPERVISORS
from tests.patience import LIMIT_S
from tests.runner.gcc import needs_gcc

OPERATIONS = 2500


@needs_gcc
@pytest.mark.parametrize("supervisor", SUPERVISORS)
@pytest.mark.parametrize(("seed", "engine"), [(1, "unicorn"), (2, "unicorn"), (3, "native")])
def test_nothing_a_program_does_breaks_the_supervisor_or_the_model(
    seed: int, engine: str, supervisor: str
) -> None:
    command = ["-m", "tests.runner.fuzz", "--operations", str(OPERATIONS), "--seed", str(seed)]
    command += ["--engine", engine, "--supervisor", supervisor]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert f"seed {seed}: {OPERATIONS} operations" in said
    # It was not spent on what cannot be reached: all kinds of operations, touches of both outcomes.
    counts = re.search(r"^ok ([\d ]+) touched (\d+) refused (\d+)", said, re.MULTILINE)
    assert counts is not None, said
    assert all(int(n) for n in counts[1].split()), said
    assert int(counts[2]) > 20, said
    assert int(counts[3]) > 20, said
