"""A thread's way into a native enclave and out again: registers and pages.

A thread goes in by its slot (native.s) with the registers of its logical processor, and with the
system calls that bring the pages of its process up to date. When it stops, its registers go back.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import USER_RFLAGS
from softsgx.runner.inserted.box import IDLE
from softsgx.runner.inserted.layout import END, GATE, NATIVE_CODE, NATIVE_SLOTS, SLOTS
from softsgx.runner.native.faults import UNBLOCK
from softsgx.runner.native.maps import NativeMap
from softsgx.runner.native.slots import ENTERING, INSIDE, USER_BITS, Slots
from softsgx.runner.native.state import Inside
from softsgx.runner.native.xstate import read_state, same_state, write_state
from softsgx.runner.process.signals import Due
from softsgx.runner.process.tracee import in_model_order
from softsgx.runner.say import say
from softsgx.spec.registers import RBX, RFLAGS, RIP

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.runner.inserted.records import AnyMailboxes
    from softsgx.runner.process.space import Space
    from softsgx.runner.process.tracee import Tracee
    from softsgx.runner.process.world import World


class Switch:
    """Sends threads into enclaves and takes their registers back; `engine.py` says when.

    `states` has every thread that was ever inside, `maps` the address spaces of these threads.
    """

    def __init__(self, world: World, mailboxes: AnyMailboxes) -> None:
        self.world = world
        self.mailboxes = mailboxes
        self.slots = Slots()
        self.states: dict[Tracee, Inside] = {}
        self.maps: dict[Space, NativeMap] = {}
        self._xfrm = world.machine.processor.part.xfrm
        self._slots: dict[int, int] = {}  # tid -> slot
        # Called with a thread that goes inside; whether it may leave without asking.
        self.let_leave: Callable[[Tracee, Inside, tuple[int, int] | None], bool]

    def add(self, t: Tracee, catch: Callable[[Inside], None]) -> Inside:
        """Add a thread that enters for the first time; its process is killed if no slot is free."""
        slot = self.slots.take(t.space.family)
        if slot is None:
            give_up(t, f"more than {SLOTS} threads with enclaves at a time")
            raise p.NoSuchTracee(errno.ESRCH, "killed")
        state = self.states[t] = Inside(t, slot, catch)
        self._slots[t.tid] = slot
        return state

    def remove(self, state: Inside) -> None:
        """Remove a thread that has died."""
        t = state.t
        state.running = False
        native = self.maps.get(t.space)
        if native is not None:
            native.entered(t.tid, certain=False)
        self.slots.give(self._slots.pop(t.tid))
        del self.states[t]

    def map_of(self, space: Space) -> NativeMap:
        """What is mapped in an address space."""
        native = self.maps.get(space)
        if native is None:
            world = self.world
            native = NativeMap(space.mm, world.machine.processor, world.memory)
            self.maps[space] = native
        return native

    # In

    def enter(self, state: Inside, *maps: tuple[int, int]) -> None:
        """Send a thread inside, where its logical processor is already."""
        t = state.t
        native = self.settled(t)
        lp = t.lp
        operations = native.enter(t.tid, maps, self.slots.staging(state.slot))
        if lp.x is not state.real and state.within and same_state(lp.x, state.real):
            state.real = lp.x  # it went to the SSA frame and came back
        if state.within and not operations and lp.x is state.real:
            if not (lp.fsbase | lp.gsbase) >> USER_BITS:  # ptrace refuses others
                self._continue(state)
                return
        xsave = None
        if lp.x is not state.real:
            assert lp.secs is not None
            xsave = (lp.secs.XFRM, lp.x.save(lp.secs.XFRM))
        slot, slots = state.slot, self.slots
        bases = (lp.fsbase, lp.gsbase)
        slots.fill(slot, lp.regs, bases, UNBLOCK, operations, xsave)
        state.filled = None
        state.operations = len(operations)
        self._goes(state, bases)
        mailbox = t.mailbox
        if mailbox is not None:
            t.mailbox = None
            regs = [0] * 18
            regs[RBX], regs[RFLAGS], regs[RIP] = slots.address(slot), USER_RFLAGS, NATIVE_CODE
            self.mailboxes.reply(mailbox, regs)
            return
        assert state.user is not None
        assert state.bases is not None
        user = list(state.user)
        user[p.RIP], user[p.RBX], user[p.EFLAGS] = NATIVE_CODE, slots.address(slot), USER_RFLAGS
        user[p.FS_BASE], user[p.GS_BASE] = state.bases
        user[p.ORIG_RAX] = p.MASK64
        p.set_regs(t.tid, user)
        p.request(p.PTRACE_CONT, t.tid)

    def _continue(self, state: Inside) -> None:
        """Continue a thread that was stopped inside, if only general registers must change."""
        t = state.t
        lp = t.lp
        assert state.user is not None
        user = t.to_user(state.user)
        user[p.FS_BASE], user[p.GS_BASE] = lp.fsbase, lp.gsbase
        self._goes(state)
        p.set_regs(t.tid, user)
        p.request(p.PTRACE_CONT, t.tid)

    def _goes(self, state: Inside, bases: tuple[int, int] | None = None) -> None:
        """A thread is about to run inside. `bases`: FS and GS that native.s loads from the slot."""
        t = state.t
        state.running = True
        t.runs_inside(
            state.operations > 0
            or self.map_of(t.space).unsettled
            or not self.let_leave(t, state, bases)
        )

    def settled(self, t: Tracee) -> NativeMap:
        """The map, with all pages to hide noted; no other thread will map them again."""
        native = self.map_of(t.space)
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

    def load(self, state: Inside) -> bool:
        """Load the registers of a running thread that has stopped; True if it was inside."""
        t = state.t
        state.running = False
        t.runs_inside(False)
        lp = t.lp
        user = state.user = p.get_regs(t.tid)
        rip = user[p.RIP]
        entered = self.slots.entered(state.slot)
        stage = self.slots.stage(state.slot)
        state.blocked |= entered.blocked & UNBLOCK
        if state.operations:
            self.map_of(t.space).entered(t.tid, certain=stage == INSIDE)
            if stage == INSIDE:
                self._check(state)
            state.operations = 0
        if not GATE <= rip < END:
            lp.regs[:] = in_model_order(user)
            lp.fsbase, lp.gsbase = user[p.FS_BASE], user[p.GS_BASE]
            state.bases = (entered.fs, entered.gs)
            state.real = lp.x
            state.within = True
            return True
        # On its way in: the logical processor has the registers, no enclave code has executed.
        if not NATIVE_CODE <= rip < NATIVE_SLOTS:
            mailbox = self.mailboxes.control.find(t.tid)
            if mailbox is not None:
                self.mailboxes.control.set_state(mailbox, IDLE)
        state.bases = (user[p.FS_BASE], user[p.GS_BASE])
        if stage != ENTERING:
            state.bases = (entered.fs, entered.gs)
        if lp.x is not state.real:
            state.real = None  # perhaps lp.x is loaded, perhaps not yet
        state.within = False
        return False

    def _check(self, state: Inside) -> None:
        for n in range(state.operations):
            result = self.slots.result(state.slot, n)
            if -4096 < result < 0:
                why = os.strerror(-result)
                give_up(state.t, f"a page cannot be mapped: {why} (vm.max_map_count?)")
                return

    def load_extended(self, state: Inside) -> None:
        """Load the extended state into the logical processor, for an AEX to save."""
        lp = state.t.lp
        if lp.secs is not None and lp.x is state.real:
            lp.x = state.real = read_state(state.t, self._xfrm)

    def put_registers(self, state: Inside) -> bool:
        """As Engine.put_registers; False if the thread has not been inside since its last exit."""
        if state.bases is None or state.user is None:
            return False
        t = state.t
        user = t.to_user(state.user)
        user[p.FS_BASE], user[p.GS_BASE] = state.bases
        p.set_regs(t.tid, user)
        if t.lp.x is not state.real:
            write_state(t, t.lp.x, self._xfrm)
        if state.blocked:
            p.set_sigmask(t.tid, p.get_sigmask(t.tid) | state.blocked)
        state.blocked = 0
        kept, state.kept = state.kept, []
        for number, info in kept:
            t.send(number, Due(info))
        state.user = state.bases = None
        return True


def give_up(t: Tracee, why: str) -> None:
    """Kill a process: its program is at fault, or a limit of the machine is reached."""
    say(f"softsgx: run: native engine: process {t.pid}: {why}; killed\n")
    os.kill(t.pid, signal.SIGKILL)
