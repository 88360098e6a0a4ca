"""The first process of a run: forked, traced, filtered, executed."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from softsgx.runner import ptrace as p
from softsgx.runner.errors import RunnerError
from softsgx.runner.exec_chain import SHELL
from softsgx.runner.filters import install
from softsgx.runner.inherited import Inherited
from softsgx.runner.needs import refusal
from softsgx.runner.ways import WAYS

FILTER: Final = "seccomp"  # of the rows of needs.py


class First:
    """It stands still until `go`, traced from before its filter is there."""

    def __init__(self, path: str, argv: Sequence[str], inherited: Inherited, fprog: bytes) -> None:
        self._said, said = os.pipe2(os.O_CLOEXEC)
        self.tid = os.fork()
        if self.tid == 0:
            _be_child(path, argv, inherited, fprog, said)
        os.close(said)
        os.waitpid(self.tid, os.WUNTRACED)
        try:
            p.request(p.PTRACE_SEIZE, self.tid, 0, p.OPTIONS)
        except OSError as error:
            os.kill(self.tid, signal.SIGKILL)
            os.waitpid(self.tid, 0)
            why = error.strerror or str(error)
            raise refusal("ptrace", why) from None

    def go(self) -> None:
        """To its exec."""
        os.kill(self.tid, signal.SIGCONT)

    def check(self) -> None:
        """Once it has ended: RunnerError if it could not be executed."""
        said = os.fsdecode(os.read(self._said, 4096))
        os.close(self._said)
        step, _, why = said.partition("\0")
        if step == FILTER:
            raise refusal(step, why)
        if said:
            raise RunnerError(step, why)


def _be_child(
    path: str, argv: Sequence[str], inherited: Inherited, fprog: bytes, said: int
) -> NoReturn:
    """In the child: wait to be seized, filter, execute. Never returns."""
    step = "exec"
    try:
        os.kill(os.getpid(), signal.SIGSTOP)
        libc = ctypes.PyDLL(None, use_errno=True)
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        for ignored in inherited.ignored:
            signal.signal(ignored, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, inherited.blocked)
        step = FILTER
        install(fprog, WAYS.filter_by_prctl)
        step = path
        _execute(libc, path, list(argv), inherited.environ)
    except OSError as error:
        os.write(said, os.fsencode(f"{step}\0{error.strerror}"))
    finally:
        os._exit(127)


def _execute(libc: Any, path: str, argv: list[str], environ: Sequence[bytes]) -> NoReturn:
    """As execvp does: a file that the kernel does not know is a script of the shell."""
    if _execve(libc, path, argv, environ) == errno.ENOEXEC:
        _execve(libc, SHELL, [SHELL, path, *argv[1:]], environ)
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _execve(libc: Any, path: str, argv: Sequence[str], environ: Sequence[bytes]) -> int:
    """execve(2) with envp as it is: os.execve refuses strings without `=`, and drops doubles."""
    arguments = [os.fsencode(word) for word in argv]
    libc.execve(
        os.fsencode(path),
        (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None),
        (ctypes.c_char_p * (len(environ) + 1))(*environ, None),
    )
    return ctypes.get_errno()
