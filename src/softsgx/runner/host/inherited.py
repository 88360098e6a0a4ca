"""What a program inherits from the caller of softsgx, as if no Python stood in between.

The interpreter changes its own surroundings when it starts: it adds LC_CTYPE to the environment
where the locale is C (PEP 538), drops what it cannot represent, and changes how signals are
handled. execve(2) would pass all that on.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Final, NamedTuple

STDERR: Final = 2
EXIT_LOST: Final = 125  # EXIT_RUN_FAILED of cli/errors.py
PLACE: Final = "SOFTSGX_PLACE"
"""A variable of the second softsgx of `debugged.py`: pid and descriptor of its `Place`."""


class Inherited(NamedTuple):
    """`environ` are the strings of envp, in order; `ignored` and `blocked` are signals.

    Python itself ignores SIGPIPE and SIGXFSZ, so it is not known whether the caller ignored them.
    """

    environ: tuple[bytes, ...]
    ignored: frozenset[int] = frozenset()
    blocked: frozenset[int] = frozenset()

    def path(self) -> str | None:
        """PATH; if there are several, the first, as getenv(3) returns it. None without one."""
        for entry in self.environ:
            if entry.startswith(b"PATH="):
                return os.fsdecode(entry[5:])
        return None


def inherited() -> Inherited:
    """What this process inherited; to be called before it handles any signal itself.

    The kernel still has the environment as execve passed it.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            data = file.read()
    except OSError:
        # Without /proc nothing runs (doctor/needs.py); this is only for looking up the program.
        data = b"\0".join(b"=".join(entry) for entry in os.environb.items())
    strings = tuple(data.removesuffix(b"\0").split(b"\0")) if data else ()
    known = signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}
    ignored = frozenset(n for n in known if signal.getsignal(n) == signal.SIG_IGN)
    return Inherited(strings, ignored, frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def occupy_streams() -> None:
    """Open /dev/null in place of closed standard streams; the program finds them closed.

    Otherwise the next file that is opened has the number 1 or 2, the memory of enclaves perhaps,
    and whatever a library prints goes there.
    """
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= STDERR:
            continue
        os.close(number)


def keep_statuses() -> None:
    """Stop ignoring SIGCHLD: while it is ignored the kernel keeps no exit status of children."""
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
