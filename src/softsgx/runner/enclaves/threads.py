"""A thread in an enclave, as kernel and vDSO see it: ENCLU outside, exceptions, signals, the exit.

A thread that executed ENCLU outside waits, in its mailbox or in a ptrace stop, until the enclave is
left. Meanwhile its logical processor is inside, or, after an interrupt, at the AEP. What executes
the code inside is an engine (`engine.py`), which has one of these.

How the kernel and the vDSO handle an exception is decided in `linux/traps.py` and `linux/vdso.py`,
also for enclaves in Python (`system/enclave.py`, `system/host.py`). The loop around ENCLU is not
shared: there it is a task, so that others may get in between; as a task it would cost 1 us of the
42 us of an empty call here. What follows differs, too: here a mailbox is answered, or a stopped
thread gets its registers and a signal; there a generator is suspended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from softsgx.cpu.fault import Fault
from softsgx.events.cpu import AccessFaulted, InstructionFaulted
from softsgx.events.kernel import PageFaultBegun, PageFaultEnded
from softsgx.linux.mm import TASK_SIZE, VM_EXEC, VM_READ, VM_WRITE
from softsgx.linux.process import (
    BUS_ADRERR,
    SEGV_ACCERR,
    SEGV_MAPERR,
    SIGBUS,
    SIGSEGV,
    Signal,
)
from softsgx.linux.trace import trace_signal
from softsgx.linux.traps import user_exception
from softsgx.linux.vdso import fixup_vdso_exception
from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.runner.code.trapped import ENCLU
from softsgx.runner.host import ptrace as p
from softsgx.runner.inserted.box import IDLE
from softsgx.runner.process.forced import force_sig
from softsgx.runner.process.signals import Due, blocks_or_ignores
from softsgx.spec import faults
from softsgx.spec.registers import RAX, RBX, RCX, RDI, RDX, RIP, RSI

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.cpu.aex import Delivered
    from softsgx.linux.process import Thread
    from softsgx.runner.inserted.records import AnyMailboxes
    from softsgx.runner.inserted.vdso import VdsoImage
    from softsgx.runner.process.hostmem import HostMemory
    from softsgx.runner.process.tracee import Tracee
    from softsgx.runner.process.world import World

_FETCH_OUTSIDE: Final = "ACCESS.01"


class Executing(Protocol):
    """What `EnclaveThreads` needs of the engine that executes the code inside."""

    def settle(self) -> None:
        """Called before the model is used for more than the EENTER or EEXIT of one thread.

        Afterwards the state of every logical processor is that of its thread.
        """

    def put_registers(self, t: Tracee) -> None:
        """Give a stopped thread the registers of its logical processor, now outside the enclave."""


class EnclaveThreads:
    """What happens to threads in enclaves, whichever engine executes the code inside."""

    def __init__(
        self, world: World, mailboxes: AnyMailboxes, vdso: VdsoImage, engine: Executing
    ) -> None:
        self.world = world
        self.mailboxes = mailboxes
        self.vdso = vdso
        self.engine = engine

    # Requests

    def requested(self, t: Tracee, mailbox: int) -> None:
        """Load the logical processor with the registers that a thread left in its mailbox."""
        box = self.mailboxes.boxes[mailbox]
        if t.thread is None:
            t.model()
        lp = t.lp
        lp.regs[:] = box.registers
        lp.x.legacy = box.fx
        t.mailbox = mailbox
        t.inside = True

    def trapped(self, t: Tracee, regs: list[int], rip: int) -> None:
        """Load the logical processor with the registers of a ptrace stop; its ENCLU is at `rip`."""
        t.model()
        lp = t.lp
        t.host_regs(regs)
        lp.regs[RIP] = rip
        lp.x.legacy = p.get_fpregs(t.tid)
        t.mailbox = None
        t.inside = True

    # ENCLU

    def enclu_outside(self, t: Tracee) -> bool:
        """Execute the ENCLU at RIP, outside; True if the thread is inside afterwards."""
        lp = t.lp
        regs = lp.regs
        while True:
            rip = regs[RIP]
            try:
                lp.enclu(regs[RAX], regs[RBX], regs[RCX], regs[RDX])
            except Fault as fault:
                regs[RIP] = rip
                delivered = lp.deliver_fault(fault)
                if not self._repaired(t, delivered):
                    return False
                continue
            return True

    def resumed(self, t: Tracee) -> bool:
        """If an interrupt or a repaired fault has left the processor at the AEP, execute its ENCLU.

        If there is no ENCLU, the thread continues outside. True if the thread is inside.
        """
        if t.lp.secs is not None:
            return True
        if self._is_enclu(t, t.lp.regs[RIP]):
            return self.enclu_outside(t)
        self.leave(t)
        return False

    def _is_enclu(self, t: Tracee, rip: int) -> bool:
        """Whether there is an ENCLU at `rip`, replaced or not."""
        if rip == self.vdso.enclu or t.space.sites.get(rip) == "enclu":
            return True
        host = t.space.attach_memory()
        return host.read(rip, len(ENCLU)) == ENCLU and bool(host.area(rip) & VM_EXEC)

    # Exceptions

    def fault_inside(self, t: Tracee, fault: Fault) -> None:
        """AEX, then the kernel's part: afterwards the thread is at its AEP, or outside."""
        if self.world.log.on:
            _tell_fault(t.lp, fault)
        delivered = t.lp.deliver_fault(fault)
        self._repaired(t, delivered)

    def _repaired(self, t: Tracee, delivered: Delivered) -> bool:
        """Handle an exception: True if the kernel repaired its cause, and the thread goes on.

        False if the thread was sent to the vDSO's fix-up or gets a signal.
        """
        self.engine.settle()
        found = self._kernel(t, delivered)
        if found is None:
            return True
        regs = t.lp.regs
        if regs[RIP] == self.vdso.enclu:
            vector, code, address = delivered.vector, found.error_code, delivered.cr2
            fixed = fixup_vdso_exception(t.model(), vector, code, address)
            if fixed is not None:
                regs[RDI], regs[RSI], regs[RDX] = fixed
                regs[RIP] = self.vdso.exception
                self.leave(t)
                return False
        self._signal(t, found)
        return False

    def _kernel(self, t: Tracee, delivered: Delivered) -> Signal | None:
        thread = t.model()
        if delivered.vector == faults.PF:
            code, address = delivered.code, delivered.cr2
            if address < TASK_SIZE and thread.mm.vma_lookup(address) is None:
                return _ordinary_fault(thread, t.space.attach_memory(), code, address)
        return self.world.run(user_exception(thread, delivered), thread.cpu)

    # Out

    def leave(self, t: Tracee) -> None:
        """Give the host thread the registers of its processor and let it run."""
        t.inside = False
        lp = t.lp
        mailbox = t.mailbox
        if mailbox is not None:
            t.mailbox = None
            self.mailboxes.reply(mailbox, lp.regs, lp.x.legacy)
            return
        self.engine.put_registers(t)
        p.request(p.PTRACE_CONT, t.tid)

    def put_registers(self, t: Tracee) -> None:
        """`Engine.put_registers` of a thread that was stopped outside."""
        p.set_regs(t.tid, t.to_user(p.get_regs(t.tid)))
        p.set_fpregs(t.tid, t.lp.x.legacy)

    def _signal(self, t: Tracee, found: Signal) -> None:
        """Have a thread get a synchronous signal; it is at RIP, as the exception left it."""
        t.inside = False
        t.sent_event = trace_signal(t.model(), found)
        t.forced = found
        if t.mailbox is not None:
            # It is running, in the futex: stop it first.
            p.request(p.PTRACE_INTERRUPT, t.tid)
            return
        self.force_signal(t)

    def force_signal(self, t: Tracee) -> None:
        """Send the signal that `_signal` decided on; the thread is stopped."""
        if t.mailbox is not None:
            self.mailboxes.control.set_state(t.mailbox, IDLE)
            t.mailbox = None
        self.engine.put_registers(t)
        found, t.forced = t.forced, None
        assert found is not None
        if blocks_or_ignores(t.tid, found.number):
            self._kill(t, found)
            return
        self._send(t, found)
        p.request(p.PTRACE_CONT, t.tid)

    def _kill(self, t: Tracee, found: Signal) -> None:
        """The thread blocks or ignores the signal, and dies by it."""
        if p.at_seccomp_stop(t.tid):
            # The system call at which it is stopped must end first.
            t.at_exit = lambda t: self._force(t, found)
            p.request(p.PTRACE_SYSCALL, t.tid)
            return
        self._force(t, found)
        p.request(p.PTRACE_CONT, t.tid)

    def _force(self, t: Tracee, found: Signal) -> None:
        force_sig(t, found.number)
        self._send(t, found)

    def _send(self, t: Tracee, found: Signal) -> None:
        t.send(found.number, Due.of(found, t.sent_event))

    def interrupted(self, t: Tracee) -> None:
        """As Engine.interrupted."""
        lp = t.lp
        if lp.enclave_mode:
            lp.interrupt()
        assert t.mailbox is not None
        self.mailboxes.control.set_state(t.mailbox, IDLE)
        t.inside = False
        t.mailbox = None
        self.engine.put_registers(t)

    def gone(self, t: Tracee) -> None:
        """As Engine.gone."""
        self.mailboxes.control.remove(t.tid)


