"""Supervised threads and their address spaces, and system calls run on their behalf.

A `Space` is one address space: what was mapped into it, its sites. A `Tracee` is one thread. What
an engine knows of either it keeps itself. Requests of a tracee are valid only while it is stopped.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from softsgx.linux.mm import VM_DONTCOPY
from softsgx.linux.process import Thread
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.inserted.layout import GATE
from softsgx.runner.process.hostmem import HostMemory
from softsgx.runner.process.signals import Due, DueSignals
from softsgx.runner.process.world import LiveProcess, LiveUser, World, enclave_area

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.linux.process import Signal
    from softsgx.sim import Steps

T = TypeVar("T")

# lp.regs order (RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15, RFLAGS, RIP) in user_regs_struct.
ORDER: Final = (
    p.RAX, p.RCX, p.RDX, p.RBX, p.RSP, p.RBP, p.RSI, p.RDI,
    p.R8, p.R9, p.R10, p.R11, p.R12, p.R13, p.R14, p.R15, p.EFLAGS, p.RIP,
)  # fmt: skip

in_model_order: Final = itemgetter(*ORDER)
# Of the model's registers, then user_regs_struct, then -1 for orig_rax: user_regs_struct again.
_in_user_order: Final = itemgetter(
    *(
        ORDER.index(n) if n in ORDER else len(ORDER) + (27 if n == p.ORIG_RAX else n)
        for n in range(27)
    )
)


class Space:
    """One address space. `users` counts its threads; `vdso_enclu` is the AEP of its vDSO."""

    def __init__(self, world: World, pid: int) -> None:
        self.world = world
        self.process = LiveProcess(world, pid)
        self.process.mm.exited = False
        self.users = 0
        self.sites: dict[int, str] = {}  # address -> "cpuid" or "enclu", patched in this space
        self.gate_ready = False
        self.real_vdso = 0
        self.filters = 0
        self.traced: list[tuple[int, int]] = []
        self.locks_new = False  # mlockall: new mappings are locked
        # Enclave areas that fork copied and Linux would not have: to be unmapped before it runs.
        self.not_copied: list[tuple[int, int]] = []
        self.libraries: list[tuple[int, int]] = []  # code of the C library, start and end
        # By process: the last signal that it got, and the number of its SignalSent, if it has one.
        self.delivered: dict[int, tuple[int, int]] = {}
        self.host: HostMemory | None = None

    @property
    def mm(self) -> Any:
        """The model's address space."""
        return self.process.mm

    def attach_memory(self) -> HostMemory:
        """Open the real memory, once something needs it."""
        if self.host is None:
            mm = self.process.mm
            # Not the process's own number: its first thread may have ended.
            self.host = HostMemory(self.process.pid, lambda address: enclave_area(mm, address))
            mm.user = LiveUser(self.world, self.host)
            mm.space.host_pte = self.host.page_table_entry
        return self.host

    def mapped_code(self, start: int, end: int, library: bool) -> None:
        """A file of code was mapped, in place of whatever was there."""
        self.libraries = [
            part
            for low, high in self.libraries
            for part in ((low, min(high, start)), (max(low, end), high))
            if part[0] < part[1]
        ]
        if library:
            self.libraries.append((start, end))

    def in_library(self, rip: int) -> bool:
        """Whether an address is in code of the C library."""
        return any(start <= rip < end for start, end in self.libraries)

    def forked(self, pid: int, process: LiveProcess | None) -> Space:
        """The copy that fork made, for the child `pid`."""
        child = Space(self.world, pid)
        if process is not None:
            child.process = process
        child.sites = dict(self.sites)
        child.gate_ready = self.gate_ready
        child.real_vdso = self.real_vdso
        child.filters = self.filters
        child.traced = list(self.traced)
        child.not_copied = [
            (vma.start, vma.end) for vma in self.mm.vmas if vma.advised & VM_DONTCOPY
        ]
        child.libraries = list(self.libraries)
        return child

    def drop_not_copied(self, t: Tracee) -> None:
        """Unmap what fork should not have copied; `t` is the only thread of the process."""
        for start, end in self.not_copied:
            t.inject(nr.MUNMAP, start, end - start)
        self.not_copied.clear()

    def close(self) -> None:
        """The last thread is gone."""
        if self.host is not None:
            self.host.close()
            self.host = None


