"""Enclave code on the real processor, inside the process of the host program.

A thread that enters gets the registers that EENTER left in its logical processor and runs. Every
stop inside is an exception or an interrupt: the registers go back to the logical processor, and
what follows (AEX, the driver, ERESUME) is the model's, as with the reference engine. Pages are
mapped with the rights of the model's TLB entries, one by one, as they are faulted in.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Final

from softsgx.cpu.fault import GP, PF, UD, Fault
from softsgx.mem.tlb import READ, RIGHTS, WRITE
from softsgx.runner.code.trapped import REFUSED, from_kernel, trapped
from softsgx.runner.host import ptrace as p
from softsgx.runner.native import faults as nf
from softsgx.runner.native.threads import NativeThreads, give_up
from softsgx.runner.process import forced
from softsgx.runner.process.signals import Due
from softsgx.spec import leaves
from softsgx.spec.bits import MASK32, PAGE_SHIFT
from softsgx.spec.faults import PFEC_U, PFEC_W
from softsgx.spec.msr import RFLAGS_RF
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS, RIP

if TYPE_CHECKING:
    from softsgx.cpu.aex import Delivered
    from softsgx.runner.native.state import Inside
    from softsgx.runner.process.tracee import Tracee

_SYSCALL_LENGTH: Final = 2
_AGAIN: Final = 8


class NativeEnclaves(NativeThreads):
    """All threads that are in enclaves, running natively."""

    # In

    def request(self, t: Tracee, mailbox: int) -> None:
        """As Enclaves.request. An EENTER concerns only those who are on the same TCS."""
        regs = self.mailboxes.boxes[mailbox].registers
        leaf = regs[RAX] & MASK32
        if leaf != leaves.EENTER or t in self.armed.threads or self.armed.uses(regs[RBX]):
            self.settle()
        super().request(t, mailbox)
        state = t.native
        if leaf == leaves.EENTER and state is not None and state.running and not state.operations:
            if t.lp.x is state.real:
                self.armed.note(state, t.lp)

    def on_the_way(self, t: Tracee, regs: list[int]) -> bool:
        """A stop in native.s before the thread entered: now it is at the ENCLU."""
        if not self.armed.roll_back(regs):
            return False
        p.set_regs(t.tid, regs)
        return True

    def trapped(self, t: Tracee, regs: list[int], rip: int) -> None:
        """As Enclaves.trapped."""
        t.model()
        state = self._state(t)
        state.user = list(regs)
        state.bases = (regs[p.FS_BASE], regs[p.GS_BASE])
        super().trapped(t, regs, rip)

    def _go(self, t: Tracee) -> None:
        state = self._state(t)
        state.real = t.lp.x
        state.within = False
        if self._enclu_outside(t):
            self._enter(t, state)

    # Stops

    def stopped(self, t: Tracee, number: int) -> bool:
        """A signal-delivery stop. True if the thread ran inside: then it was served here."""
        state = t.native
        if state is None or number == p.SYSCALL_STOP:
            return False
        if self.armed.claimed(t):
            if number in REFUSED and self.armed.round_trip(t, state, number):
                return True
            self.armed.adopt(t, state)
        if not state.running:
            return False
        state.served_once()
        within = self._load(t, state)
        lp = t.lp
        info = p.get_siginfo(t.tid)
        forced.still_ignored(t, number)
        if within:
            found = trapped(number, info, lp.regs[RIP], partial(nf.code_at, lp))
            if found is not None and found.kind == "enclu":
                self._enclu(t, state)
                return True
        if not from_kernel(number, info):
            self._interrupted(t, state, number)
            return True
        if not within:
            give_up(t, f"signal {number} on its way into an enclave")
            return True
        if number == signal.SIGFPE:
            self._load_state(t, state)
        fault = nf.exception(lp, number, info)
        if isinstance(fault, nf.PageFault):
            self._page_fault(t, state, fault.address)
        else:
            self._fault_inside(t, fault)
            self._onwards(t, state)
        return True

    def syscall(self, t: Tracee, regs: list[int]) -> bool:
        """A system call instruction that was seen. True if the thread ran inside: it is #UD."""
        state = t.native
        if state is None or not state.running:
            return False
        state.served_once()
        self._load(t, state)
        lp = t.lp
        lp.regs[RAX] = regs[p.ORIG_RAX]
        lp.regs[RIP] -= _SYSCALL_LENGTH
        inside = lp.elrange_base <= lp.regs[RIP] < lp.elrange_end
        self._fault_inside(t, UD("CODE.02") if inside else GP("ACCESS.01"))
        self._onwards(t, state)
        return True

    def _interrupted(self, t: Tracee, state: Inside, number: int) -> None:
        """A signal of the program: AEX, and its handler finds the thread at the AEP."""
        self._load_state(t, state)
        t.lp.interrupt()
        self._deliver(t, state, number, p.get_siginfo(t.tid))

    def _deliver(self, t: Tracee, state: Inside, number: int, info: bytes) -> None:
        again = state.blocked >> (number - 1) & 1
        t.inside = False
        self._set_registers(t)
        if again:  # it was blocked, but for us
            t.send(number, Due(info))
        p.request(p.PTRACE_CONT, t.tid, 0, 0 if again else number)

    # ENCLU and exceptions

    def _enclu(self, t: Tracee, state: Inside) -> None:
        lp = t.lp
        lp.regs[RFLAGS] &= ~RFLAGS_RF
        if lp.regs[RAX] & MASK32 == leaves.EEXIT:
            if self._exited(t, state):
                return
        else:
            self.settle()
            self._enclu_inside(t)
        self._onwards(t, state)

    def _exited(self, t: Tracee, state: Inside) -> bool:
        """EEXIT; False if it faulted."""
        lp = t.lp
        rip = lp.regs[RIP]
        try:
            lp.enclu(leaves.EEXIT, lp.regs[RBX], lp.regs[RCX], lp.regs[RDX])
        except Fault as fault:
            self._fault_inside(t, fault)
            return not t.inside
        self.armed.arm(t, state, rip)
        self._leave(t)
        return True

    def _repaired(self, t: Tracee, delivered: Delivered) -> bool:
        self.settle()
        return super()._repaired(t, delivered)

    def _fault_inside(self, t: Tracee, fault: Fault) -> None:
        self.settle()
        assert t.native is not None
        self._load_state(t, t.native)
        super()._fault_inside(t, fault)

    def _onwards(self, t: Tracee, state: Inside, again: tuple[int, int] | None = None) -> None:
        """After whatever was served: back inside, by ERESUME if there was an AEX.

        `again` are address and access of what the next instruction will do, if that is known.
        """
        if not t.inside:
            return
        if not self._resumed(t):
            return
        lp = t.lp
        maps = []
        if again is not None and lp.regs[RIP] == state.served[0]:
            try:
                word = lp.translate(*again)
                maps = [(again[0] >> PAGE_SHIFT, word)]
            except Fault:
                maps = []  # it will fault once more, by itself
        self._enter(t, state, *maps)

    def _page_fault(self, t: Tracee, state: Inside, address: int) -> None:
        lp = t.lp
        native = self._map(t)
        if not lp.elrange_base <= address < lp.elrange_end:
            self._host_fault(t, state, address)
            return
        page = address >> PAGE_SHIFT
        rip = lp.regs[RIP]
        mapped = native.mapped.get(page, 0) & RIGHTS
        access = nf.access_of(lp, address, mapped)
        # Another thread may have replaced the mapping meanwhile, so a fault may come again. One
        # that does not end is a write that the decoder takes for a read.
        same = mapped & READ and state.served == (rip, address)
        state.again = state.again + 1 if same else 0
        state.served = (rip, address)
        if access == READ and state.again > _AGAIN:
            access = WRITE
        # What the TLB holds may be older than the mapping: an entry may always be dropped.
        lp.tlb.entries.pop(page, None)
        try:
            word = lp.translate(address, access)
        except Fault as fault:
            state.again = 0
            self._fault_inside(t, fault)
            self._onwards(t, state, (address, access))
            return
        self._enter(t, state, (page, word))

    def _host_fault(self, t: Tracee, state: Inside, address: int) -> None:
        """Memory of the host, or of an enclave that is not this one."""
        self.settle()
        lp = t.lp
        host = t.space.attach_memory()
        if host.is_enclave(address):
            state.running = True
            refused = self.abort_page.from_inside(t, address)
            if refused is not None:
                state.running = False
                self._fault_inside(t, PF(refused.address, "HOST.01", refused.error_code))
                self._onwards(t, state)
            return
        code = PFEC_U
        if nf.access_of(lp, address, 0) == WRITE:
            code |= PFEC_W | host.protection(address)
        self._fault_inside(t, PF(address, "HOST.01", code))
        self._onwards(t, state)

    # Interrupts of other threads

    def catch(self, t: Tracee) -> None:
        """The processor is to be interrupted: stop the thread that runs on it."""
        state = t.native
        if state is None or not state.running:
            return
        try:
            status = _stop(t.tid)
        except (p.NoSuchTracee, ChildProcessError):
            state.running = False
            return
        if not os.WIFSTOPPED(status):
            state.running = False
            self.postponed.append((t.tid, status))
            return
        within = self._load(t, state)
        number, event = os.WSTOPSIG(status), status >> 16
        if event == p.EVENT_SECCOMP and within:
            t.lp.regs[RAX] = state.user[p.ORIG_RAX] if state.user else 0
            t.lp.regs[RIP] -= _SYSCALL_LENGTH
        elif event == 0 and number != p.SYSCALL_STOP:
            due = t.due.take(number)
            info = p.get_siginfo(t.tid) if due is None else due.info
            if not from_kernel(number, info):
                state.held = (number, info)
            elif number == signal.SIGTRAP and within:
                nf.before_trap(t.lp)
        self._load_state(t, state)
        self.ready.append(t)

    def turn(self) -> None:
        """Let a thread that was interrupted go on."""
        t = self.ready.popleft()
        state = t.native
        assert state is not None
        if state.held is not None:
            (number, info), state.held = state.held, None
            self._deliver(t, state, number, info)
        elif state.yields:
            state.yields = False
            self.ticks.parking.park(t)
        else:
            self._onwards(t, state)


def _stop(tid: int) -> int:
    """Stop a running thread; the wait status of how it stopped.

    An exception that it has already raised comes before the interrupt, or else it would be
    delivered later, wherever the thread is then.
    """
    p.request(p.PTRACE_INTERRUPT, tid)
    _, status = os.waitpid(tid, p.WALL)
    if os.WIFSTOPPED(status) and status >> 16 == p.EVENT_STOP:
        for info in p.queued_signals(tid):
            if from_kernel(int.from_bytes(info[:4], "little"), info):
                p.request(p.PTRACE_CONT, tid)
                _, status = os.waitpid(tid, p.WALL)
                break
    return status
