"""The first process of a run: forked, traced, filtered, executed."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from softsgx.runner.doctor.needs import refusal
from softsgx.runner.errors import ProgramError, RunnerError
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import PR_SET_PDEATHSIG, SECCOMP_FILTER_FLAG_NEW_LISTENER
from softsgx.runner.host.debugged import Place
from softsgx.runner.host.filters import inherited_confinement, install
from softsgx.runner.host.inherited import Inherited
from softsgx.runner.process.exec_chain import SHELL
from softsgx.runner.process.own_filters import Seccomp
from softsgx.runner.ways import WAYS

FILTER: Final = "seccomp"  # a row of needs.py
BEFORE: Final = "the first process"


class First:
    """The first process. It is traced before it installs its filter, and stopped until `go`.

    If `WAYS.traced` is not set, it is not traced, and `listener` gets the notifications of its
    filter. Then it may be there already, at a `place`.
    """

    def __init__(
        self,
        path: str,
        argv: Sequence[str],
        inherited: Inherited,
        fprog: bytes,
        place: Place | None = None,
    ) -> None:
        self._said, said = os.pipe2(os.O_CLOEXEC)
        mode, no_new_privs = inherited_confinement()
        self.seccomp = Seccomp(mode, (), no_new_privs)
        self.listener = -1
        if place is not None:
            self.tid = place.pid
            place.ask((path, list(argv), fprog), said)
            os.close(said)
            self._receive(place.to_it)
            return
        ours, theirs = socket.socketpair()
        supervisor = os.getpid()
        # A signal to the whole group waits until the program would get it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.tid = os.fork()
        if self.tid == 0:
            _be_child(supervisor, path, argv, inherited, fprog, said, theirs)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(said)
        theirs.close()
        if not WAYS.traced:
            self._receive(ours)
            return
        ours.close()
        os.waitpid(self.tid, os.WUNTRACED)
        try:
            p.request(p.PTRACE_SEIZE, self.tid, 0, p.OPTIONS)
        except OSError as error:
            os.kill(self.tid, signal.SIGKILL)
            os.waitpid(self.tid, 0)
            why = error.strerror or str(error)
            raise refusal("ptrace", why) from None

    def _receive(self, socket_: socket.socket) -> None:
        _, given, _, _ = socket.recv_fds(socket_, 1, 1)
        socket_.close()
        if given:
            self.listener = given[0]

    def go(self) -> None:
        """Let it execute the program."""
        if not WAYS.traced:
            return
        os.kill(self.tid, signal.SIGCONT)

    def check(self) -> None:
        """After its end: RunnerError if it could not be prepared, ProgramError if not executed."""
        said = os.fsdecode(os.read(self._said, 4096))
        os.close(self._said)
        if not said:
            return
        step, number, why = said.split("\0")
        if step == FILTER:
            raise refusal(step, why)
        if step == BEFORE:
            raise RunnerError(step, why)
        raise ProgramError(step, why, int(number))


def _be_child(
    supervisor: int,
    path: str,
    argv: Sequence[str],
    inherited: Inherited,
    fprog: bytes,
    said: int,
    theirs: socket.socket,
) -> NoReturn:
    """In the child: wait to be seized, install the filter, execute."""
    try:
        libc = ctypes.PyDLL(None, use_errno=True)
        # If the supervisor died before it seizes this process, this one would be stopped for ever.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:
            os._exit(127)  # it has died already
        if WAYS.traced:
            os.kill(os.getpid(), signal.SIGSTOP)
        libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
        become(inherited, path, argv, fprog, said, None if WAYS.traced else theirs)
    finally:
        os._exit(127)


def become(
    inherited: Inherited,
    path: str,
    argv: Sequence[str],
    fprog: bytes,
    said: int,
    listener_to: socket.socket | None,
) -> bool:
    """Execute a program under the filter, with what it inherits; returns only if that fails.

    Whether the program does not exist. The descriptor `said` gets the step that failed, the errno
    and its text; `listener_to` the listener of the filter, if it is to have one.
    """
    step = BEFORE
    try:
        libc = ctypes.PyDLL(None, use_errno=True)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            ignored = number in inherited.ignored
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, inherited.blocked)
        step = FILTER
        if listener_to is None:
            install(fprog, WAYS.filter_by_prctl)
        else:
            listener = install(fprog, by_prctl=False, flags=SECCOMP_FILTER_FLAG_NEW_LISTENER)
            socket.send_fds(listener_to, [b"."], [listener])
            os.close(listener)
        step = path
        _execute(libc, path, list(argv), inherited.environ)
    except OSError as error:
        os.write(said, os.fsencode(f"{step}\0{error.errno}\0{error.strerror}"))
        return error.errno == errno.ENOENT


def _execute(libc: Any, path: str, argv: list[str], environ: Sequence[bytes]) -> NoReturn:
    """As execvp does: a file whose format the kernel does not know is a script of the shell."""
    if _execve(libc, path, argv, environ) == errno.ENOEXEC:
        _execve(libc, SHELL, [SHELL, path, *argv[1:]], environ)
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _execve(libc: Any, path: str, argv: Sequence[str], environ: Sequence[bytes]) -> int:
    """execve(2) with envp as given: os.execve refuses strings without `=` and drops duplicates."""
    arguments = [os.fsencode(word) for word in argv]
    libc.execve(
        os.fsencode(path),
        (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None),
        (ctypes.c_char_p * (len(environ) + 1))(*environ, None),
    )
    return ctypes.get_errno()