class Tracee:
    """One supervised thread. Its end goes to `ends`, with its status, if it is seen here."""

    def __init__(
        self, world: World, pid: int, tid: int, space: Space, ends: list[tuple[int, int]]
    ) -> None:
        self.world = world
        self.pid = pid
        self.tid = tid
        self.space = space
        self._ends = ends
        space.users += 1
        self.thread: Thread | None = None
        # Descriptors with a filter of their own; None: calls on all descriptors stop. The set is
        # the process's, as descriptors and filters are.
        self.watched: set[int | None] = set()
        # What to do at the exit stop of the system call that is being executed.
        self.at_exit: Callable[[Tracee], None] | None = None
        self.starting = False  # its first stop is still to come
        # An enclave call in progress: inside the enclave, or at its AEP after an interrupt.
        self.inside = False
        self.mailbox: int | None = None  # where its request waits; None: stopped by ptrace
        self.due = DueSignals(tid)
        self.frame: Due | None = None  # of the signal to whose handler it is being stepped
        self.forced: Signal | None = None  # a signal to be sent once the thread is stopped
        self.told = 0  # the number of its SignalSent
        self.interrupted_early = False  # its last ioctl, before it did anything
        # struct sigaction of `forced.WATCHED`, as the program set them; of all threads.
        self.actions: dict[int, bytes] = {}
        self.cpuid_faulting = False  # its CPUID is an exception
        self.cpuid_denied = False  # the program asked that its CPUID be refused

    @property
    def lp(self) -> LogicalProcessor:
        """Its logical processor."""
        assert self.thread is not None
        return self.world.machine.processor.lps[self.thread.cpu]

    def make_current(self) -> None:
        """This thread is `current`: its number leads to the memory and descriptors of its process.

        Another thread of the process may have ended. After vfork two processes have one address
        space, but each its own descriptors.
        """
        self.space.process.pid = self.tid
        if self.space.host is not None:
            self.space.host.pid = self.tid

    def model(self) -> Thread:
        """Its thread in the model, made when first needed."""
        if self.thread is None:
            lp = self.world.take_lp()
            self.space.attach_memory()
            self.thread = Thread(self.world.kernel, self.space.process, str(self.tid), lp.id)
            self.thread.switch_in()
        return self.thread

    def run(self, body: Steps[T]) -> T:
        """Drive a system call or fault of its model thread to its end."""
        return self.world.run(body, self.model().cpu)

    def drop_model(self) -> None:
        """It has ended, or has a new address space: leave the enclave and the processor."""
        if self.thread is None:
            return
        lp = self.lp
        if lp.enclave_mode:
            lp.interrupt()
        self.thread.switch_out()
        if self.thread in self.space.process.threads:
            self.space.process.threads.remove(self.thread)
        self.thread = None
        self.inside = False
        self.mailbox = None
        self.world.give_lp(lp)

    # Stops and signals

    def wait(self) -> int:
        """Wait for its next stop; the status. NoSuchTracee if it ends instead."""
        _, status = os.waitpid(self.tid, p.WALL)
        if not os.WIFSTOPPED(status):
            self._ends.append((self.tid, status))
            raise p.NoSuchTracee(errno.ESRCH, "the tracee ended where a stop was waited for")
        return status

    def send(self, number: int, due: Due) -> None:
        """Send it a signal, with what its handler is to find; it is stopped."""
        self.due.send(self.pid, number, due)

    # Registers

    def host_regs(self, regs: list[int]) -> None:
        """user_regs_struct -> the logical processor."""
        lp = self.lp
        lp.regs[:] = in_model_order(regs)
        lp.fsbase, lp.gsbase = regs[p.FS_BASE], regs[p.GS_BASE]

    def to_user(self, regs: list[int]) -> list[int]:
        """The logical processor -> user_regs_struct; segments as they are in `regs`."""
        return list(_in_user_order((*self.lp.regs, *regs, p.MASK64)))

    # System calls on its behalf, while it is stopped outside of one

    def inject(self, number: int, *args: int) -> int:
        """Run one system call at the gate and wait for it; its result. Registers are kept."""
        saved = p.get_regs(self.tid)
        result = self._at_gate(saved, GATE, number, args)
        saved[p.ORIG_RAX] = p.MASK64
        p.set_regs(self.tid, saved)
        return result

    def inject_at(self, instruction: int, number: int, *args: int) -> int:
        """As `inject`, over a `syscall` instruction at another address."""
        saved = p.get_regs(self.tid)
        result = self._at_gate(saved, instruction, number, args)
        saved[p.ORIG_RAX] = p.MASK64
        p.set_regs(self.tid, saved)
        return result

    def _at_gate(self, saved: list[int], rip: int, number: int, args: tuple[int, ...]) -> int:
        regs = list(saved)
        regs[p.RIP] = rip
        regs[p.RAX] = number
        regs[p.ORIG_RAX] = p.MASK64
        for at, value in zip((p.RDI, p.RSI, p.RDX, p.R10, p.R8, p.R9), args, strict=False):
            regs[at] = value & p.MASK64
        p.set_regs(self.tid, regs)
        others: list[tuple[int, bytes]] = []  # signals that arrive meanwhile; sent again afterwards
        stops = 0
        # PTRACE_SYSCALL, not single steps: the SIGTRAP of a step is forced, which changes mask and
        # handler of a program that blocks it.
        while stops < 2:
            p.request(p.PTRACE_SYSCALL, self.tid)
            status = self.wait()
            number_of, event = os.WSTOPSIG(status), status >> 16
            if number_of == p.SYSCALL_STOP:
                stops += 1
            elif event == 0:
                others.append((number_of, p.get_siginfo(self.tid)))
        for number_of, info in others:
            self.send(number_of, Due(info))
        result = p.get_regs(self.tid)[p.RAX]
        return result - (1 << 64) if result >= 1 << 63 else result
