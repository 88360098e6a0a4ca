"""Enclave code on the real processor, inside the process of the host program.

A thread that enters gets the registers that EENTER left in its logical processor and runs. Every
stop inside is an exception or an interrupt: the registers go back to the logical processor, and
what follows (AEX, the driver, ERESUME) is the model's, as with the reference engine. Pages are
mapped with the rights of the model's TLB entries, one by one, as they are faulted in.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from softsgx.cpu.fault import GP, PF, UD, Fault
from softsgx.mem.tlb import READ, RIGHTS, WRITE
from softsgx.runner import native_faults as nf
from softsgx.runner import ptrace as p
from softsgx.runner.box import IDLE
from softsgx.runner.enclaves import Enclaves
from softsgx.runner.layout import END, GATE, NATIVE_CODE, SLOTS, STUB, STUB_SIZE
from softsgx.runner.native_armed import Armed
from softsgx.runner.native_lp import NativeLp
from softsgx.runner.native_maps import NativeMap
from softsgx.runner.native_state import Inside, read_state, write_state
from softsgx.runner.slots import ENTERING, INSIDE, Slots
from softsgx.runner.tracee import in_model_order
from softsgx.spec import leaves
from softsgx.spec.bits import MASK32, PAGE_SHIFT
from softsgx.spec.faults import PFEC_P, PFEC_U, PFEC_W
from softsgx.spec.msr import RFLAGS_RF
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS, RIP

if TYPE_CHECKING:
    from softsgx.cpu.aex import Delivered
    from softsgx.runner.abort_page import AbortPage
    from softsgx.runner.doorbell import Doorbell
    from softsgx.runner.mailboxes import Mailboxes
    from softsgx.runner.tracee import Tracee
    from softsgx.runner.vdso import VdsoImage
    from softsgx.runner.world import World

_SYSCALL_LENGTH: Final = 2
_FLAGS: Final = 0x202
_VM_WRITE: Final = 2
_AGAIN: Final = 8


class NativeEnclaves(Enclaves):
    """All threads that are in enclaves, running natively."""

    def __init__(
        self,
        world: World,
        mailboxes: Mailboxes,
        doorbell: Doorbell,
        vdso: VdsoImage,
        abort_page: AbortPage,
    ) -> None:
        super().__init__(world, mailboxes, doorbell, vdso)
        self.slots = Slots()
        self.armed = Armed(self.slots, vdso.enclu)
        self.abort_page = abort_page
        self.xfrm = world.machine.processor.part.xfrm
        self._slots: dict[int, int] = {}  # tid -> slot
        # Ends of threads that were found out where only a stop was waited for.
        self.postponed: list[tuple[int, int]] = []

    def _state(self, t: Tracee) -> Inside:
        if t.native is None:
            slot = self.slots.take()
            if slot is None:
                _give_up(t, f"more than {SLOTS} threads with enclaves at a time")
                raise p.NoSuchTracee(errno.ESRCH, "killed")
            t.native = Inside(slot)
            self._slots[t.tid] = slot
        lp = t.lp
        assert isinstance(lp, NativeLp)
        if lp.catch is None:
            lp.catch = partial(self._catch, t)
        return t.native

    def _map(self, t: Tracee) -> NativeMap:
        space = t.space
        if space.native is None:
            world = self.world
            space.native = NativeMap(space.mm, world.machine.processor, world.memory)
        return space.native

    def forked(self, parent: Tracee, child: Tracee) -> None:
        """The child has its own page tables, and the parent's mappings."""
        if parent.space.native is not None:
            parent.space.native.copy_to(self._map(child))

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

    def settle(self) -> None:
        """Something is about to happen that is more than a call."""
        self.armed.settle()

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

    def _enter(self, t: Tracee, state: Inside, *maps: tuple[int, int]) -> None:
        """The processor is inside; send the thread after it."""
        native = self._settled(t)
        lp = t.lp
        operations = native.enter(t.tid, maps)
        if state.within and not operations and lp.x is state.real:
            self._continue(t, state)
            return
        xsave = None
        if lp.x is not state.real:
            assert lp.secs is not None
            xsave = (lp.secs.XFRM, lp.x.save(lp.secs.XFRM))
        slot, slots = state.slot, self.slots
        bases = (lp.fsbase, lp.gsbase)
        slots.fill(slot, lp.regs, bases, nf.UNBLOCK, operations, xsave)
        state.operations = len(operations)
        state.running = True
        mailbox = t.mailbox
        if mailbox is not None:
            t.mailbox = None
            regs = [0] * 18
            regs[RBX], regs[RFLAGS], regs[RIP] = slots.address(slot), _FLAGS, NATIVE_CODE
            self.mailboxes.reply(mailbox, regs)
            return
        assert state.user is not None
        assert state.bases is not None
        user = list(state.user)
        user[p.RIP], user[p.RBX], user[p.EFLAGS] = NATIVE_CODE, slots.address(slot), _FLAGS
        user[p.FS_BASE], user[p.GS_BASE] = state.bases
        user[p.ORIG_RAX] = p.MASK64
        p.set_regs(t.tid, user)
        p.request(p.PTRACE_CONT, t.tid)

    def _continue(self, t: Tracee, state: Inside) -> None:
        """The thread stopped inside, and nothing of its surroundings has to change."""
        lp = t.lp
        assert state.user is not None
        user = t.to_user(state.user)
        user[p.FS_BASE], user[p.GS_BASE] = lp.fsbase, lp.gsbase
        state.running = True
        p.set_regs(t.tid, user)
        p.request(p.PTRACE_CONT, t.tid)

    def _settled(self, t: Tracee) -> NativeMap:
        """Bring what is to be hidden up to date; nobody may be about to map it again."""
        native = self._map(t)
        if native.entries:
            self._arrivals(native)
        if native.dirty:
            changed = native.look()
            for tid, entry in list(native.entries.items()):
                if tid != t.tid and not changed.keys().isdisjoint(entry.mapped):
                    self._interrupt_one(t, tid)
            native.hide(changed)
        return native

    def _arrivals(self, native: NativeMap) -> None:
        for tid in list(native.entries):
            if self.slots.stage(self._slots[tid]) == INSIDE:
                native.entered(tid, certain=True)

    def _interrupt_one(self, t: Tracee, tid: int) -> None:
        processor = self.world.machine.processor
        for thread in t.space.process.threads:
            if thread.name == str(tid):
                processor.lps[thread.cpu].interrupt()

    # Stops

    def _load(self, t: Tracee, state: Inside) -> bool:
        """A running thread has stopped: its registers to the processor. Whether it was inside."""
        state.running = False
        lp = t.lp
        user = state.user = p.get_regs(t.tid)
        rip = user[p.RIP]
        entered = self.slots.entered(state.slot)
        stage = self.slots.stage(state.slot)
        state.blocked |= entered.blocked & nf.UNBLOCK
        native = self._map(t)
        if state.operations:
            native.entered(t.tid, certain=stage == INSIDE)
            if stage == INSIDE:
                self._check(t, state)
        if not GATE <= rip < END:
            lp.regs[:] = in_model_order(user)
            lp.fsbase, lp.gsbase = user[p.FS_BASE], user[p.GS_BASE]
            state.bases = (entered.fs, entered.gs)
            state.real = lp.x
            state.within = True
            return True
        # On its way: the processor has the registers, and nothing has been executed.
        if STUB <= rip < STUB + STUB_SIZE:
            mailbox = self.mailboxes.control.find(t.tid)
            if mailbox is not None:
                self.mailboxes.control.set_state(mailbox, IDLE)
        state.bases = (user[p.FS_BASE], user[p.GS_BASE])
        if stage != ENTERING:
            state.bases = (entered.fs, entered.gs)
        if lp.x is not state.real:
            state.real = None  # it may be loaded, or not yet
        state.within = False
        return False

    def _check(self, t: Tracee, state: Inside) -> None:
        for n in range(state.operations):
            result = self.slots.result(state.slot, n)
            if -4096 < result < 0:
                why = os.strerror(-result)
                _give_up(t, f"a page cannot be mapped: {why} (vm.max_map_count?)")
                return

    def _load_state(self, t: Tracee, state: Inside) -> None:
        """The extended state, needed once an AEX is to save it."""
        lp = t.lp
        if lp.secs is not None and lp.x is state.real:
            lp.x = state.real = read_state(t, self.xfrm)

    def stopped(self, t: Tracee, number: int) -> bool:
        """A signal-delivery stop. True if the thread ran inside: then it was served here."""
        state = t.native
        if state is None or number == p.SYSCALL_STOP:
            return False
        if self.armed.claimed(t):
            if number == signal.SIGILL and self.armed.round_trip(t, state):
                return True
            self.armed.adopt(t, state)
        if not state.running:
            return False
        within = self._load(t, state)
        lp = t.lp
        if within and number == signal.SIGILL and nf.code_at(lp, lp.regs[RIP], 3) == nf.ENCLU:
            self._enclu(t, state)
            return True
        info = p.get_siginfo(t.tid)
        if not nf.from_kernel(number, info):
            self._interrupted(t, state, number)
            return True
        if not within:
            _give_up(t, f"signal {number} on its way into an enclave")
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
        self._deliver(t, state, number)

    def _deliver(self, t: Tracee, state: Inside, number: int) -> None:
        again = state.blocked >> (number - 1) & 1
        t.inside = False
        self._set_registers(t)
        if again:  # it was blocked, but for us
            p.tgkill(t.pid, t.tid, number)
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

    def _onwards(self, t: Tracee, state: Inside, *maps: tuple[int, int]) -> None:
        """After whatever was served: back inside, by ERESUME if there was an AEX."""
        if not t.inside:
            return
        lp = t.lp
        if lp.secs is None:
            if not self._is_enclu(t, lp.regs[RIP]):
                self._leave(t)
                return
            if not self._enclu_outside(t):
                return
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
        # Another thread may have replaced the mapping meanwhile, so a fault may come again. One that
        # does not end is a write that the decoder takes for a read.
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
            self._onwards(t, state)
            return
        self._enter(t, state, (page, word))

    def _host_fault(self, t: Tracee, state: Inside, address: int) -> None:
        """Memory of the host, or of an enclave that is not this one."""
        self.settle()
        lp = t.lp
        host = t.space.attach_memory()
        if host.is_enclave(address):
            state.running = True
            if self.abort_page.access(t):
                return
            state.running = False
        code = PFEC_U
        if nf.access_of(lp, address, 0) == WRITE:
            code |= PFEC_W | (PFEC_P if host.area(address) & ~_VM_WRITE else 0)
        self._fault_inside(t, PF(address, "HOST.01", code))
        self._onwards(t, state)

    # Interrupts of other threads

    def _catch(self, t: Tracee) -> None:
        """The processor is to be interrupted: stop the thread that runs on it."""
        state = t.native
        if state is None or not state.running:
            return
        try:
            p.request(p.PTRACE_INTERRUPT, t.tid)
            _, status = os.waitpid(t.tid, p.WALL)
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
            if not nf.from_kernel(number, p.get_siginfo(t.tid)):
                state.held = number
            elif number == signal.SIGTRAP and within:
                nf.before_trap(t.lp)
        self._load_state(t, state)
        self.ready.append(t)

    def turn(self) -> None:
        """Let a thread that was interrupted go on."""
        t = self.ready.popleft()
        state = t.native
        assert state is not None
        if state.held:
            number, state.held = state.held, 0
            self._deliver(t, state, number)
            return
        self._onwards(t, state)

    # Out

    def _set_registers(self, t: Tracee) -> None:
        state = t.native
        if state is None or state.bases is None or state.user is None:
            super()._set_registers(t)
            return
        user = t.to_user(state.user)
        user[p.FS_BASE], user[p.GS_BASE] = state.bases
        p.set_regs(t.tid, user)
        if t.lp.x is not state.real:
            write_state(t, t.lp.x, self.xfrm)
        if state.blocked:
            p.set_sigmask(t.tid, p.get_sigmask(t.tid) | state.blocked)
        state.blocked = 0
        state.user = state.bases = None

    def gone(self, t: Tracee) -> None:
        """The thread has died."""
        super().gone(t)
        state = t.native
        if state is None:
            return
        state.running = False
        self.armed.forget(t)
        if t.space.native is not None:
            t.space.native.entered(t.tid, certain=False)
        self.slots.give(self._slots.pop(t.tid))
        t.native = None


def _give_up(t: Tracee, why: str) -> None:
    """Only the program is to blame, or a limit of the machine: its process ends."""
    sys.stderr.write(f"softsgx: run: native engine: process {t.pid}: {why}; killed\n")
    os.kill(t.pid, signal.SIGKILL)
