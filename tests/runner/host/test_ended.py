"""How a process has ended that is no child: the kernel of this machine is asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from softsgx.runner.host.ended import wait_status
from tests.patience import until

# Its child ends when there is a byte to read, and is waited for once a line comes.
PARENT = """
import os, sys
pid = os.fork()
if pid == 0:
    os.read(int(sys.argv[1]), 1)
    {end}
print(pid, flush=True)
sys.stdin.readline()
os.waitpid(pid, 0)
print("waited for", flush=True)
sys.stdin.readline()
"""
ENDS = [("os._exit(7)", 7 << 8), ("os.kill(os.getpid(), 15); os.wait()", int(signal.SIGTERM))]


def test_a_child_is_waited_for() -> None:
    pid = os.posix_spawn("/bin/false", ["false"], {})
    until(lambda: wait_status(pid, -1) == 1 << 8, "its end")
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


@pytest.mark.parametrize(("end", "status"), ENDS, ids=["exits", "killed"])
def test_another_process(end: str, status: int) -> None:
    reader, writer = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(end=end), str(reader)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[reader], text=True,
    )  # fmt: skip
    with parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        pidfd = os.pidfd_open(pid)
        assert wait_status(pid, pidfd) is None
        os.write(writer, b".")
        until(lambda: wait_status(pid, pidfd) is not None, "its end")
        assert wait_status(pid, pidfd) == status
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "waited for\n"
        # Linux tells of one that was waited for since 2025 only.
        assert wait_status(pid, pidfd) in (status, None)
        for fd in (pidfd, reader, writer):
            os.close(fd)
        parent.stdin.close()


def test_none_if_there_is_none() -> None:
    assert wait_status((1 << 22) + 1, -1) is None
