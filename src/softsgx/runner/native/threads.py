"""Threads on their way into a native enclave, and out of it again.

A thread goes in by its slot (native.s) with the registers of its logical processor, and with the
system calls that bring the pages of its process up to date. When it stops, its registers go back.
"""

from __future__ import annotations

import errno
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Final

from softsgx.runner.enclaves.threads import Enclaves
from softsgx.runner.host import ptrace as p
from softsgx.runner.inserted.box import IDLE
from softsgx.runner.inserted.layout import END, GATE, NATIVE_CODE, SLOTS, STUB, STUB_SIZE
from softsgx.runner.native.armed import Armed
from softsgx.runner.native.faults import UNBLOCK
from softsgx.runner.native.lp import NativeLp
from softsgx.runner.native.maps import NativeMap
from softsgx.runner.native.slots import ENTERING, INSIDE, USER_BITS, Slots
from softsgx.runner.native.state import Inside, read_state, write_state
from softsgx.runner.native.tick import NativeTick
from softsgx.runner.process.tracee import in_model_order
from softsgx.runner.say import say
from softsgx.spec.registers import RBX, RFLAGS, RIP

if TYPE_CHECKING:
    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.inserted.mailboxes import Mailboxes
    from softsgx.runner.inserted.vdso import VdsoImage
    from softsgx.runner.process.tracee import Tracee
    from softsgx.runner.process.world import World
    from softsgx.runner.traps.abort_page import AbortPage

_FLAGS: Final = 0x202


class NativeThreads(Enclaves):
    """What the native engine does with threads; `native.NativeEnclaves` says when."""

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
        self.ticks = NativeTick(world.tick, doorbell, self.armed, self.ready.append)
        self.xfrm = world.machine.processor.part.xfrm
        self._slots: dict[int, int] = {}  # tid -> slot
        # Ends of threads that were found out where only a stop was waited for.
        self.postponed: list[tuple[int, int]] = []

    def _state(self, t: Tracee) -> Inside:
        if t.native is None:
            slot = self.slots.take()
            if slot is None:
                give_up(t, f"more than {SLOTS} threads with enclaves at a time")
                raise p.NoSuchTracee(errno.ESRCH, "killed")
            t.native = Inside(slot)
            self._slots[t.tid] = slot
            self.ticks.add(t)
        lp = t.lp
        assert isinstance(lp, NativeLp)
        if lp.catch is None:
            lp.catch = partial(self.catch, t)
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

    def rung(self) -> None:
        """The doorbell rang: the timer, perhaps."""
        self.ticks.rung()

    def settle(self) -> None:
        """Something is about to happen that is more than a call."""
        self.armed.settle()

    def catch(self, t: Tracee) -> None:
        """The processor is to be interrupted: stop the thread that runs on it."""
        raise NotImplementedError

    # In

    def _enter(self, t: Tracee, state: Inside, *maps: tuple[int, int]) -> None:
        """The processor is inside; send the thread after it."""
        self.ticks.start()
        native = self._settled(t)
        lp = t.lp
        operations = native.enter(t.tid, maps)
        if state.within and not operations and lp.x is state.real:
            if not (lp.fsbase | lp.gsbase) >> USER_BITS:  # ptrace refuses others
                self._continue(t, state)
                return
        xsave = None
        if lp.x is not state.real:
            assert lp.secs is not None
            xsave = (lp.secs.XFRM, lp.x.save(lp.secs.XFRM))
        slot, slots = state.slot, self.slots
        bases = (lp.fsbase, lp.gsbase)
        slots.fill(slot, lp.regs, bases, UNBLOCK, operations, xsave)
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

    # Out

    def _load(self, t: Tracee, state: Inside) -> bool:
        """A running thread has stopped: its registers to the processor. Whether it was inside."""
        state.running = False
        lp = t.lp
        user = state.user = p.get_regs(t.tid)
        rip = user[p.RIP]
        entered = self.slots.entered(state.slot)
        stage = self.slots.stage(state.slot)
        state.blocked |= entered.blocked & UNBLOCK
        native = self._map(t)
        if state.operations:
            native.entered(t.tid, certain=stage == INSIDE)
            if stage == INSIDE:
                self._check(t, state)
            state.operations = 0
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
                give_up(t, f"a page cannot be mapped: {why} (vm.max_map_count?)")
                return

    def _load_state(self, t: Tracee, state: Inside) -> None:
        """The extended state, needed once an AEX is to save it."""
        lp = t.lp
        if lp.secs is not None and lp.x is state.real:
            lp.x = state.real = read_state(t, self.xfrm)

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
        self.ticks.forget(t)
        self.slots.give(self._slots.pop(t.tid))
        t.native = None


def give_up(t: Tracee, why: str) -> None:
    """Only the program is to blame, or a limit of the machine: its process ends."""
    say(f"softsgx: run: native engine: process {t.pid}: {why}; killed\n")
    os.kill(t.pid, signal.SIGKILL)
