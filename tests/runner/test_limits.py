"""Under resource limits: one line with the remedy, from doctor and at the start of a run."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tests.patience import LIMIT_S

GIB = 1 << 30


def limited(limit: int, size: int, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "softsgx", *command],
        preexec_fn=lambda: resource.setrlimit(limit, (size, size)),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_the_emulator_has_no_room() -> None:
    """The story: Unicorn ended the supervisor with its own line and code 1; doctor had said yes."""
    done = limited(resource.RLIMIT_AS, GIB // 2, "run", "--", "/bin/true")
    assert done.returncode == 125
    assert done.stderr == (
        "softsgx: run: address space: mmap at 0x7e8000000000: Cannot allocate memory: "
        "ulimit -v unlimited\n"
    )
    found = limited(resource.RLIMIT_AS, GIB // 2, "doctor")
    assert found.returncode == 1
    assert found.stdout.endswith("programs cannot run here: address space\n")


def test_epc_has_no_room() -> None:
    """The story: a traceback."""
    done = limited(resource.RLIMIT_AS, 2 * GIB, "run", "--epc", "8G", "--", "/bin/true")
    assert done.returncode == 125
    assert done.stderr.startswith("softsgx: run: --epc: memory for an EPC of 8G cannot be mapped: ")
    assert done.stderr.count("\n") == 1


def test_descriptors_do_not_suffice() -> None:
    """The story: a module imported in the middle of an ioctl could not be opened: a traceback."""
    done = limited(resource.RLIMIT_NOFILE, 40, "run", "--", "/bin/true")
    said = "softsgx: run: descriptors: Too many open files: ulimit -n 1024"
    said += "; in a container: --ulimit nofile=1024\n"
    assert (done.returncode, done.stderr) == (125, said)
    found = limited(resource.RLIMIT_NOFILE, 40, "doctor")
    assert found.returncode == 1
    assert found.stdout.endswith("programs cannot run here: descriptors\n")


@pytest.mark.parametrize("command", [["doctor"], ["run", "--", "/bin/true"]])
def test_files_may_not_grow(command: list[str]) -> None:
    done = limited(resource.RLIMIT_FSIZE, 0, *command)
    assert done.returncode == (1 if command[0] == "doctor" else 125)
    said = done.stdout + done.stderr
    assert "ulimit -f unlimited" in said
    assert "memfd_create" not in said
