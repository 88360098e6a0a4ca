"""Real enclave code as a task: the emulator executes what a thread does inside.

There is a point before each ENCLU, before each access that misses the TLB and after each PAUSE;
further ones as the scenario asks for (`points`). Everything else (leaves in tasks, AEX, page
faults, ERESUME) is done as for enclave code in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from softsgx.cpu.fault import Fault
from softsgx.linux.vdso import VDSO_ENCLU, Exit
from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.runner.emulator.blocks import Stop, Why
from softsgx.runner.explored.accesses import Partial
from softsgx.runner.process.tick import TIMER_VECTOR
from softsgx.sim import RETRY, Point, StepBound, Steps
from softsgx.sim.touch import touch
from softsgx.spec import leaves
from softsgx.spec.bits import MASK32
from softsgx.spec.registers import RAX, RBX, RCX, RDX, REGISTER_NAMES, RIP
from softsgx.system.enclave import EnclaveThread
from softsgx.system.host import EnclaveEntry
from softsgx.system.scenarios.scenario import MACHINE

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.linux.process import Thread
    from softsgx.runner.explored.stepped_emulator import SteppedEmulator

_KINDS: Final = {READ: "load", WRITE: "store", FETCH: "fetch"}
# How slices end without a point of their own.
_SILENT: Final = frozenset({Why.DOORBELL, Why.BUDGET, Why.PAUSE, Why.SPIN})
# Slices without a point after which code counts as waiting, and after which it counts as hanging.
_SLICES_BUSY: Final = 8
_SLICES_MAX: Final = 64
# What leaves read and write in the enclave: register, size in bytes, whether it is written. Each is
# listed with its leaf: SDM 3D, EREPORT; SDM 3D, EGETKEY; SDM 3D, EACCEPTCOPY.
_OPERANDS: Final[dict[int, tuple[tuple[int, int, bool], ...]]] = {
    leaves.EREPORT: ((RBX, 512, False), (RCX, 64, False), (RDX, 432, True)),
    leaves.EGETKEY: ((RBX, 512, False), (RCX, 16, True)),
    leaves.EACCEPT: ((RBX, 64, False),),
    leaves.EMODPE: ((RBX, 64, False),),
    leaves.EACCEPTCOPY: ((RBX, 64, False), (RCX, 4096, True), (RDX, 4096, False)),
}

Registers = dict[str, int]
"""Register values by name in small letters: rax, rdi, ..."""

Signals = Callable[[], Steps[None] | None]
"""The handler of a signal that the thread has got, to be run now; None if it has got none."""


class Spins(StepBound):
    """Code has reached no point for a long time: an endless loop, or a wait that never ends."""

    def __init__(self, who: str) -> None:
        super().__init__(_SLICES_MAX, "")
        self.args = (f"{who} has come to no ENCLU and no new page for {_SLICES_MAX} slices",)


class Rounds:
    """Whether code has come to a place once more, and changed no memory since it was there."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, ...]] = set()

    def progress(self) -> None:
        """The code has done something that others can see."""
        self._seen.clear()

    def again(self, *state: int) -> bool:
        """Note a state; True if it was noted since the last progress."""
        if state in self._seen:
            return True
        self._seen.add(state)
        return False


class Place:
    """Where a thread goes on in the emulator, which others use in between.

    No instruction spans an AEX: translations are dropped, so that its fetch misses, and it begins
    anew (`SteppedEmulator.partial`).

    over     the instruction has been stepped, and may be executed
    paused   the last slice ended here, after a PAUSE
    """

    def __init__(self) -> None:
        self._rip = -1
        self._partial: Partial | None = None
        self.over = self.paused = False

    def give(self, emulator: SteppedEmulator, rip: int) -> None:
        """Before a slice that begins at RIP."""
        emulator.partial = self._partial
        emulator.over = rip if self.over and rip == self._rip else -1
        emulator.paused = self.paused and rip == self._rip

    def take(self, emulator: SteppedEmulator, rip: int) -> None:
        """After a slice that ended at RIP."""
        self._partial = emulator.partial
        if rip != self._rip:
            self._rip = rip
            self.over = self.paused = False

    @property
    def accesses(self) -> int:
        """How many accesses the instruction has made."""
        return len(self._partial.done) if self._partial is not None else 0


