"""`run` and `doctor` under real seccomp filters: what containers, service managers and others deny.

The story: `doctor` said "programs can run here" where kcmp, process_vm_readv, seccomp(2) or
`int 0x80` were denied; the demo failed, and CPUID showed what was in the registers.
"""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys

import pytest

from softsgx.runner.host.abi import (
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_IOCTL_NOTIF_ADDFD,
    SECCOMP_IOCTL_NOTIF_SEND,
)
from tests.patience import LIMIT_S
from tests.runner.container_profile import MOBY, OLDER
from tests.runner.denying import KILL, Denied, denied
from tests.runner.programs import PROGRAMS, ROOT, Program, Workshop

NOBODY = 65534
VERSION = tuple(sys.version_info[:2])
VM = ("process_vm_readv", "process_vm_writev")
AROUND = {
    "kcmp": denied("kcmp"),
    "vm": denied(*VM),
    "vm-kill": denied(*VM, as_=KILL),
    "writev": denied("process_vm_writev", as_=errno.ENOSYS),
    "seccomp": denied("seccomp"),
    "seccomp-kill": denied("seccomp", as_=KILL),
    "only64": Denied(other=errno.EPERM),
    "only64-kill": Denied(other=KILL),
    "moby": MOBY,
    "noexec": Denied(memfd_noexec=True),
    "memfd": denied("memfd_create"),
    "memfd-kill": denied("memfd_create", as_=KILL),
    "pidfd": denied("pidfd_open"),
    "pidfd-kill": denied("pidfd_open", as_=KILL),
    "no listener": Denied(seccomp_flags=SECCOMP_FILTER_FLAG_NEW_LISTENER),  # before 5.0
    "no continue": Denied(requests={SECCOMP_IOCTL_NOTIF_SEND: errno.EINVAL}),  # before 5.5
    "no addfd": Denied(requests={SECCOMP_IOCTL_NOTIF_ADDFD: errno.EINVAL}),  # before 5.14
    "addfd-kill": Denied(requests={SECCOMP_IOCTL_NOTIF_ADDFD: KILL}),
    "all": Denied(calls=denied("kcmp", "seccomp", *VM).calls, other=KILL, memfd_noexec=True),
}
NO_SECCOMP = (
    *("SECCOMP_RET_TRAP", "seccomp listener", "SECCOMP_ADDFD", "exec hand-over", "supervisor"),
)
SLOWER = {  # what doctor names as refused
    "vm": ["process_vm_readv"],
    "vm-kill": ["process_vm_readv"],
    "writev": ["process_vm_readv"],
    "seccomp": ["seccomp(2)", *NO_SECCOMP],
    "seccomp-kill": ["seccomp(2)", *NO_SECCOMP],
    "only64": ["int 0x80 as ENCLU", "int 0x80 as CPUID"],
    "only64-kill": ["int 0x80 as ENCLU", "int 0x80 as CPUID"],
    "moby": ["int 0x80 as CPUID"],
    "memfd": ["memfd"],
    "memfd-kill": ["memfd"],
    "all": [
        *("seccomp(2)", "int 0x80 as ENCLU", "int 0x80 as CPUID", "process_vm_readv"),
        *NO_SECCOMP,
    ],
    "pidfd": ["pidfd", "supervisor"],
    "pidfd-kill": ["pidfd", "supervisor"],
    "no listener": ["seccomp listener", "SECCOMP_ADDFD", "exec hand-over", "supervisor"],
    "no continue": ["seccomp listener", "exec hand-over", "supervisor"],
    "no addfd": ["SECCOMP_ADDFD", "supervisor"],
    "addfd-kill": ["SECCOMP_ADDFD", "supervisor"],
}
# An option of a container's engine that allows what a filter refuses.
FLAG = re.compile(r"in a container: --(?:cap-add SYS_PTRACE|security-opt seccomp=unconfined)")
# No file in memory is large enough, as with ulimit -f.
NO_FILES = denied("ftruncate", as_=errno.EFBIG)
NEVER = {
    "ptrace": ("ptrace", denied("ptrace")),
    "ptrace-kill": ("ptrace", denied("ptrace", as_=KILL)),
    "older": ("ptrace", OLDER),
    "seccomp": ("seccomp", denied("seccomp", "prctl")),
    "files": ("memory files", NO_FILES),
    "inotify": ("inotify", denied("inotify_init1", as_=errno.EMFILE)),
    "watch": ("inotify", denied("inotify_add_watch", as_=errno.ENOSPC)),
}


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("denied"))


