"""Enclave code on the real processor, inside the process of the host program.

A thread that enters gets the registers that EENTER left in its logical processor, and runs. Every
stop inside is an exception or an interrupt: the registers go back to the logical processor, and
the model does what follows (AEX, the driver, ERESUME), as with the reference engine. Pages are
mapped with the rights of the model's TLB entries, each at its first page fault.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from softsgx.cpu.access import walk
from softsgx.cpu.fault import GP, PF, UD, Fault
from softsgx.mem.tlb import READ, RIGHTS, WRITE
from softsgx.runner.code.trapped import ENCLU, REFUSED, from_kernel, trapped
from softsgx.runner.enclaves.threads import EnclaveThreads, enclu_inside
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import SYSCALL_LENGTH
from softsgx.runner.native import faults as nf
from softsgx.runner.native.ahead import ENCLUS, Ahead
from softsgx.runner.native.armed import Armed
from softsgx.runner.native.lp import NativeLp
from softsgx.runner.native.switch import Switch, give_up
from softsgx.runner.native.tick import NativeTick
from softsgx.runner.process import forced
from softsgx.runner.process.tick import TIMER_VECTOR
from softsgx.spec import leaves
from softsgx.spec.bits import MASK32, PAGE_SHIFT
from softsgx.spec.faults import PFEC_U, PFEC_W
from softsgx.spec.msr import RFLAGS_RF
from softsgx.spec.registers import RAX, RBX, RCX, RFLAGS, RIP

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.inserted.records import AnyMailboxes
    from softsgx.runner.inserted.vdso import VdsoImage
    from softsgx.runner.native.state import Inside
    from softsgx.runner.process.space import Space
    from softsgx.runner.process.tracee import Tracee
    from softsgx.runner.process.world import World
    from softsgx.runner.traps.abort_page import AbortPage

_AGAIN: Final = 8
_HIDDEN_AT_ONCE: Final = 4  # runs of pages; with more of them, asking at the next EENTER is faster


class NativeEngine:
    """An `enclaves.engine.Engine`: handles the stops of threads that run inside."""

    in_process: Final = True
    emulated = 0.0

    def __init__(
        self,
        world: World,
        mailboxes: AnyMailboxes,
        doorbell: Doorbell,
        vdso: VdsoImage,
        abort_page: AbortPage,
        ends: list[tuple[int, int]],
    ) -> None:
        self.world = world
        self.mailboxes = mailboxes
        self.threads = EnclaveThreads(world, mailboxes, vdso, self)
        self.worked: Callable[[Tracee, float], None] = lambda t, seconds: None
        self.abort_page = abort_page
        abort_page.hide = self._hide
        self.ends = ends  # threads that ended while `catch` waited for their stop
        self.switch = Switch(world, mailboxes)
        self.armed = Armed(self.switch.slots, vdso.enclu)
        self.switch.let_leave = self.armed.let_leave
        self.ahead = Ahead(world.memory)
        self._ready: deque[Inside] = deque()  # interrupted threads that may go on
        self.ticks = NativeTick(world.tick, doorbell, self.armed, self._ready.append)

    # Into the enclave

    def request(self, t: Tracee, mailbox: int) -> None:
        """As Engine.request. An EENTER disarms threads only if `t` or one on its TCS is armed."""
        self.armed.look(t)
        regs = self.mailboxes.boxes[mailbox].registers
        leaf = regs[RAX] & MASK32
        if leaf != leaves.EENTER or t in self.armed.threads or self.armed.uses(regs[RBX]):
            self.settle()
        self.threads.requested(t, mailbox)
        state = self._state(t)
        self._go(state)

    def trapped(self, t: Tracee, regs: list[int], rip: int) -> None:
        """As Engine.trapped."""
        self.armed.look(t)
        t.model()
        state = self._state(t)
        state.user = list(regs)
        state.bases = (regs[p.FS_BASE], regs[p.GS_BASE])
        eenter = regs[p.RAX] & MASK32 == leaves.EENTER
        if not eenter or t in self.armed.threads or self.armed.uses(regs[p.RBX]):
            self.settle()
        self.threads.trapped(t, regs, rip)
        self._go(state)

    def _state(self, t: Tracee) -> Inside:
        """The state of a thread that is about to enter."""
        state = self.switch.states.get(t)
        if state is None:
            state = self.switch.add(t, self.catch)
            self.ticks.add(state)
        lp = t.lp
        assert isinstance(lp, NativeLp)
        lp.catch = state.catch
        return state

    def _go(self, state: Inside) -> None:
        state.real = state.t.lp.x
        state.within = False
        if not self.threads.enclu_outside(state.t):
            return
        if state.refused == state.t.lp.regs[RIP]:
            self._go_on(state)
        else:
            self._enter(state)

    def _enter(self, state: Inside, *maps: tuple[int, int]) -> None:
        """Send a thread inside, where its logical processor is already."""
        self.ticks.start()
        self.switch.enter(state, *maps)

    def waits(self, t: Tracee) -> bool:
        """As Engine.waits."""
        self.armed.look(t)
        return not t.inside

    def turn(self) -> bool:
        """As Engine.turn: continue a thread that was interrupted."""
        if not self._ready:
            return False
        state = self._ready.popleft()
        parks, state.yields = state.yields, False
        if state.held is not None:
            (number, info), state.held = state.held, None
            self._deliver(state, number, info)
        elif parks and state.goes_round():
            self.ticks.parking.park(state)
        else:
            self._resume_inside(state)
        return True

    def served(self, t: Tracee) -> None:
        """As Engine.served: arm the thread again."""
        state = self.switch.states.get(t)
        if state is None or state.arm is None or t.inside or t in self.armed.threads:
            return
        native = self.switch.settled(t)
        if native.hidden and t.tid in p.HELD:
            operations = native.pending()
            if len(operations) > _HIDDEN_AT_ONCE:
                return
            for operation in operations:
                t.inject(operation.number, *operation.arguments)
            native.hidden.clear()
        self._arm(t, state, state.arm.tcs, state.arm.aep)

    def rung(self) -> None:
        """As Engine.rung."""
        self.ticks.rung()

    def settle(self) -> None:
        """As Engine.settle: no thread is armed any more."""
        self.armed.settle()

    # Stops

    def stopped(self, t: Tracee, number: int, event: int) -> bool:
        """As Engine.stopped."""
        state = self.switch.states.get(t)
        if state is None:
            return False
        self.armed.look(t)
        if number == p.SYSCALL_STOP:
            return False
        if event == p.EVENT_STOP and state.asked is not None:
            return self._ticked(state, number)
        if event:
            return event == p.EVENT_SECCOMP and self._syscall(t, state)
        if self.armed.claimed(t):
            if number in REFUSED and self.armed.round_trip(t, state, number):
                return True
            self.armed.adopt(t, state)
        if not state.running:
            return False
        state.served_once()
        within = self.switch.load(state)
        lp = t.lp
        info = p.get_siginfo(t.tid)
        forced.restore_ignored(t, number)
        if within:
            found = trapped(number, info, lp.regs[RIP], partial(nf.code_at, lp))
            if found is not None and found.kind == "enclu":
                self._enclu(state)
                return True
        if not from_kernel(number, info):
            if state.keeps(number, info):
                self._enter(state)
            else:
                self._aex(state, number)
            return True
        if not within:
            give_up(t, f"signal {number} on its way into an enclave")
            return True
        if number == signal.SIGFPE:
            self.switch.load_extended(state)
        fault = nf.exception(lp, number, info)
        if isinstance(fault, nf.PageFault):
            self._page_fault(state, fault.address)
        else:
            self._fault(state, fault)
            self._resume_inside(state)
        return True

    def _syscall(self, t: Tracee, state: Inside) -> bool:
        """Handle a system call instruction: inside an enclave it is #UD."""
        self.settle()
        if not state.running:
            return False
        state.served_once()
        self.switch.load(state)
        assert state.user is not None
        lp = t.lp
        lp.regs[RAX] = state.user[p.ORIG_RAX]
        lp.regs[RIP] -= SYSCALL_LENGTH
        inside = lp.elrange_base <= lp.regs[RIP] < lp.elrange_end
        self._fault(state, UD("CODE.02") if inside else GP("ACCESS.01"))
        self._resume_inside(state)
        return True

    def _ticked(self, state: Inside, number: int) -> bool:
        """A thread has stopped for its tick; False if it is outside, and has taken it there."""
        t = state.t
        state.asked = None
        if self.armed.claimed(t):
            self.armed.adopt(t, state)
        if state.running:
            self._caught(state, number, p.EVENT_STOP)
            t.lp.interrupt(TIMER_VECTOR)
            return True
        return False

    def on_the_way(self, t: Tracee, regs: list[int]) -> bool:
        """As Engine.on_the_way, for a thread in native.s."""
        if not self.armed.roll_back(regs):
            return False
        p.set_regs(t.tid, regs)
        return True

    def interrupted(self, t: Tracee) -> None:
        """As Engine.interrupted."""
        self.settle()
        self._forget_turn(t)
        self.threads.interrupted(t)

    def put_registers(self, t: Tracee) -> None:
        """As Engine.put_registers."""
        state = self.switch.states.get(t)
        if state is None or not self.switch.put_registers(state):
            self.threads.put_registers(t)
            return
        regs = t.lp.regs
        if regs[RAX] == leaves.ERESUME:  # it has left by an AEX
            self._arm(t, state, regs[RBX], regs[RCX])

    def _arm(self, t: Tracee, state: Inside, tcs: int, aep: int, rip: int = -1) -> None:
        """Arm a thread that has left the enclave of a TCS, by the EEXIT at `rip` or by an AEX.

        While pages are to be hidden, it must ask.
        """
        if not self.switch.map_of(t.space).unsettled:
            self.armed.arm(t, state, tcs, aep, rip)

    def _aex(self, state: Inside, number: int) -> None:
        """Deliver a signal of the program, after an AEX: the handler sees the AEP as RIP."""
        self.switch.load_extended(state)
        state.t.lp.interrupt()
        self._deliver(state, number, p.get_siginfo(state.t.tid))

    def _deliver(self, state: Inside, number: int, info: bytes) -> None:
        t = state.t
        kept = state.keeps(number, info)
        t.inside = False
        self.put_registers(t)
        p.request(p.PTRACE_CONT, t.tid, 0, 0 if kept else number)

    # ENCLU and exceptions

    def _enclu(self, state: Inside) -> None:
        t = state.t
        lp = t.lp
        rip, tcs = lp.regs[RIP], lp.tcs_address
        lp.regs[RFLAGS] &= ~RFLAGS_RF
        exits = lp.regs[RAX] & MASK32 == leaves.EEXIT
        if not exits:
            self.settle()
        fault = enclu_inside(lp)
        if exits and fault is None:
            self._arm(t, state, tcs, lp.regs[RCX], rip)
            self.threads.leave(t)
        elif fault is None or self._repaired(state, fault, rip):
            lp.regs[RIP] += len(ENCLU)
            self._go_on(state)

    def _repaired(self, state: Inside, fault: Fault, rip: int) -> bool:
        """After a fault of the ENCLU at `rip`: True if it has been executed meanwhile.

        If the kernel has repaired the cause, the thread would come back with the same ENCLU. It is
        executed at once, but not while pages are to be hidden: that of the code may be one of them.
        If there is more at the AEP than an ENCLU, it is executed once the thread comes from there.
        """
        t = state.t
        self._fault(state, fault)
        if not t.inside:
            return False
        state.refused = rip
        if not self.threads.resumed(t):
            return False
        lp = t.lp
        if lp.regs[RIP] != rip or self.switch.map_of(t.space).unsettled:
            self._enter(state)
            return False
        lp.regs[RFLAGS] &= ~RFLAGS_RF
        again = enclu_inside(lp)
        if again is not None:
            self._fault(state, again)
            self._resume_inside(state)
        return again is None

    def _go_on(self, state: Inside) -> None:
        """Continue a thread that is before or behind an ENCLU, with those that it comes to."""
        lp = state.t.lp
        extended = partial(self.switch.load_extended, state)
        for _ in range(ENCLUS):
            if not self.ahead.to_enclu(lp, extended):
                break
            rip = lp.regs[RIP]
            lp.regs[RFLAGS] &= ~RFLAGS_RF
            fault = enclu_inside(lp)
            if fault is not None and not self._repaired(state, fault, rip):
                return
            lp.regs[RIP] += len(ENCLU)
        self._enter(state)

    def _fault(self, state: Inside, fault: Fault) -> None:
        self.settle()
        self.switch.load_extended(state)
        self.threads.fault_inside(state.t, fault)

    def _resume_inside(self, state: Inside, again: tuple[int, int] | None = None) -> None:
        """Continue inside after a stop, by ERESUME if there was an AEX.

        `again` is the access that the next instruction will make, address and kind, if known.
        """
        t = state.t
        if not t.inside:
            return
        if not self.threads.resumed(t):
            return
        lp = t.lp
        maps = []
        if again is not None and lp.regs[RIP] == state.served[0]:
            try:
                word = lp.translate(*again)
                maps = [(again[0] >> PAGE_SHIFT, word)]
            except Fault:
                maps = []  # it will fault once more, by itself
        self._enter(state, *maps)

    def _page_fault(self, state: Inside, address: int) -> None:
        t = state.t
        lp = t.lp
        if not lp.elrange_base <= address < lp.elrange_end:
            self._host_fault(state, address)
            return
        page = address >> PAGE_SHIFT
        rip = lp.regs[RIP]
        mapped = self.switch.map_of(t.space).mapped.get(page, 0) & RIGHTS
        access = nf.access_of(lp, address, mapped)
        # Another thread may have replaced the mapping meanwhile, so a fault may be repeated. If it
        # is repeated again and again, it is a write that the decoder takes for a read.
        same = mapped & READ and state.served == (rip, address)
        state.again = state.again + 1 if same else 0
        state.served = (rip, address)
        if access == READ and state.again > _AGAIN:
            access = WRITE
        # The TLB entry may be older than the mapping. Dropping an entry is always allowed.
        lp.tlb.entries.pop(page, None)
        try:
            word = lp.translate(address, access)
        except Fault as fault:
            state.again = 0
            self._fault(state, fault)
            self._resume_inside(state, (address, access))
            return
        self._enter(state, (page, word))

    def _host_fault(self, state: Inside, address: int) -> None:
        """Handle a page fault outside ELRANGE, in host memory or in another enclave."""
        self.settle()
        t = state.t
        lp = t.lp
        host = t.space.attach_memory()
        if host.is_enclave(address):
            try:
                walk(lp, address, nf.access_of(lp, address, 0))
            except Fault as fault:
                # The kernel serves it after an AEX, as any page fault.
                self._fault(state, fault)
                self._resume_inside(state)
                return
            state.running = True
            refused = self.abort_page.from_inside(t, address)
            if refused is not None:
                state.running = False
                self._fault(state, PF(refused.address, "HOST.01", refused.error_code))
                self._resume_inside(state)
            return
        code = PFEC_U
        if nf.access_of(lp, address, 0) == WRITE:
            code |= PFEC_W | host.protection(address)
        self._fault(state, PF(address, "HOST.01", code))
        self._resume_inside(state)

    def _hide(self, t: Tracee, page: int) -> None:
        """Let a host thread find the abort page here; no other thread may use the EPC page then."""
        native = self.switch.maps.get(t.space)
        if native is None:
            return
        for thread in t.space.process.threads:
            lp = self.world.machine.processor.lps[thread.cpu]
            if thread is not t.thread and lp.enclave_mode:
                lp.interrupt()
        native.hide((page >> PAGE_SHIFT,))
        for operation in native.pending():
            t.inject(operation.number, *operation.arguments)
        native.hidden.clear()

    # Interrupts of other threads

    def catch(self, state: Inside) -> None:
        """Stop the thread that runs on a processor about to be interrupted."""
        t = state.t
        self.armed.look(t)
        if not state.running:
            return
        try:
            status = _stop(t.tid)
        except (p.NoSuchTracee, ChildProcessError):
            state.running = False
            return
        if not os.WIFSTOPPED(status):
            state.running = False
            self.ends.append((t.tid, status))
            return
        try:
            self._caught(state, os.WSTOPSIG(status), status >> 16)
        except p.GONE:
            state.running = False

    def _caught(self, state: Inside, number: int, event: int) -> None:
        t = state.t
        within = self.switch.load(state)
        if event == p.EVENT_SECCOMP and within:
            t.lp.regs[RAX] = state.user[p.ORIG_RAX] if state.user else 0
            t.lp.regs[RIP] -= SYSCALL_LENGTH
        elif event == 0 and number != p.SYSCALL_STOP:
            due = t.due.take(number)
            info = p.get_siginfo(t.tid) if due is None else due.info
            if not from_kernel(number, info):
                state.held = (number, info)
            elif number == signal.SIGTRAP and within:
                nf.before_trap(t.lp)
        self.switch.load_extended(state)
        self._ready.append(state)

    # Processes

    def forked(self, parent: Tracee, child: Tracee) -> None:
        """The child has its own page tables, and the parent's mappings."""
        native = self.switch.maps.get(parent.space)
        if native is not None:
            native.copy_to(self.switch.map_of(child.space))
            self.armed.copied(parent.space, child.space)

    def gone(self, t: Tracee) -> None:
        """As Engine.gone."""
        self._forget_turn(t)
        self.threads.gone(t)
        state = self.switch.states.get(t)
        if state is not None:
            self.armed.forget(t)
            self.ticks.forget(state)
            self.switch.remove(state)

    def _forget_turn(self, t: Tracee) -> None:
        state = self.switch.states.get(t)
        if state is not None and state in self._ready:
            self._ready.remove(state)

    def closed(self, space: Space) -> None:
        """As Engine.closed."""
        native = self.switch.maps.pop(space, None)
        if native is not None:
            native.close()
        self.armed.closed(space)
        self.switch.slots.closed(space.family)


def _stop(tid: int) -> int:
    """Stop a running thread; the wait status of its stop.

    If it has already raised an exception, that is the stop: otherwise the exception would be
    delivered later, wherever the thread is then.
    """
    p.request(p.PTRACE_INTERRUPT, tid)
    status = p.wait(tid)
    if os.WIFSTOPPED(status) and status >> 16 == p.EVENT_STOP:
        for info in p.queued_signals(tid):
            if from_kernel(int.from_bytes(info[:4], "little"), info):
                p.request(p.PTRACE_CONT, tid)
                status = p.wait(tid)
                break
    return status