def enclu_inside(lp: LogicalProcessor) -> Fault | None:
    """Execute the ENCLU at RIP, inside; the fault if it raised one.

    RIP stays where it is, unless the enclave was left.
    """
    regs = lp.regs
    try:
        lp.enclu(regs[RAX], regs[RBX], regs[RCX], regs[RDX])
    except Fault as fault:
        return fault
    return None


def _ordinary_fault(thread: Thread, host: HostMemory, code: int, address: int) -> Signal:
    """A page fault in other memory of the program, whose areas only the real kernel knows.

    If the area allows the access, the page does not exist, for example past the end of a file.
    """
    rights = host.rights(address)
    if rights is None:
        found = Signal(SIGSEGV, SEGV_MAPERR, address, faults.PF, code)
    elif code & faults.PFEC_SGX or not rights & (VM_WRITE if code & faults.PFEC_W else VM_READ):
        found = Signal(SIGSEGV, SEGV_ACCERR, address, faults.PF, code)
    else:
        found = Signal(SIGBUS, BUS_ADRERR, address, faults.PF, code)
    log = thread.kernel.processor.log
    if log.on:
        log.emit(PageFaultBegun(thread.cpu, thread.name, address, code))
        log.emit(PageFaultEnded(thread.cpu, thread.name, address, code, found.text))
    return found


def _tell_fault(lp: LogicalProcessor, fault: Fault) -> None:
    """Report a fault that neither an access through the TLB nor a leaf has reported."""
    rip, rule = lp.regs[RIP], fault.rule
    if rule.startswith("CODE."):
        lp.log.emit(InstructionFaulted(lp.id, rip, fault.vector, fault.code, rule))
    elif rule == _FETCH_OUTSIDE:
        lp.log.emit(AccessFaulted(lp.id, rip, FETCH, fault.vector, fault.code, rule, 0))
    elif rule.startswith("HOST."):
        access = WRITE if fault.code & faults.PFEC_W else READ
        at = fault.address
        lp.log.emit(AccessFaulted(lp.id, at, access, fault.vector, fault.code, rule, 0))
