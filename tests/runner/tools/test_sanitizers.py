"""Hosts built with sanitizers: each reports what it should, beside calls of an enclave.

The story: LeakSanitizer hung, because its CLONE_UNTRACED child met a filter without its tracer, and
ThreadSanitizer refused to start, because of where the supervisor's memory was mapped.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runner.gcc import needs_gcc
from tests.runner.programs import ENGINES, Program, Workshop
from tests.runner.tools.running import HERE, run, supervised

SANITIZED = Program.read(HERE / "sanitized.c")
REPORTS = {
    "leak": ("leak", 23, "LeakSanitizer: detected memory leaks"),
    "address": ("leak", 1, "LeakSanitizer: detected memory leaks"),
    "thread": ("race", 66, "ThreadSanitizer: data race"),
    "undefined": ("overflow", 0, "runtime error: signed integer overflow"),
}
CASES = [pytest.param(e, s, id=f"{e}-{s}") for e in ENGINES for s in REPORTS]


def built(workshop: Workshop, *options: str) -> list[str]:
    """The program with a sanitizer."""
    name = "-".join(options) or "plain"
    directory: Path = workshop.directory / name
    directory.mkdir(exist_ok=True)
    program = replace(SANITIZED, cc=("-O1", "-g", *options))
    return Workshop(directory).command(program)


@needs_gcc
@pytest.mark.parametrize(("engine", "sanitizer"), CASES)
def test_the_bug_is_reported(engine: str, sanitizer: str, workshop: Workshop) -> None:
    bug, code, line = REPORTS[sanitizer]
    try:
        command = built(workshop, f"-fsanitize={sanitizer}")
    except subprocess.CalledProcessError:
        pytest.skip(f"the compiler has no -fsanitize={sanitizer}")
    done = run(*supervised(*command, bug, engine=engine))
    assert f"ok {bug}" in done.stdout, done.stdout
    assert line in done.stdout, done.stdout
    assert done.returncode == code, done.stdout
