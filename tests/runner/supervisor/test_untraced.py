"""Programs that are not traced: what being a tracer broke, with the tools of Debian.

The stories: the loader opened the supervisor's memory files with the program's own credentials, so
a program that had given up its privileges, changed its root or entered a user namespace died at
the next exec. Nothing told the supervisor of a child whose pid namespace numbers it otherwise.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from softsgx.runner.host import nr
from softsgx.runner.host.abi import (
    AUDIT_ARCH_X86_64,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
)
from softsgx.runner.host.bpf import ARCH, NR
from softsgx.runner.host.bpf import Program as Filter
from softsgx.runner.inserted import systrap_layout as lay
from tests.patience import LIMIT_S, until
from tests.runner.programs import PROGRAMS, Program, Workshop

COMMAND = [sys.executable, "-m", "softsgx", "run", "--supervisor", "systrap", "--"]
NOBODY = 65534
CAP_SYS_RESOURCE = 24
KILL_PROCESS = 1 << 31  # SECCOMP_RET_KILL_PROCESS


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """A command under the supervisor that does not trace."""
    return subprocess.run(
        [*COMMAND, *command], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skip where a tool, or root, is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    why = f"not here: {', '.join(missing)}" if missing else "not root"
    return pytest.mark.skipif(bool(missing) or os.getuid() != 0, reason=why)


def test_the_first_exec_may_fail(tmp_path: Path) -> None:
    """The descriptors that the new program was to have are closed by the caller's own SYSCALL: it
    has no gate yet, and the supervisor waited for ever. A script without `#!` is executed twice."""
    busy = tmp_path / "busy"
    shutil.copy("/bin/true", busy)
    script = tmp_path / "script"
    script.write_text("ls /proc/self/fd\n")
    script.chmod(0o755)
    with busy.open("ab"):
        done = run(str(busy))
    assert (done.returncode, done.stderr) == (126, f"softsgx: run: {busy}: Text file busy\n")
    assert run(str(script)).stdout == run("/bin/sh", "-c", "ls /proc/self/fd; :").stdout


@needs("setpriv")
def test_a_program_that_has_given_up_its_privileges_executes_others() -> None:
    dropped = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    done = run(*dropped, "sh", "-c", "/bin/true && id -u")
    assert (done.returncode, done.stdout) == (0, f"{NOBODY}\n"), done.stderr


@needs("setpriv")
@pytest.mark.parametrize("engine", ["unicorn", "native"])
def test_and_enters_an_enclave(tmp_path: Path, engine: str) -> None:
    command = Workshop(tmp_path).command(Program.read(PROGRAMS / "two_tcs.c"))
    for path in (tmp_path, *tmp_path.parents[:3], *tmp_path.iterdir()):
        path.chmod(0o755)
    dropped = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    done = subprocess.run(
        [*COMMAND[:-1], "--engine", engine, "--", *dropped, *command],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok "), done.stdout


def _sandbox(path: Path) -> None:
    """A filter such as those of containers: a list of refusals, and no other architecture."""
    refusing = Filter()
    refusing.load(ARCH)
    refusing.equal(AUDIT_ARCH_X86_64, no="killed")
    refusing.load(NR)
    for number in (nr.CLONE3, nr.SECCOMP, nr.SIGALTSTACK, nr.PTRACE):
        refusing.equal(number, yes="unknown")
    refusing.ret(SECCOMP_RET_ALLOW)
    refusing.label("unknown")
    refusing.ret(SECCOMP_RET_ERRNO | errno.ENOSYS)
    refusing.label("killed")
    refusing.ret(KILL_PROCESS)
    path.write_bytes(refusing.assemble())


@needs("bwrap")
@pytest.mark.parametrize("engine", ["unicorn", "native"])
def test_a_sandbox_with_a_filter(tmp_path: Path, engine: str) -> None:
    """bwrap confines itself, and executes a program that enters enclaves with several threads."""
    command = Workshop(tmp_path).command(Program.read(PROGRAMS / "two_tcs.c"))
    _sandbox(tmp_path / "filter")
    with open(tmp_path / "filter", "rb") as filter_:
        bwrap = ("bwrap", "--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--seccomp")
        done = subprocess.run(
            [*COMMAND[:-1], "--engine", engine, "--", *bwrap, str(filter_.fileno()), *command],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            pass_fds=(filter_.fileno(),),
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok "), done.stdout


EXEC_IN_A_THREAD = """
import os, threading
threading.Thread(target=os.execv, args=("/bin/echo", ["echo", "there"])).start()
"""


@pytest.mark.parametrize("time", range(5))
def test_a_thread_that_is_not_the_first_executes_a_program(time: int) -> None:
    """It takes over the number of the first thread, whose record the supervisor had not forgotten:
    requests about the new program went there, and it stood still for ever.
    """
    assert run(sys.executable, "-c", EXEC_IN_A_THREAD).stdout == "there\n", time


EXIT_CODE = """
import os, threading
threading.Thread(target=os.execv, args=("/bin/sh", ["sh", "-c", "sleep 0.2; exit 3"])).start()
"""


def test_its_exit_code_is_that_of_the_run() -> None:
    """The first thread, which exec ends, counted as the end of the program, with exit code 0."""
    assert run(sys.executable, "-c", EXIT_CODE).returncode == 3


# MOV EAX, 2; INT 80H; CDQE; RET.
FORK_OF_I386 = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex("b802000000cd804898c3"))
print(ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())
"""


