"""The first process of a run, between fork and exec; and what process a thread belongs to."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from softsgx.runner.exec_chain import SHELL
from softsgx.runner.inherited import Inherited

_PR_SET_NO_NEW_PRIVS: Final = 38
_SYS_SECCOMP: Final = 317


def be_child(
    path: str, argv: Sequence[str], inherited: Inherited, fprog: bytes, said: int
) -> NoReturn:
    """In the child: wait to be seized, filter, execute. Never returns."""
    step = "exec"
    try:
        os.kill(os.getpid(), signal.SIGSTOP)
        libc = ctypes.PyDLL(None, use_errno=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM):
            kept = number in inherited.ignored
            signal.signal(number, signal.SIG_IGN if kept else signal.SIG_DFL)
        code = ctypes.create_string_buffer(fprog, len(fprog))
        program = (ctypes.c_uint64 * 2)(len(fprog) // 8, ctypes.addressof(code))
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(
            _SYS_SECCOMP, 1, 0, ctypes.byref(program)
        ):
            step = "seccomp"
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        step = path
        _execute(libc, path, list(argv), inherited.environ)
    except OSError as error:
        os.write(said, f"{step}\0{error.strerror}".encode())
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


def thread_group(tid: int) -> int:
    """The process of a thread."""
    with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Tgid:"):
                return int(line.split()[1])
    return tid
