"""The front: the process that the caller of softsgx started, and waits for.

The supervisor is its child, and the parent of the program, so that it may trace both the program
and what descends from it. The three are in one process group: what a terminal sends goes to all.
The front does what the caller sees of the program: it passes on the signals that were sent to it
alone, stops and goes on as the first process does, and ends when that ends, with its code, while
the supervisor serves those that live on. Until then the supervisor dies with the front, and what
is traced with the supervisor.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from softsgx.runner.host.inherited import (
    EXIT_LOST,
    STDERR,
    Inherited,
    inherited,
    keep_statuses,
    occupy_streams,
)
from softsgx.runner.host.keeper import be_keeper
from softsgx.runner.host.proc import alive, signal_masks
from softsgx.runner.host.signal_counts import COUNTED, SignalCounts
from softsgx.runner.say import say

if TYPE_CHECKING:
    from softsgx.runner.host.debugged import Place

REPORTS_S: Final = 1.0
"""So long the front waits for the last processes of a run whose reports were asked for."""

ANSWER_S: Final = 1.0
_FOREVER_S: Final = 3600.0
# What happens to a process that neither handles nor ignores them.
_NOTHING: Final = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})
_STOP: Final = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_ENDS: Final = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT})
_KILLED_S: Final = 5.0  # so long the front waits for the keeper
_DEATH_S: Final = 0.2  # so long a process may take to die
_STARTED, _STOPPED, _CONTINUED, _ENDED = "started", "stopped", "continued", "ended"
_KEEP: Final = "keep"
# Bytes that all share: the front is about to stop; the keeper is there; nothing is left to kill.
_HALTING, _KEPT, _OVER = range(3)

Work = Callable[[Inherited, "ToFront"], int]


def in_front(work: Work, place: Place | None = None) -> int:
    """Do the work in a child, the supervisor, which ends with the code that it returns.

    Returns the exit code of the run. `work` raises nothing, and has flushed what it printed.
    `place` is the process that becomes the program, if a debugger has started the run.
    """
    caller = inherited()
    occupy_streams()
    keep_statuses()
    counts, shared = SignalCounts(), memoryview(mmap.mmap(-1, mmap.PAGESIZE))
    news, into = os.pipe2(os.O_CLOEXEC)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    front = os.getpid()
    supervisor = os.fork()
    if supervisor:
        os.close(into)
        return _Front(caller, counts, news, shared, supervisor).run()
    try:
        os.close(news)
        to_front = ToFront(into, front, shared)
        to_front.place = place
        os._exit(_supervise(work, caller, counts, to_front))
    finally:
        os._exit(EXIT_LOST)


def _supervise(work: Work, caller: Inherited, counts: SignalCounts, to_front: ToFront) -> int:
    to_front.bind()
    counts.count()
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)  # the program alone stops for them
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return work(caller, to_front)


class ToFront:
    """What the supervisor tells the front of the first process; without one it tells nobody."""

    def __init__(self, into: int = -1, front: int = 0, shared: memoryview | None = None) -> None:
        self._into = into
        self._front = front
        self._shared = memoryview(bytearray(_OVER + 1)) if shared is None else shared
        self._stopped = False
        self.place: Place | None = None

    def bind(self) -> None:
        """From now on SIGKILL, if the front dies."""
        self._at_its_death(signal.SIGKILL)
        if os.getppid() != self._front:
            os._exit(EXIT_LOST)  # it has died already

    def started(self, pid: int) -> None:
        """The first process executes the program."""
        self._tell(_STARTED, pid)

    def stopped(self, number: int) -> None:
        """A signal has stopped the first process."""
        self._stopped = True
        self._tell(_STOPPED, number)

    def continued(self) -> None:
        """The first process goes on, if it was stopped."""
        if not self._stopped:
            return
        self._stopped = False
        self._tell(_CONTINUED)
        end = time.monotonic() + ANSWER_S
        # A SIGCONT has no effect on a front that is about to stop itself.
        while self._shared[_HALTING] and time.monotonic() < end:
            with suppress(OSError):
                os.kill(self._front, signal.SIGCONT)
            time.sleep(0.0001)

    def ended(self, code: int, reports: bool) -> None:
        """The first process has ended, and others live on: serve them in the background.

        The streams of the caller are given up, which may wait for the end of what comes from them;
        standard error only if no report is to go there.
        """
        if self._into < 0:
            return
        os.setsid()
        void = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for number in range(STDERR + (not reports)):
            os.dup2(void, number, inheritable=False)
        os.close(void)
        self._at_its_death(0)
        self._tell(_ENDED, code, int(reports))
        os.close(self._into)
        self._into = -1

    def keep(self, file: int) -> bool:
        """Let whatever maps this memory file be killed when the supervisor has died.

        Without ptrace only. Whether there is a keeper now.
        """
        self._tell(_KEEP, file)
        end = time.monotonic() + ANSWER_S
        while self._into >= 0 and not self._shared[_KEPT] and time.monotonic() < end:
            time.sleep(0.0001)
        return bool(self._shared[_KEPT])

    def over(self) -> None:
        """Nothing is left that a keeper would have to kill."""
        self._shared[_OVER] = 1

    def _tell(self, *words: object) -> None:
        if self._into >= 0:
            with suppress(OSError):
                os.write(self._into, (" ".join(map(str, words)) + "\n").encode())

    def _at_its_death(self, number: int) -> None:
        import ctypes

        from softsgx.runner.host.abi import PR_SET_PDEATHSIG

        ctypes.PyDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


class _Front:
    """The front, all of whose signals are blocked: it takes them one by one."""

    def __init__(
        self, caller: Inherited, counts: SignalCounts, news: int, shared: memoryview, child: int
    ) -> None:
        self._caller = caller
        self._counts = counts
        self._news = news
        self._shared = shared
        self._supervisor = child
        self._keeper = 0
        self._first = 0
        self._halt = 0  # the signal that has stopped the first process
        self._early: list[int] = []  # signals that came before the program was there
        self._code: int | None = None  # of the first process, while others live on
        self._until = time.monotonic() + _FOREVER_S
        os.set_blocking(news, False)
        fcntl.fcntl(news, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(news, fcntl.F_GETFL)
        fcntl.fcntl(news, fcntl.F_SETFL, flags | os.O_ASYNC)  # SIGIO when there are news
        for number in caller.ignored:
            signal.signal(number, signal.SIG_DFL)  # the program may handle it nonetheless

    def run(self) -> int:
        """The exit code of the run, as soon as it is known."""
        while True:
            status = self._reap()
            self._read()
            if status is not None:
                self._until_all_are_killed()
                return self._over(status)
            if self._halt:
                self._stop()
            left_s = self._until - time.monotonic()
            if self._code is not None and left_s <= 0:
                return self._code
            info = signal.sigtimedwait(signal.valid_signals(), max(left_s, 0))
            if info is not None:
                self._signal(info)

    def _reap(self) -> int | None:
        """The wait status of the supervisor, once it has ended. There may be other children."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._keeper:
                    self._keeper = 0
                if ended[0] == self._supervisor:
                    return ended[1]
        return None

    def _until_all_are_killed(self) -> None:
        """The caller is to find nothing of the run left: the keeper ends when it has killed all."""
        end = time.monotonic() + _KILLED_S
        while self._keeper and not self._shared[_OVER] and time.monotonic() < end:
            self._reap()
            time.sleep(0.001)

    def _read(self) -> None:
        try:
            said = os.read(self._news, 1 << 16).decode("ascii")
        except BlockingIOError:
            return
        for line in said.splitlines():
            what, *numbers = line.split()
            self._heard(what, [int(number) for number in numbers])

    def _heard(self, what: str, numbers: list[int]) -> None:
        if what == _STARTED:
            self._first = numbers[0]
            for number in self._early:
                self._pass_on(number)
        elif what == _STOPPED:
            self._halt = numbers[0]
        elif what == _CONTINUED:
            self._halt = 0
        elif what == _KEEP:
            self._keeper = os.fork()
            if not self._keeper:
                be_keeper(self._supervisor, numbers[0], self._shared, _KEPT, _OVER)
        else:
            assert what == _ENDED
            self._first = 0
            self._code, reports = numbers
            self._until = time.monotonic() + (REPORTS_S if reports else 0)

    def _over(self, status: int) -> int:
        """The exit code, after the end of the supervisor."""
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        if self._code is not None:
            return self._code
        name = signal.Signals(os.WTERMSIG(status)).name
        say(f"softsgx: run: the supervisor was killed by {name}, and the program with it\n")
        return EXIT_LOST

    # Signals

    def _signal(self, info: signal.struct_siginfo) -> None:
        number = info.si_signo
        if number == signal.SIGCHLD or self._ours(info):
            return
        self._read()  # what the supervisor said before this signal came may lie unread
        if not self._first and self._code is None:
            self._before_the_program(number)
        elif not self._of_all(info) or self._survived(number):
            self._pass_on(number)

    def _ours(self, info: signal.struct_siginfo) -> bool:
        """Whether it tells of news, or is the supervisor's `continued`."""
        if info.si_signo == signal.SIGIO:
            return info.si_code > 0
        return info.si_signo == signal.SIGCONT and info.si_pid == self._supervisor

    def _of_all(self, info: signal.struct_siginfo) -> bool:
        """Whether it was sent to the process group, and so to the program as well."""
        if info.si_signo in COUNTED:
            return self._counts.to_both(info.si_signo, self._supervisor)
        return info.si_code > 0  # by the kernel, for the terminal

    def _survived(self, number: int) -> bool:
        """Whether the program lives on after a signal that would have ended it.

        Whoever signals softsgx by its name (pkill) signals front and supervisor, which looks like
        the process group, and spares the program.
        """
        if number not in _ENDS or not self._first:
            return False
        with suppress(OSError):  # it has died already
            masks = signal_masks(self._first)
            if any(masks[name] >> (number - 1) & 1 for name in ("SigBlk", "SigIgn", "SigCgt")):
                return False
        end = time.monotonic() + _DEATH_S
        while time.monotonic() < end:
            if not alive(self._first):
                return False
            time.sleep(_DEATH_S / 100)
        return True

    def _before_the_program(self, number: int) -> None:
        """As it would be just before execve: it ends the run, or the program gets it, or nobody."""
        caller = self._caller
        if number in caller.blocked or number in _STOP:
            self._early.append(number)
        elif number not in caller.ignored and number not in _NOTHING:
            os.kill(self._supervisor, signal.SIGKILL)
            os.waitpid(self._supervisor, 0)
            _default(number)
            os._exit(128 + number)  # as the first process of a container it does not die of it

    def _stop(self) -> None:
        """Stop as the first process did, unless it goes on already (`ToFront.continued`)."""
        self._shared[_HALTING] = 1
        self._read()
        if self._halt:
            _default(self._halt)
            self._halt = 0
        self._shared[_HALTING] = 0

    def _pass_on(self, number: int) -> None:
        # By its number, not by a descriptor: a filter may kill whoever asks for one. The supervisor
        # says that the process has ended as soon as it has waited for it.
        with suppress(ProcessLookupError, PermissionError):
            if self._first:
                os.kill(self._first, number)


def _default(number: int) -> None:
    """Take a signal as a process does that neither handles nor blocks it."""
    if number != signal.SIGSTOP:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)  # one with that which is pending already
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
