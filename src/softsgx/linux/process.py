"""Processes and threads, as far as the driver can see them: mm, descriptors, pending signals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, Final, NamedTuple, ParamSpec, TypeVar

from softsgx.events.kernel import ThreadSwitchedIn
from softsgx.linux.errno import EBADF, EMFILE
from softsgx.linux.mm import Mm
from softsgx.sim import Task, TaskExit

if TYPE_CHECKING:
    from softsgx.linux.kernel import Kernel
    from softsgx.linux.vfs import File
    from softsgx.sim import Steps

SIGILL: Final = 4
SIGTRAP: Final = 5
SIGBUS: Final = 7
SIGFPE: Final = 8
SIGSEGV: Final = 11

SEGV_MAPERR: Final = 1
SEGV_ACCERR: Final = 2
SEGV_PKUERR: Final = 4
SEGV_CPERR: Final = 10
BUS_ADRALN: Final = 1
BUS_ADRERR: Final = 2
ILL_ILLOPN: Final = 2
TRAP_BRKPT: Final = 1
TRAP_TRACE: Final = 2
TRAP_HWBKPT: Final = 4
FPE_INTDIV: Final = 1
FPE_FLTDIV: Final = 3
FPE_FLTOVF: Final = 4
FPE_FLTUND: Final = 5
FPE_FLTRES: Final = 6
FPE_FLTINV: Final = 7
SI_KERNEL: Final = 0x80

_SIGNALS: Final = {
    SIGILL: "SIGILL",
    SIGTRAP: "SIGTRAP",
    SIGBUS: "SIGBUS",
    SIGFPE: "SIGFPE",
    SIGSEGV: "SIGSEGV",
}
_CODES: Final = {
    (SIGSEGV, SEGV_MAPERR): "SEGV_MAPERR",
    (SIGSEGV, SEGV_ACCERR): "SEGV_ACCERR",
    (SIGSEGV, SEGV_PKUERR): "SEGV_PKUERR",
    (SIGSEGV, SEGV_CPERR): "SEGV_CPERR",
    (SIGBUS, BUS_ADRALN): "BUS_ADRALN",
    (SIGBUS, BUS_ADRERR): "BUS_ADRERR",
    (SIGILL, ILL_ILLOPN): "ILL_ILLOPN",
    (SIGTRAP, TRAP_BRKPT): "TRAP_BRKPT",
    (SIGTRAP, TRAP_TRACE): "TRAP_TRACE",
    (SIGTRAP, TRAP_HWBKPT): "TRAP_HWBKPT",
    (SIGFPE, FPE_INTDIV): "FPE_INTDIV",
    (SIGFPE, FPE_FLTDIV): "FPE_FLTDIV",
    (SIGFPE, FPE_FLTOVF): "FPE_FLTOVF",
    (SIGFPE, FPE_FLTUND): "FPE_FLTUND",
    (SIGFPE, FPE_FLTRES): "FPE_FLTRES",
    (SIGFPE, FPE_FLTINV): "FPE_FLTINV",
}

RLIMIT_NOFILE: Final = 1024


class Signal(NamedTuple):
    """siginfo of a synchronous signal, with the exception that caused it."""

    number: int
    code: int
    address: int
    vector: int
    error_code: int

    @property
    def name(self) -> str:
        """Its name, such as SIGSEGV."""
        return _SIGNALS[self.number]

    @property
    def text(self) -> str:
        """Its name and the name of its code."""
        code = "SI_KERNEL" if self.code == SI_KERNEL else f"code {self.code}"
        return f"{self.name} {_CODES.get((self.number, self.code), code)}"


class Process:
    """One process: an address space, open descriptors, threads."""

    def __init__(self, kernel: Kernel, name: str, mm: Mm | None = None) -> None:
        self.kernel = kernel
        self.name = name
        self.mm = mm if mm is not None else Mm(kernel, name)
        self.files: dict[int, File] = {}
        self.threads: list[Thread] = []

    def install_fd(self, file: File) -> int:
        """The lowest free descriptor for `file`, which takes over the reference of the caller."""
        for fd in range(3, RLIMIT_NOFILE):
            if fd not in self.files:
                self.files[fd] = file
                return fd
        return -EMFILE

    def fget(self, fd: int) -> File | int:
        """The open file of a descriptor, or -EBADF."""
        return self.files.get(fd, -EBADF)


class ThreadKilled(TaskExit):
    """Ends a thread that exit_group or execve in another thread of its process has killed."""


class Thread:
    """struct task_struct: one thread of a process, or a kernel thread (process None).

    `cpu` is the logical processor it runs on; `pending_signals` counts signals that interrupt an
    interruptible sleep or a loop that tests for them, until their handlers run on the way back to
    user space. `killed` is a pending SIGKILL, `in_kernel` whether it is in a system call or fault.
    `real_signals` asks whether a signal is pending for the real thread that this one represents;
    it is set while a call is interruptible.
    """

    __slots__ = (
        *("cpu", "in_kernel", "killed", "kernel", "name", "on_cpu", "pending_signals", "process"),
        "real_signals",
    )

    def __init__(self, kernel: Kernel, process: Process | None, name: str, cpu: int) -> None:
        self.kernel = kernel
        self.process = process
        self.name = name
        self.cpu = cpu
        self.pending_signals = 0
        self.killed = False
        self.real_signals: Callable[[bool], bool] | None = None
        self.in_kernel = False
        self.on_cpu = False
        if process is not None:
            process.threads.append(self)

    @property
    def mm(self) -> Mm:
        """The address space of a user thread."""
        assert self.process is not None, "a kernel thread has no mm"
        return self.process.mm

    def signal_pending(self, again: bool = False) -> bool:
        """Whether a signal is pending; `again` if the caller has asked just before."""
        if self.real_signals is not None and self.real_signals(again):
            return True
        return self.pending_signals > 0 or self.killed

    def run_user_code(self) -> None:
        """To be called where the thread is in user space: ThreadKilled if it was killed."""
        if self.killed:
            raise ThreadKilled(f"{self.name}: its process has ended")

    def switch_in(self) -> None:
        """Start running on `cpu`: load the address space there."""
        lp = self.kernel.lp(self)
        mm = self.mm
        loaded = self.kernel.loaded.setdefault(self.cpu, mm)
        assert loaded is mm, f"{self.name}: {loaded.name} runs on processor {self.cpu}"
        self.on_cpu = True
        mm.cpumask[self.cpu] = mm.cpumask.get(self.cpu, 0) + 1
        if lp.space is not mm.space:
            lp.load_cr3(mm.space)
        log = self.kernel.processor.log
        if log.on and self.process is not None:
            log.emit(ThreadSwitchedIn(self.cpu, self.name, self.process.name, mm.space.name))

    def switch_out(self) -> None:
        """Stop running on `cpu`; no effect if it does not run."""
        if not self.on_cpu:
            return
        self.on_cpu = False
        mask = self.mm.cpumask
        mask[self.cpu] -= 1
        if not mask[self.cpu]:
            del mask[self.cpu], self.kernel.loaded[self.cpu]


def refuse_cpu(kernel: Kernel, cpu: int, mm: Mm | None) -> None:
    """ValueError if no thread of `mm` (None: of a new one) can run on logical processor `cpu`.

    Threads of one process may share a processor and take turns. No processor switches between
    processes. The last processor is for kernel threads.
    """
    last = len(kernel.processor.lps) - 2
    if not 0 <= cpu <= last:
        raise ValueError(f"cpu {cpu}: this machine has processors 0 to {last}")
    loaded = kernel.loaded.get(cpu)
    if loaded is not None and loaded is not mm:
        raise ValueError(
            f"cpu {cpu}: process {loaded.name!r} runs there; another one needs its own processor"
        )


class InKernel:
    """The wait of exit_group and execve until every killed thread has left the kernel."""

    name = "killed threads to leave the kernel"

    def __init__(self, threads: list[Thread]) -> None:
        self.threads = threads

    def ready(self, _task: Task, /) -> bool:
        """Whether none of them is in the kernel."""
        return not any(thread.in_kernel for thread in self.threads)

    def holders(self) -> Sequence[Task]:
        """Unknown: a thread does not know its task."""
        return ()


P = ParamSpec("P")
T = TypeVar("T")


def kernel_entry(
    body: Callable[Concatenate[Thread, P], Steps[T]],
) -> Callable[Concatenate[Thread, P], Steps[T]]:
    """An entry from user space: on the way back signals are handled, and killed threads end.

    A fault that the kernel itself takes returns to the kernel, without either.
    """

    @wraps(body)
    def enter(current: Thread, /, *args: P.args, **kwargs: P.kwargs) -> Steps[T]:
        if current.in_kernel or current.process is None:
            return (yield from body(current, *args, **kwargs))
        current.run_user_code()
        current.in_kernel = True
        try:
            result = yield from body(current, *args, **kwargs)
        finally:
            current.in_kernel = False
        current.pending_signals = 0
        current.run_user_code()
        return result

    return enter