def under(what: Denied, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        what.command(sys.executable, "-m", "softsgx", *command),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def assert_runs(done: subprocess.CompletedProcess[str]) -> None:
    said = f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.returncode == 0, said
    assert "FAIL" not in done.stderr, said


def refused(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The rows of doctor's table that say no, without remarks about the machine of the test."""
    checks = json.loads(done.stdout)["checks"]
    usual = ("limits", "gcc", "vm.mmap_min_addr", "PROCMAP_QUERY", "CPUID faulting")
    return [check["name"] for check in checks if not check["ok"] and check["name"] not in usual]


RUNS = [
    ("memfd", "descriptors"),
    ("memfd", "epc_freed"),
    ("memfd-kill", "device_nodes"),
    *((case, "families") for case in AROUND),
    *((case, "cpuid_signals") for case in ("only64", "only64-kill", "moby", "all")),
    *((case, "own_stub") for case in ("only64-kill", "all")),
    ("moby", "static_cpuid"),
]


@pytest.mark.parametrize(("case", "name"), RUNS)
def test_programs_run_where_there_is_a_way_around(case: str, name: str, workshop: Workshop) -> None:
    program = Program.read(PROGRAMS / f"{name}.c")
    done = under(AROUND[case], "run", "--", *workshop.command(program))
    assert_runs(done)
    assert done.stdout.startswith("ok "), done.stdout


@pytest.mark.parametrize("case", ["moby", "vm", "all"])
def test_demo_runs_where_there_is_a_way_around(case: str, workshop: Workshop) -> None:
    done = under(AROUND[case], "run", "--explain", "--stats", "--", *workshop.example())
    assert_runs(done)
    assert done.stdout.endswith("edmm: 10 steps, as the manual and the kernel say\n")


@pytest.mark.parametrize("case", ["moby", "vm-kill", "only64", "noexec", "memfd"])
def test_native_engine_goes_around_as_well(case: str, workshop: Workshop) -> None:
    done = under(AROUND[case], "run", "--engine", "native", "--", *workshop.example())
    assert_runs(done)
    assert done.stdout.endswith("edmm: 10 steps, as the manual and the kernel say\n")


def test_native_engine_needs_the_real_seccomp(workshop: Workshop) -> None:
    done = under(AROUND["seccomp"], "run", "--engine", "native", "--", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("softsgx: run: --engine native: seccomp(2) is refused")
    assert done.stderr.count("\n") == 1


def interpreter(uid: int) -> tuple[str, dict[str, str]] | None:
    """An interpreter that another user can execute, with this package; and its environment.

    That of the test may be in a directory of root's: then the system's, if it is the same version.
    """
    places = [str(ROOT / "src"), *(path for path in sys.path if path.endswith("site-packages"))]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(places), "HOME": "/nonexistent"}
    for path in (sys.executable, "/usr/bin/python3"):
        script = f"import softsgx, sys, unicorn; assert sys.version_info[:2] == {VERSION}"
        try:
            done = subprocess.run(
                [path, "-c", script],
                user=uid,
                group=uid,
                extra_groups=[],
                cwd="/",
                env=environ,
                check=False,
                capture_output=True,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return path, environ
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="not root, so already another user")
@pytest.mark.parametrize("what", [Denied(), MOBY], ids=["no filter", "moby"])
def test_demo_runs_as_another_user(what: Denied, workshop: Workshop) -> None:
    """The story: an attempt of doctor needed root's rights, which no run needs."""
    found = interpreter(NOBODY)
    if found is None:
        pytest.skip("no interpreter that another user can execute (see test_container)")
    path, environ = found
    for directory in (workshop.directory, *workshop.directory.parents):
        if directory.stat().st_uid == os.geteuid() and str(directory) != "/":
            directory.chmod(directory.stat().st_mode | 0o755)
    for command in (["run", "--", *workshop.example()], ["doctor"]):
        done = subprocess.run(
            what.command(path, "-m", "softsgx", *command, uid=NOBODY),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            env=environ,
            stdin=subprocess.DEVNULL,
        )
        assert_runs(done)


@pytest.mark.parametrize("case", AROUND)
def test_doctor_names_what_is_refused_and_goes_on(case: str) -> None:
    done = under(AROUND[case], "doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert refused(done) == SLOWER.get(case, [])
    assert json.loads(done.stdout)["ready"] is True
    rows = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    for name in {*refused(done)} - {"supervisor"}:  # which names another row
        assert FLAG.search(rows[name]["remedy"]), name


@pytest.mark.parametrize("case", NEVER)
def test_where_nothing_can_run_both_say_the_same(case: str) -> None:
    name, what = NEVER[case]
    done = under(what, "doctor")
    lines = done.stdout.splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.startswith(f"NO  {name} ")]
    remedy = lines[at + 1].partition("-> ")[2]
    assert (done.returncode, done.stderr) == (1, "")
    assert lines[-1].startswith("programs cannot run here")
    assert remedy
    assert FLAG.search(remedy)
    done = under(what, "run", "--", "true")
    assert done.returncode == 125, done.stderr
    assert done.stderr.startswith(f"softsgx: run: {name}: ")
    assert done.stderr.endswith(f": {remedy}\n")
    assert done.stderr.count("\n") == 1


def test_the_filters_of_these_tests_deny() -> None:
    """A filter that denied nothing would make every test above a success."""
    script = (
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True);"
        "print([(libc.syscall(n, 0, 0, 0, 0, 0, 0), ctypes.get_errno()) for n in {}])"
    )
    for what, numbers in (
        (denied("kcmp", "process_vm_readv", "seccomp", as_=errno.EXDEV), [312, 310, 317]),
        (Denied(above=(998, errno.EXDEV)), [999]),
    ):
        done = subprocess.run(
            what.command(sys.executable, "-c", script.format(numbers)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{[(-1, errno.EXDEV)] * len(numbers)}\n"
    command = denied("kcmp", as_=KILL).command(sys.executable, "-c", script.format([312]))
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -31
