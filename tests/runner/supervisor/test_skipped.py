"""A call of a program that Linux skips, because a signal was sent at that very moment.

Calls that the supervisor answers are trapped: SIGSYS. The kernel keeps one pending SIGSYS of a
thread, so one that is sent to it between the start of the call and the trap takes its place, and
nobody learns of the call. In a storm of signals a thread ran on behind the rt_sigreturn of its
handler, once in a minute or two.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from softsgx.runner.host import ptrace as p
from tests.patience import LIMIT_S, until
from tests.runner.gcc import needs_gcc

RT_SIGRETURN = 15
JUMP_TO_ITSELF = b"\xeb\xfe"
LOAD_AND_CALL = 9  # bytes of the C library's code: mov $15, %rax; syscall


@needs_gcc
def test_a_handler_returns_though_a_signal_takes_the_place_of_its_call(tmp_path: Path) -> None:
    program = tmp_path / "skipped"
    source = Path(__file__).with_name("skipped.c")
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-o", program, source], check=True)
    command = [
        sys.executable,
        "-m",
        "softsgx",
        "run",
        "--supervisor",
        "systrap",
        "--",
        str(program),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid, frame, restorer = map(int, run.stdout.readline().split())
        try:
            p.request(p.PTRACE_SEIZE, pid)
        except PermissionError:  # kernel.yama.ptrace_scope, and not root: it is no child
            run.kill()
            pytest.skip("a process that is no child cannot be traced here")
        until(lambda: stopped_in_loop(pid), "the endless loop")
        skip(pid, frame, restorer)
        p.request(p.PTRACE_CONT, pid)
        assert os.WSTOPSIG(p.wait(pid)) == signal.SIGSYS
        p.request(p.PTRACE_CONT, pid, 0, signal.SIGSYS)
        until(lambda: passed_on(pid), "the end of the program")
        out, _ = run.communicate(timeout=LIMIT_S)
    assert out == "the handler returned, 1 came, 1 was sent\n"
    assert run.returncode == 0


def stopped_in_loop(pid: int) -> bool:
    """Stop the process; whether it is where it waits. If not, it goes on."""
    p.request(p.PTRACE_INTERRUPT, pid)
    assert os.WIFSTOPPED(p.wait(pid))
    if p.read_memory(pid, p.get_regs(pid)[p.RIP], 2) == JUMP_TO_ITSELF:
        return True
    p.request(p.PTRACE_CONT, pid)
    return False


def skip(pid: int, frame: int, restorer: int) -> None:
    """Leave a stopped thread behind the rt_sigreturn of its handler, with a SIGSYS pending."""
    regs = p.get_regs(pid)
    regs[p.RSP], regs[p.RAX], regs[p.ORIG_RAX] = frame, RT_SIGRETURN, p.MASK64
    regs[p.RIP] = regs[p.RCX] = restorer + LOAD_AND_CALL
    regs[p.R11] = regs[p.EFLAGS]
    p.set_regs(pid, regs)
    ctypes.CDLL(None).tgkill(pid, pid, signal.SIGSYS)


def passed_on(pid: int) -> bool:
    """Let the traced process have its signals; whether it has ended."""
    found, status = os.waitpid(pid, os.WNOHANG | p.WALL)
    if not found:
        return False
    if not os.WIFSTOPPED(status):
        return True
    number = os.WSTOPSIG(status)
    p.request(p.PTRACE_CONT, pid, 0, 0 if status >> 16 else number)
    return False