class CodeThread(EnclaveThread):
    """One entry into an enclave of x86 code; the emulator is in the program of the entry."""

    program: Code

    def run(self, program: Any) -> Steps[Registers]:
        """Execute until EEXIT; returns the registers after it."""
        self.program = program
        emulator = self.program.emulator
        place, rounds = Place(), Rounds()
        silent = 0
        while True:
            lp = yield from self._be_inside()
            place.give(emulator, lp.regs[RIP])
            stop = self._execute(emulator, lp, rounds)
            place.take(emulator, lp.regs[RIP])
            silent = silent + 1 if stop.why in _SILENT else 0
            if stop.why is Why.MISS:
                rounds.progress()
                yield self._miss(emulator)
                emulator.grant(*emulator.missed)
            elif stop.why is Why.ACCESS:
                yield self._access(emulator, rounds.again(place.accesses, *lp.regs))
            elif stop.why is Why.INSTRUCTION:
                place.over = True
                yield ("step", ("code", lp.regs[RIP] - lp.elrange_base), False)
                if self.lp.secs is not None:
                    self.lp.interrupt(TIMER_VECTOR)
            elif stop.why is Why.FAULT:
                assert stop.fault is not None
                rounds.progress()
                touch(MACHINE)  # the kernel is at work, and perhaps a handler of the scenario
                yield from self._repair(stop.fault)
            elif stop.why is Why.ENCLU:
                rounds.progress()
                if (yield from self._leaf()):
                    return {
                        name.lower(): value
                        for name, value in zip(REGISTER_NAMES, self.lp.regs, strict=False)
                    }
            elif stop.why is Why.PAUSE:
                place.paused = True
                yield self._silent("pause", rounds.again(-1, *lp.regs), silent)
            else:
                yield self._silent("compute", False, silent)

    def _execute(self, emulator: SteppedEmulator, lp: LogicalProcessor, rounds: Rounds) -> Stop:
        """A slice; a store that changes memory is progress."""
        accesses = emulator.accesses
        if accesses is None:
            return emulator.run(lp)
        accesses.party = self._party
        accesses.changed = False
        stop = emulator.run(lp)
        if accesses.changed:
            rounds.progress()
        return stop

    @property
    def _party(self) -> int:
        """A number for whoever executes here: a task, or a handler on top of one."""
        return 2 * self.current.cpu + (self.cssa > 0)

    def _miss(self, emulator: SteppedEmulator) -> Point:
        """The point before an access that misses the TLB."""
        page, access = emulator.missed
        where = "linear" if emulator.accesses is None else "miss"
        return (_KINDS[access], (where, page), access == WRITE)

    def _access(self, emulator: SteppedEmulator, again: bool) -> Point:
        """The point before an access; if the code only waits here, `again` is true."""
        assert emulator.accesses is not None
        access = emulator.accesses.stopped
        assert access is not None
        if again:
            return self._retry(self.lp.regs[RIP])
        kind = "store" if access.write else "load"
        return (kind, ("access", access.address, access.size), access.write)

    def _retry(self, where: int) -> Point:
        """The point of a loop; two loops, one after the other, are told apart by where they are."""
        return (RETRY, ("spin", self.current.cpu, where), False)

    def _be_inside(self) -> Steps[LogicalProcessor]:
        """As EnclaveThread._be_inside; at the AEP the thread handles its signals."""
        while True:
            handler = self.program.signals()
            if handler is not None:
                if self.lp.secs is not None:
                    self.lp.interrupt(TIMER_VECTOR)
                yield from handler
            elif self.lp.secs is not None:
                return (yield from super()._be_inside())
            else:
                yield from self._resume()

    def _leaf(self) -> Steps[bool]:
        """Execute the ENCLU at RIP; True if it has left the enclave."""
        lp = self.lp
        regs = lp.regs
        leaf = regs[RAX] & MASK32
        accesses = self.program.emulator.accesses
        if accesses is not None:
            for register, size, write in _OPERANDS.get(leaf, ()):
                accesses.sharing.touched(self._party, regs[register], size, write)
        try:
            yield from lp.enclu_steps(leaf, regs[RBX], regs[RCX], regs[RDX])
        except Fault as fault:
            yield from self._repair(fault)
            return False
        if leaf == leaves.EEXIT:
            return True
        regs[RIP] += leaves.ENCLU_LENGTH
        return False

    def _silent(self, kind: str, waits: bool, silent: int) -> Point:
        """The point after a slice without one: the code computes, or waits for another thread."""
        cpu = self.current.cpu
        if silent > _SLICES_MAX:
            raise Spins(f"the enclave on cpu {cpu}")
        if waits:
            return self._retry(self.lp.regs[RIP])
        return self._retry(0) if silent > _SLICES_BUSY else (kind, ("lp", cpu), False)


class Code:
    """The program of a CodeEntry: the code at OENTRY, executed by `emulator`."""

    def __init__(self, emulator: SteppedEmulator, signals: Signals) -> None:
        self.emulator = emulator
        self.signals = signals


class CodeEntry(EnclaveEntry):
    """Entries into x86 code. `args` of `HostThread.enter` are the registers at EENTER, by name."""

    def __init__(
        self,
        emulator: SteppedEmulator,
        secinfo: Callable[[int], int],
        signals: Signals = lambda: None,
    ) -> None:
        code: Any = Code(emulator, signals)  # not called, but given to CodeThread.run
        super().__init__(code, secinfo, CodeThread)

    def enter(self, current: Thread, leaf: int, tcs: int) -> Steps[Exit]:
        """As EnclaveEntry.enter, with the registers in `args`."""
        regs = current.kernel.lp(current).regs
        if leaf == leaves.EENTER:
            arguments: Mapping[str, int] = self.args or {}
            for name, value in arguments.items():
                regs[REGISTER_NAMES.index(name.upper())] = value
        regs[RAX], regs[RBX], regs[RCX], regs[RIP] = leaf, tcs, VDSO_ENCLU, VDSO_ENCLU
        return (yield from super().enter(current, leaf, tcs))
