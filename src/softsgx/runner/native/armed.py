"""Enclave calls that cost one stop: a thread repeats an earlier EENTER without asking.

When a thread leaves its enclave, by EEXIT or by AEX, and the next EENTER would find everything as
an earlier one at the same CSSA did (`cpu.reentry`), it has the same outcome, as long as the model
stays unchanged. So the thread is armed: native.s enters without asking. If the next stop is the
EEXIT, the two together change nothing in the model. Otherwise EENTER is executed in the model at
that stop, with the registers that the thread has saved. Before the supervisor does anything else,
it disarms all threads (`Armed.settle`).
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from softsgx.cpu.reentry import same_after_exit, same_entry, tcs_fields
from softsgx.mem.pagetable import PTE_PFN_MASK
from softsgx.runner.code.trapped import ENCLU, trapped
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import PROT_RW, USER_RFLAGS
from softsgx.runner.host.proc import state_of
from softsgx.runner.inserted.assembled import labels_of
from softsgx.runner.inserted.layout import NATIVE_CODE, NATIVE_EPC
from softsgx.runner.inserted.machine_code import NATIVE_CODE as _PARTS
from softsgx.runner.native.faults import UNBLOCK
from softsgx.runner.native.slots import CLAIMED, Slots
from softsgx.runner.native.state import Arm, Inside
from softsgx.runner.process import forced
from softsgx.spec import leaves
from softsgx.spec.bits import MASK32, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.msr import RFLAGS_RF
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS, RIP
from softsgx.spec.structure import unpack_u32
from softsgx.spec.tcs import TCS_DBGOPTIN, TCS_OFF_CSSA, TCS_OFF_FLAGS

if TYPE_CHECKING:
    from softsgx.runner.process.space import Space
    from softsgx.runner.process.tracee import Tracee

# Address of every label of native.s.
LABELS: Final = labels_of(_PARTS, NATIVE_CODE)
ARRIVE: Final = LABELS["arrive"]
_ASKED, _SAVED, _END = LABELS["asked"], LABELS["saved"], LABELS["end"]
_PATIENCE: Final = 100_000
_LOOK: Final = 100


class Armed:
    """The threads that are armed."""

    def __init__(self, slots: Slots, aep: int) -> None:
        self.slots = slots
        self.aep = aep
        self.threads: dict[Tracee, Inside] = {}
        # Threads that are inside in the model, and may have left by themselves.
        self.inside: dict[Tracee, Inside] = {}
        # The pages of EPC that a process can write to through its window.
        self._windows: dict[Space, set[int]] = {}

    def arm(self, t: Tracee, state: Inside, tcs: int, aep: int, rip: int = -1) -> None:
        """Arm a stopped thread that has left the enclave of a TCS, before it goes on.

        `rip` is the EEXIT by which it left; without, it left by an AEX.
        """
        state.arm = None
        by_exit = rip >= 0
        if by_exit:
            state.stayed = False
        lp = t.lp
        if lp.log.on or not lp.processor.readings.late_entry_counts:
            return
        last = same_entry(lp, tcs, aep)
        if last is None or last.tcs[TCS_OFF_FLAGS] & TCS_DBGOPTIN:
            return
        arm = state.arms.get(last.cssa)
        if arm is None or arm.last is not last:
            arm = state.arms[last.cssa] = Arm(last, tcs, aep)
        if by_exit and rip & PAGE_MASK <= PAGE_SIZE - len(ENCLU):
            arm.exits[rip] = lp.space.ptes[rip >> PAGE_SHIFT] & PTE_PFN_MASK | rip & PAGE_MASK
        stack_at = self._stack_at(t, arm, may_call=by_exit)
        if stack_at:
            self._fill(t, state, arm, stack_at)
            self.slots.rearm(state.slot)
            self.threads[t] = state

    def _fill(self, t: Tracee, state: Inside, arm: Arm, stack_at: int) -> None:
        ptes = t.lp.space.ptes
        for rip, physical in list(arm.exits.items()):
            if (ptes.get(rip >> PAGE_SHIFT, 0) ^ physical) & PTE_PFN_MASK:
                del arm.exits[rip]  # its page was replaced
        state.arm = arm
        if state.filled != (arm, len(arm.exits)):
            state.filled = (arm, len(arm.exits))
            self.slots.arm(state.slot, t.tid, arm.again(stack_at), [*arm.exits])
            t.native_slot(self.slots.address(state.slot))

    def let_leave(self, t: Tracee, state: Inside, bases: tuple[int, int] | None) -> bool:
        """Let a thread that is about to go on inside leave by itself, by an EEXIT that is known.

        It is then as one that has entered without asking, and may do so next. Only the stub serves
        an EEXIT. `bases`: FS and GS that native.s is to load from the slot, which has room for no
        others. False if the thread must ask.
        """
        lp = t.lp
        if t.tid not in p.HELD or state.stayed or lp.log.on or state.blocked or state.kept:
            return False
        tcs = tcs_fields(lp, lp.tcs_page)
        (cssa,) = unpack_u32(tcs, TCS_OFF_CSSA)
        arm = state.arms.get(cssa)
        if arm is None or not arm.exits or bases not in (None, arm.bases):
            return False
        if not same_after_exit(lp, arm.last, tcs):
            return False
        stack_at = self._stack_at(t, arm, may_call=False)
        if not stack_at:
            return False
        self._fill(t, state, arm, stack_at)
        state.served_exits = self.slots.served(state.slot)
        self.slots.claim(state.slot)
        self.inside[t] = state
        return True

    def look(self, t: Tracee) -> None:
        """Bring the model up to date about a thread that may have left by itself."""
        state = self.inside.pop(t, None)
        if state is None:
            return
        slot = state.slot
        claimed = not self.slots.disarm(slot)
        if self.slots.served(slot) == state.served_exits:
            t.runs_inside(True)
            self.slots.forget_kept(slot)
            state.stayed = True
            return
        lp = t.lp
        lp.regs[RAX], lp.regs[RBX] = leaves.EEXIT, 0
        lp.enclu(leaves.EEXIT, 0)
        t.inside = state.running = False
        state.user = state.bases = None
        if claimed and self._on(t, state):
            self._replay(t, state)

    def _stack_at(self, t: Tracee, arm: Arm, *, may_call: bool) -> int:
        """The address in the process where an EENTER stores RSP and RBP, made writable; 0: none.

        It is in the window through which the process sees all of EPC (`load.py`), so nothing
        changes in enclave areas. `may_call`: the thread may make a system call here.
        """
        memory = t.world.memory
        offset = arm.stack_at - (memory.first << PAGE_SHIFT)
        page = NATIVE_EPC + (offset & ~PAGE_MASK)
        writable = self._windows.setdefault(t.space, set())
        if page not in writable:
            if not may_call or t.inject(nr.MPROTECT, page, PAGE_SIZE, PROT_RW):
                return 0
            writable.add(page)
        memory.touched[offset >> PAGE_SHIFT] = 1
        return page | arm.stack_at & PAGE_MASK

    def uses(self, tcs: int) -> bool:
        """Whether a thread may have entered on this TCS without asking."""
        states = (*self.threads.values(), *self.inside.values())
        return any(s.arm is not None and s.arm.tcs == tcs for s in states)

    # At a stop of an armed thread

    def claimed(self, t: Tracee) -> bool:
        """Whether a stopped thread has entered without asking, or was about to."""
        state = self.threads.get(t)
        return state is not None and self.slots.armed(state.slot) == CLAIMED

    def round_trip(self, t: Tracee, state: Inside, number: int) -> bool:
        """If EEXIT stopped the thread, carry out EENTER and EEXIT, and arm it again; else False."""
        user = p.get_regs(t.tid)
        arm, slots, slot = state.arm, self.slots, state.slot
        assert arm is not None
        physical = arm.exits.get(user[p.RIP], 0)
        memory = t.world.memory
        if (
            not physical
            or user[p.RAX] & MASK32 != leaves.EEXIT
            or user[p.RBX] >> 47
            or memory.read(physical, len(ENCLU)) != ENCLU
            or trapped(number, p.get_siginfo(t.tid), user[p.RIP], lambda *_: ENCLU) is None
        ):
            return False
        forced.restore_ignored(t, number)
        entered = slots.entered(slot)
        t.lp.tlb.flush()  # EENTER
        t.lp.tlb.flush()  # EEXIT
        user[p.RIP], user[p.RCX] = user[p.RBX], arm.aep
        user[p.EFLAGS] &= ~RFLAGS_RF
        user[p.FS_BASE], user[p.GS_BASE] = entered.fs, entered.gs
        user[p.ORIG_RAX] = p.MASK64
        p.set_regs(t.tid, user)
        if entered.blocked & UNBLOCK:
            p.set_sigmask(t.tid, p.get_sigmask(t.tid) | entered.blocked & UNBLOCK)
        slots.rearm(slot)
        state.served_once()
        p.request(p.PTRACE_CONT, t.tid)
        return True

    def adopt(self, t: Tracee, state: Inside) -> bool:
        """At any other stop of a thread that has claimed: bring the model up to date.

        True if the thread is inside in the model now.
        """
        if not self.slots.kept(state.slot):
            self._drop(t, state)
            return False  # `roll_back` does the rest
        self._replay(t, state)
        return True

    def _replay(self, t: Tracee, state: Inside) -> None:
        arm, lp = state.arm, t.lp
        assert arm is not None
        host = list(self.slots.host(state.slot))
        host[RAX], host[RBX], host[RCX] = leaves.EENTER, arm.tcs, arm.aep
        host[RFLAGS] = host[RFLAGS] & ~RFLAGS_RF if host[RFLAGS] else USER_RFLAGS
        self._drop(t, state)
        t.runs_inside(True)
        self.slots.forget_kept(state.slot)
        lp.regs[:] = host
        lp.enclu(leaves.EENTER, arm.tcs, arm.aep, host[RDX])
        assert lp.regs[RIP] == arm.entry, "armed, but something has changed"
        t.inside = True
        t.mailbox = None
        state.running = True
        state.within = False
        state.operations = 0
        state.real = lp.x

    def _drop(self, t: Tracee, state: Inside) -> None:
        self.threads.pop(t, None)
        self.slots.withdraw(state.slot)

    # Before anything else happens

    def settle(self) -> None:
        """Disarm all threads; those that entered without asking are inside in the model then."""
        for t in list(self.inside):
            self.look(t)
        for t, state in list(self.threads.items()):
            if self.slots.disarm(state.slot):
                del self.threads[t]
            elif self._on(t, state):
                self._replay(t, state)
            else:
                self._drop(t, state)

    def _on(self, t: Tracee, state: Inside) -> bool:
        """Whether a running thread that has claimed will enter; False if it is stopped first.

        Without a tracer it may have been stopped by SIGSTOP or a debugger. Then it is interrupted
        before its next instruction, and goes back to its ENCLU.
        """
        held = p.HELD.get(t.tid)
        for n in range(_PATIENCE):
            if self.slots.kept(state.slot):
                return True
            if held is not None and held.stopped():
                return self.slots.kept(state.slot)
            if (held is None or n % _LOOK == 0) and _stopped(t.tid):  # or it was killed
                if held is not None:
                    with suppress(*p.GONE):
                        p.request(p.PTRACE_INTERRUPT, t.tid)
                return self.slots.kept(state.slot)
            os.sched_yield()
        with suppress(ProcessLookupError):  # of another thread than the one that is served
            os.kill(t.pid, signal.SIGKILL)  # the program has written to the slot
        return False

    def forget(self, t: Tracee) -> None:
        """Forget a thread that is gone."""
        self.slots.forget(t.tid, t.space.family)
        state = self.threads.pop(t, None) or self.inside.pop(t, None)
        if state is not None:
            self.slots.withdraw(state.slot)

    def closed(self, space: Space) -> None:
        """Forget an address space."""
        self._windows.pop(space, None)

    def copied(self, parent: Space, child: Space) -> None:
        """At fork: the child has the parent's window."""
        self._windows[child] = set(self._windows.get(parent, ()))

    def roll_back(self, regs: list[int]) -> bool:
        """Set the registers of a thread in native.s back to its ENCLU.

        False if it is not there, or has saved its registers already.
        """
        rip = regs[p.RIP]
        if not ARRIVE <= rip < _SAVED:
            return False
        if rip >= _ASKED:
            regs[p.RAX], regs[p.RCX] = leaves.EENTER, self.aep
        regs[p.RIP] = self.aep
        regs[p.ORIG_RAX] = p.MASK64
        return True


def _stopped(tid: int) -> bool:
    return state_of(tid) in ("t", "T", "Z", "X")


assert ARRIVE < _ASKED < _SAVED < _END
