"""Supervised threads, and system calls run on their behalf.

An engine keeps its own data about a thread itself. ptrace requests are valid only while the thread
is stopped.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeVar

from softsgx.linux.process import Thread
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.inserted.layout import GATE, GATE_DONE
from softsgx.runner.process.own_filters import UNCONFINED
from softsgx.runner.process.signals import Due, DueSignals
from softsgx.runner.process.world import World

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.linux.process import Signal
    from softsgx.runner.process.space import Space
    from softsgx.sim import Steps

T = TypeVar("T")

# The registers of user_regs_struct in the order of lp.regs.
ORDER: Final = (
    p.RAX, p.RCX, p.RDX, p.RBX, p.RSP, p.RBP, p.RSI, p.RDI,
    p.R8, p.R9, p.R10, p.R11, p.R12, p.R13, p.R14, p.R15, p.EFLAGS, p.RIP,
)  # fmt: skip

in_model_order: Final = itemgetter(*ORDER)
# Makes a user_regs_struct of the model's registers, a user_regs_struct, and -1 for orig_rax.
_in_user_order: Final = itemgetter(
    *(
        ORDER.index(n) if n in ORDER else len(ORDER) + (27 if n == p.ORIG_RAX else n)
        for n in range(27)
    )
)


class Tracee:
    """One supervised thread. If `wait` sees it end, `ends` gets its number and its status."""

    def __init__(
        self, world: World, pid: int, tid: int, space: Space, ends: list[tuple[int, int]]
    ) -> None:
        self.world = world
        self._lps = world.machine.processor.lps
        self.pid = pid
        self.tid = tid
        self.space = space
        self._ends = ends
        space.users += 1
        self.thread: Thread | None = None
        # Descriptors with a filter of their own; None: calls on all descriptors stop. Shared by the
        # threads of a process, as descriptors and filters are.
        self.watched: set[int | None] = set()
        # What to do at the exit stop of the system call that is being executed.
        self.at_exit: Callable[[Tracee], None] | None = None
        self.starting = False  # its first stop is still to come
        # It has an enclave call in progress: it is inside, or at its AEP after an interrupt.
        self.inside = False
        self.mailbox: int | None = None  # where its request waits; None: stopped by ptrace
        self.due = DueSignals(tid)
        self.frame: Due | None = None  # of the signal whose handler it is being stepped to
        self.forced: Signal | None = None  # a signal to be sent once the thread is stopped
        self.sent_event = 0  # the number of the SignalSent of `forced`
        self.interrupted_early = False  # its last ioctl was interrupted before it did anything
        # struct sigaction of `forced.WATCHED`, as the program set them; shared by all threads.
        self.actions: dict[int, bytes] = {}
        # The supervisor's memory files: descriptor here -> descriptor there, while it is prepared.
        self.given: dict[int, int] = {}
        self.cpuid_faulting = False  # its CPUID is an exception
        self.cpuid_denied = False  # the program asked for SIGSEGV at its CPUID
        self.exec_mask = 0  # the signals that were blocked when its program began
        self.seccomp = UNCONFINED
        # No filter can be added to all threads of the process, and one stops all that others would.
        self.all_stops = False

    @property
    def lp(self) -> LogicalProcessor:
        """Its logical processor."""
        thread = self.thread
        assert thread is not None
        return self._lps[thread.cpu]

    def make_current(self) -> None:
        """Make this thread `current`: memory and descriptors are reached by its number.

        The thread used before may have ended. After vfork two processes share an address space, but
        each has its own descriptors.
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
        """Drive a system call or page fault of its model thread to its end."""
        return self.world.run(body, self.model().cpu)

    def drop_not_copied(self) -> None:
        """Unmap what fork should not have copied; no other thread of the process exists yet."""
        for start, end in self.space.not_copied:
            self.inject(nr.MUNMAP, start, end - start)
        self.space.not_copied.clear()

    def drop_model(self) -> None:
        """Leave the enclave and the processor: it has ended, or gets a new address space."""
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
        """Wait for its next stop, and return the status. NoSuchTracee if it ends instead."""
        status = p.wait(self.tid)
        if not os.WIFSTOPPED(status):
            self._ends.append((self.tid, status))
            raise p.NoSuchTracee(errno.ESRCH, "the tracee ended where a stop was waited for")
        return status

    def send(self, number: int, due: Due) -> None:
        """Send it a signal, and keep what its handler must find; it is stopped."""
        self.due.send(self.pid, number, due)

    # Registers

    def host_regs(self, regs: list[int]) -> None:
        """Load its logical processor from a user_regs_struct."""
        lp = self.lp
        lp.regs[:] = in_model_order(regs)
        lp.fsbase, lp.gsbase = regs[p.FS_BASE], regs[p.GS_BASE]

    def to_user(self, regs: list[int]) -> list[int]:
        """A user_regs_struct of its logical processor; segments are those of `regs`."""
        return list(_in_user_order((*self.lp.regs, *regs, p.MASK64)))

    def native_slot(self, address: int) -> None:
        """Tell the thread's own code where its slot is, if it is not traced."""
        held = p.HELD.get(self.tid)
        if held is not None:
            held.native_slot(address)

    def confine(self, passes: bytes) -> None:
        """If it is not traced, have calls judged whose bit is not set: filters are to be asked."""
        held = p.HELD.get(self.tid)
        if held is not None:
            held.confine(passes)

    def runs_inside(self, inside: bool) -> None:
        """Tell the thread's own code whether it executes enclave code, if it is not traced."""
        held = p.HELD.get(self.tid)
        if held is not None:
            held.runs_inside(inside)

    # System calls on its behalf, while it is stopped outside of one

    def inject(self, number: int, *args: int) -> int:
        """Run one system call at the gate to its end, and return the result. Registers are kept."""
        held = p.HELD.get(self.tid)
        if held is not None:
            return held.call(number, args)
        saved = p.get_regs(self.tid)
        result = self._at_gate(saved, GATE, number, args)
        saved[p.ORIG_RAX] = p.MASK64
        p.set_regs(self.tid, saved)
        return result

    def inject_at(self, instruction: int, number: int, *args: int) -> int:
        """As `inject`, by the `syscall` instruction at address `instruction`, before the gate is
        there. For filters the call is one from the gate."""
        held = p.HELD.get(self.tid)
        if held is not None:
            return held.call(number, args)
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
        # handler of a thread that blocks it.
        while stops < 2:
            p.request(p.PTRACE_SYSCALL, self.tid)
            status = self.wait()
            number_of, event = os.WSTOPSIG(status), status >> 16
            if number_of == p.SYSCALL_STOP:
                stops += 1
                if stops == 1 and rip != GATE:  # filters come after the entry stop
                    regs = p.get_regs(self.tid)
                    regs[p.RIP] = GATE_DONE
                    p.set_regs(self.tid, regs)
            elif event == 0:
                others.append((number_of, p.get_siginfo(self.tid)))
        for number_of, info in others:
            self.send(number_of, Due(info))
        result = p.get_regs(self.tid)[p.RAX]
        return result - (1 << 64) if result >= 1 << 63 else result