def test_calls_of_i386_that_the_stub_would_have_to_know_are_refused() -> None:
    """A child of such a fork would use its parent's record, stack and all."""
    done = run(sys.executable, "-c", FORK_OF_I386)
    if f"-{errno.ENOSYS}" in done.stdout and not done.stderr:
        pytest.skip("this kernel has no calls of i386")
    assert (done.returncode, done.stdout) == (0, f"-{errno.ENOSYS}\n")
    assert "fork by int 0x80 needs --supervisor ptrace: ENOSYS" in done.stderr


# RDGSBASE RAX; RET.
RECORD_NUMBER = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex("f3480faec8c3"))
base = ctypes.CFUNCTYPE(ctypes.c_ulong)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print(base)
"""


def test_records_of_the_dead_are_used_again() -> None:
    """They were not, when the end of the process was all that the supervisor heard: after some
    thousands no program could start any more.
    """
    many = "for i in $(seq 40); do sh -c 'kill -KILL $$'; done 2>/dev/null"
    done = run("sh", "-c", f"{many}; {sys.executable} -c '{RECORD_NUMBER}'")
    record = (int(done.stdout) - lay.RECORDS) // lay.RECORD_STRIDE
    assert record < 20


NO_DESCRIPTOR = """
import os, resource
soft, hard = {limits}
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    while True:
        os.dup(0)
