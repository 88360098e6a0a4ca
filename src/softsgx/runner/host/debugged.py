"""A run that a debugger has started: `gdb --args python3 -m softsgx run --supervisor systrap ...`.

The debugger wants to debug the program, and traces the process that it has started. So that process
becomes the program, by an exec that the debugger sees. Front and supervisor are processes which it
does not follow (CLONE_UNTRACED, man 2 clone), and no children of the program: softsgx once more,
because the debugger may have put breakpoints into the memory of the first. What the program
executes, and the filter, comes from the supervisor by a socket.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from softsgx.runner.host import nr
from softsgx.runner.host.abi import CLONE_UNTRACED, PR_SET_PTRACER
from softsgx.runner.host.inherited import EXIT_LOST, PLACE
from softsgx.spec.bits import MASK64

_SIZE: Final = struct.Struct("<Q")
_IS_CODE: Final = 1 << 63
_BY_ANY: Final = MASK64  # PR_SET_PTRACER_ANY


class Place(NamedTuple):
    """The process that becomes the program, as the supervisor sees it."""

    pid: int
    to_it: socket.socket

    def ask(self, request: object, said: int) -> None:
        """Have it become what the request says; its errors go to the descriptor `said`."""
        data = pickle.dumps(request)
        socket.send_fds(self.to_it, [_SIZE.pack(len(data))], [said])
        self.to_it.sendall(data)

    def end(self, code: int) -> None:
        """The run is over: if nothing was asked of it, it ends with this exit code."""
        with suppress(OSError):  # it is the program now
            self.to_it.sendall(_SIZE.pack(code | _IS_CODE))


def place_of_environment() -> Place | None:
    """In the second softsgx: the process that becomes the program."""
    words = os.environ.pop(PLACE, "").split()
    if len(words) != 2:
        return None
    return Place(int(words[0]), socket.socket(fileno=int(words[1])))


def give_place(become: Callable[[Any, int, socket.socket], int]) -> int:
    """Have the run done by another softsgx, and become its program.

    `become(request, said, socket)` returns only if it fails, with the exit code. If there is no
    request, the exit code is that of the run.
    """
    to_it, mine = socket.socketpair()
    _start_again(os.getpid(), to_it)
    to_it.close()
    libc = ctypes.PyDLL(None)
    # The supervisor is no ancestor of the program, which Yama asks for otherwise.
    libc.prctl(PR_SET_PTRACER, ctypes.c_ulong(_BY_ANY), 0, 0, 0)
    head, given, _, _ = socket.recv_fds(mine, _SIZE.size, 1)
    if len(head) < _SIZE.size:
        return EXIT_LOST
    (size,) = _SIZE.unpack(head)
    if size & _IS_CODE:
        return int(size) & 0xFF
    os.set_inheritable(given[0], False)
    with mine.makefile("rb") as file:
        request = pickle.loads(file.read(size))
    return become(request, given[0], mine)


def _start_again(pid: int, to_it: socket.socket) -> None:
    """This command once more, in a process that is neither traced nor a child."""
    libc = ctypes.PyDLL(None, use_errno=True)
    environ = {**os.environ, PLACE: f"{pid} {to_it.fileno()}"}
    os.set_inheritable(to_it.fileno(), True)
    child = int(libc.syscall(nr.CLONE, CLONE_UNTRACED | signal.SIGCHLD, 0, 0, 0, 0))
    if child == 0:
        try:
            if libc.syscall(nr.FORK) == 0:
                os.execve(sys.executable, sys.orig_argv, environ)
        finally:
            os._exit(EXIT_LOST)
    if child < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    os.waitpid(child, 0)
