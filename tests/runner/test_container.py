"""`run` and `doctor` in a container: namespaces, a read-only root, the default seccomp profile.

The container is bubblewrap's, with the filter of container_profile.py handed to it as an engine
does. Where bubblewrap is not there, or may not make namespaces, test_denied.py has the same filter.

The story: where /proc was not mounted, `softsgx run` hung; where it belonged to another pid
namespace, its numbers meant other processes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.patience import LIMIT_S
from tests.runner.container_profile import MOBY
from tests.runner.denying import Denied
from tests.runner.programs import PROGRAMS, ROOT, Program, Workshop

PROC = ("--proc", "/proc")
NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net")
# The directories of root are hidden, except the one where this interpreter is.
PLACES = sorted({str(ROOT), sys.prefix, sys.base_prefix, str(Path(sys.executable).parent)})
USERS = [pytest.param(0, id="root"), pytest.param(65534, id="nobody")]


def contained(
    *command: str,
    uid: int = 0,
    proc: Sequence[str] = PROC,
    denied: Denied = MOBY,
    see: Sequence[Path] = (),
) -> subprocess.CompletedProcess[str]:
    """A command in a container of its own whose only writable place is /dev/shm."""
    places = [*PLACES, *map(str, see)]
    with tempfile.TemporaryFile() as code:
        code.write(denied.code())
        code.seek(0)
        return subprocess.run(
            [
                *("bwrap", *NAMESPACES, "--uid", str(uid), "--gid", str(uid), "--die-with-parent"),
                *("--ro-bind", "/", "/", "--dev", "/dev", "--tmpfs", "/root", "--tmpfs", "/tmp"),
                *(word for place in places for word in ("--ro-bind", place, place)),
                *(*proc, "--chdir", str(ROOT), "--seccomp", str(code.fileno())),
                *("--", sys.executable, "-B", *command),
            ],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            pass_fds=[code.fileno()],
            env={"PATH": os.environ["PATH"], "HOME": "/root"},
        )


@cache
def missing() -> str:
    """Why there are no containers here; empty if there are."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (test_denied.py has the filter alone)"
    done = contained("-c", "pass")
    return f"no containers here: {done.stderr.strip()[-200:]}" if done.returncode else ""


@pytest.fixture(autouse=True)
def containers() -> None:
    if missing():
        pytest.skip(missing())


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with tempfile.TemporaryDirectory(prefix="softsgx-container-") as name:
        Path(name).chmod(0o755)
        yield Workshop(Path(name))


def run(
    workshop: Workshop, command: Sequence[str], *options: str, uid: int = 0, denied: Denied = MOBY
) -> subprocess.CompletedProcess[str]:
    words = ("-m", "softsgx", "run", *options, "--", *command)
    done = contained(*words, uid=uid, denied=denied, see=[workshop.directory])
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}{done.stderr}"
    return done


@pytest.mark.parametrize("uid", USERS)
@pytest.mark.parametrize("engine", ["unicorn", "native"])
def test_demo_runs_under_the_default_profile(workshop: Workshop, engine: str, uid: int) -> None:
    done = run(workshop, workshop.example(), "--engine", engine, "--stats", uid=uid)
    assert done.stdout.endswith("edmm: 10 steps, as the manual and the kernel say\n")


@pytest.mark.parametrize("uid", USERS)
def test_doctor_says_so(uid: int) -> None:
    done = contained("-m", "softsgx", "doctor", "--json", uid=uid)
    assert (done.returncode, done.stderr) == (0, "")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["/proc"]["ok"]
    assert not checks["int 0x80 as CPUID"]["ok"]
    assert not [name for name, check in checks.items() if check["needed"] and not check["ok"]]


@pytest.mark.parametrize("faulting", [False, True], ids=["patched", "faulting"])
@pytest.mark.parametrize("name", ["families", "cpuid_signals", "fork_shares", "exec_again"])
def test_programs(workshop: Workshop, name: str, faulting: bool) -> None:
    """On processors with CPUID faulting and without: the profile refuses neither."""
    program = Program.read(PROGRAMS / f"{name}.c")
    denied = replace(MOBY, no_cpuid_faulting=not faulting)
    done = run(workshop, workshop.command(program), *program.options, uid=65534, denied=denied)
    assert done.stdout.startswith("ok "), done.stdout


def test_scripts(workshop: Workshop) -> None:
    script = workshop.directory / "script"
    script.write_text('#!/usr/bin/env sh\necho "$0" "$@"\n')
    script.chmod(0o755)
    assert run(workshop, [str(script), "a", "b c"]).stdout == f"{script} a b c\n"


@pytest.mark.parametrize(
    ("proc", "why"),
    [
        (("--tmpfs", "/proc"), "/proc/self: No such file or directory"),
        ((), "another pid namespace"),
    ],
    ids=["none", "other"],
)
def test_without_its_own_proc_nothing_runs_and_both_say_why(proc: Sequence[str], why: str) -> None:
    done = contained("-m", "softsgx", "run", "--", "true", proc=proc)
    assert done.returncode == 125
    assert done.stderr.startswith("softsgx: run: /proc: ")
    assert why in done.stderr
    assert "mount -t proc proc /proc" in done.stderr
    assert done.stderr.count("\n") == 1
    done = contained("-m", "softsgx", "doctor", proc=proc)
    assert (done.returncode, done.stderr) == (1, "")
    assert "\nNO  /proc " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("programs cannot run here: /proc")