except OSError:
    pid = os.fork()
    if not pid:
        os._exit(resource.getrlimit(resource.RLIMIT_NOFILE) != (soft, hard))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_process_forks_that_can_open_no_file_more() -> None:
    """The child needs a descriptor for a moment, before it goes on in memory of its own."""
    done = run(sys.executable, "-c", NO_DESCRIPTOR.format(limits="(64, 128)"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_nor_may_it_ever() -> None:
    """Only CAP_SYS_RESOURCE, of the supervisor, helps beyond the hard limit."""
    done = run(sys.executable, "-c", NO_DESCRIPTOR.format(limits="(64, 64)"))
    if _may(CAP_SYS_RESOURCE):
        assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    else:
        assert (done.returncode, done.stdout) == (0, f"-{signal.SIGKILL}\n")
        assert "cannot go on after fork: it has no descriptor left; killed\n" in done.stderr


def _may(capability: int) -> bool:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> capability & 1)


def test_a_process_forks_with_little_address_space() -> None:
    """The child maps its own memory over its parent's: that takes none."""
    done = run("sh", "-c", "ulimit -v 500000; (exit 3); echo $?; /bin/true && echo $?")
    assert (done.returncode, done.stdout) == (0, "3\n0\n"), done.stderr


AFTER_FORK = """
import os, signal
signal.signal(signal.SIGFPE, lambda *_: print("caught", flush=True))
signal.signal(signal.SIGILL, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])
read, write = os.pipe()
pid = os.fork()
if pid:
    os.read(read, 1)
for number in (signal.SIGFPE, signal.SIGILL, signal.SIGBUS):
    os.kill(os.getpid(), number)
print("blocked", signal.sigpending() == {signal.SIGBUS}, flush=True)
if not pid:
    os.write(write, b"x")
    signal.pause()
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
"""


def test_a_child_has_the_signals_of_its_parent_and_lives_on() -> None:
    """What the stub knows of them is copied; and fork returns while the child is there."""
    done = run(sys.executable, "-c", AFTER_FORK)
    assert done.returncode == 0, done.stderr
    assert done.stdout == 2 * "caught\nblocked True\n"


@needs("chroot")
def test_another_root_directory(tmp_path: Path) -> None:
    for path in ("/bin/sh", "/bin/true"):
        libraries = subprocess.run(["ldd", path], capture_output=True, text=True, check=True)
        files = [word for word in libraries.stdout.split() if word.startswith("/")]
        for file in (path, *files):
            place = tmp_path / file.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    done = run("chroot", str(tmp_path), "/bin/sh", "-c", "/bin/true && echo inside")
    assert (done.returncode, done.stdout) == (0, "inside\n"), done.stderr


@needs("unshare")
@pytest.mark.parametrize("options", [("-r",), ("-rp", "--fork")])
def test_a_user_namespace_and_one_of_pids(options: tuple[str, ...]) -> None:
    native = subprocess.run(
        ["unshare", *options, "sh", "-c", "true"], capture_output=True, check=False
    )
    if native.returncode:
        pytest.skip("this machine allows no user namespaces")
    done = run("unshare", *options, "sh", "-c", "/bin/true && id -u; (exit 3); echo $?")
    assert (done.returncode, done.stdout) == (0, "0\n3\n"), done.stderr


def test_many_programs_are_executed() -> None:
    """The record and the table of a program that is replaced are given back."""
    loop = "i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done; echo done"
    done = run("sh", "-c", loop)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_the_program_dies_with_the_supervisor(tmp_path: Path) -> None:
    """It has no tracer whose end would kill it, and may never ask the stub for anything."""
    note = tmp_path / "pids"
    spin = f"echo $$ > {note}; while :; do :; done"
    with subprocess.Popen([*COMMAND, "sh", "-c", spin], stderr=subprocess.PIPE) as front:
        until(lambda: note.exists() and note.read_text().endswith("\n"), "the program began")
        program = int(note.read_text())
        parent = int(Path(f"/proc/{program}/stat").read_text().split()[3])
        assert parent != front.pid
        os.kill(parent, signal.SIGKILL)
        front.communicate(timeout=LIMIT_S)
    until(lambda: not Path(f"/proc/{program}").exists(), "the program ended")


NOTICES = r"""
import ctypes, os, signal, struct
libc = ctypes.CDLL(None, use_errno=True)
masks = dict(line.split(":\t") for line in open("/proc/self/status").read().splitlines())
caught = int(masks["SigCgt"], 16)
print("status", bool(caught >> (signal.SIGSYS - 1) & 1), int(signal.getsignal(signal.SIGSYS)))
base = ctypes.c_ulong(1)
libc.syscall(158, 0x1004, ctypes.byref(base))
print("GS", base.value)
code = ctypes.create_string_buffer(struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000), 8)
program = (ctypes.c_uint64 * 2)(1, ctypes.addressof(code))
print("listener", libc.syscall(317, 1, 8, ctypes.byref(program)), ctypes.get_errno())
pid = os.fork()
if not pid:
    libc.ptrace(0, 0, 0, 0)
    try:
        os.execv("/bin/true", ["true"])
    except OSError as error:
        os._exit(error.errno)
while True:
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        break
    print("stopped", os.WSTOPSIG(status) == signal.SIGSYS) if os.WSTOPSIG(status) == 31 else None
    libc.ptrace(7, pid, 0, os.WSTOPSIG(status) if os.WSTOPSIG(status) != signal.SIGTRAP else 0)
print("exec", os.WEXITSTATUS(status))
"""


def test_what_a_program_can_notice() -> None:
    done = run(sys.executable, "-c", NOTICES)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "status True 0" in lines, lines
    assert "GS 0" in lines, lines
    assert f"listener -1 {errno.EBUSY}" in lines, lines
    assert "stopped True" in lines, lines
    assert "exec 0" in lines, lines
    assert not done.stderr
