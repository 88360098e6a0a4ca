"""Real enclave code as a task: the emulator executes what a thread does inside.

There is a point before each ENCLU and before each access that misses the TLB. Everything else
(leaves in tasks, AEX, page faults, ERESUME) is done as for enclave code in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from softsgx.cpu.fault import Fault
from softsgx.linux.vdso import VDSO_ENCLU, Exit
from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.runner.emulator.blocks import Why
from softsgx.sim import RETRY, StepBound, Steps
from softsgx.spec import leaves
from softsgx.spec.bits import MASK32
from softsgx.spec.registers import RAX, RBX, RCX, RDX, REGISTER_NAMES, RIP
from softsgx.system.enclave import EnclaveThread
from softsgx.system.host import EnclaveEntry

if TYPE_CHECKING:
    from softsgx.linux.process import Thread
    from softsgx.runner.explored.stepped_emulator import SteppedEmulator

_KINDS: Final = {READ: "load", WRITE: "store", FETCH: "fetch"}
# Slices without a point after which code counts as waiting, and after which it counts as hanging.
_SLICES_BUSY: Final = 8
_SLICES_MAX: Final = 64

Registers = dict[str, int]
"""Register values by name in small letters: rax, rdi, ..."""


class Spins(StepBound):
    """Code has reached no point for a long time: an endless loop, or a wait that never ends."""

    def __init__(self, who: str) -> None:
        super().__init__(_SLICES_MAX, "")
        self.args = (f"{who} has come to no ENCLU and no new page for {_SLICES_MAX} slices",)


class CodeThread(EnclaveThread):
    """One entry into an enclave of x86 code; the emulator is in the program of the entry."""

    def run(self, program: Any) -> Steps[Registers]:
        """Execute until EEXIT; returns the registers after it."""
        emulator: SteppedEmulator = program.emulator
        silent = 0
        while True:
            lp = yield from self._be_inside()
            stop = emulator.run(lp)
            if stop.why is Why.MISS:
                silent = 0
                page, access = emulator.missed
                yield (_KINDS[access], ("linear", page), access == WRITE)
                emulator.grant(page, access)
            elif stop.why is Why.FAULT:
                assert stop.fault is not None
                yield from self._repair(stop.fault)
            elif stop.why is Why.ENCLU:
                silent = 0
                if (yield from self._leaf()):
                    return {
                        name.lower(): value
                        for name, value in zip(REGISTER_NAMES, self.lp.regs, strict=False)
                    }
            else:
                silent += 1
                yield from self._silent(stop.why, silent)

    def _leaf(self) -> Steps[bool]:
        """Execute the ENCLU at RIP; True if it has left the enclave."""
        lp = self.lp
        regs = lp.regs
        leaf = regs[RAX] & MASK32
        try:
            yield from lp.enclu_steps(leaf, regs[RBX], regs[RCX], regs[RDX])
        except Fault as fault:
            yield from self._repair(fault)
            return False
        if leaf == leaves.EEXIT:
            return True
        regs[RIP] += leaves.ENCLU_LENGTH
        return False

    def _silent(self, why: Why, silent: int) -> Steps[None]:
        """The point after a slice without one: the code computes, or waits for another thread."""
        me = self.current
        if silent > _SLICES_MAX:
            raise Spins(f"the enclave on cpu {me.cpu}")
        if why is Why.PAUSE or silent > _SLICES_BUSY:
            # Two loops, one after the other, are told apart by where their PAUSE is.
            where = self.lp.regs[RIP] if why is Why.PAUSE else 0
            yield (RETRY, ("spin", me.cpu, where), False)
        else:
            yield ("compute", ("lp", me.cpu), False)


class Code:
    """The program of a CodeEntry: the code at OENTRY, executed by `emulator`."""

    def __init__(self, emulator: SteppedEmulator) -> None:
        self.emulator = emulator


class CodeEntry(EnclaveEntry):
    """Entries into x86 code. `args` of `HostThread.enter` are the registers at EENTER, by name."""

    def __init__(self, emulator: SteppedEmulator, secinfo: Callable[[int], int]) -> None:
        super().__init__(Code(emulator), secinfo, CodeThread)  # type: ignore[arg-type] # never called

    def enter(self, current: Thread, leaf: int, tcs: int) -> Steps[Exit]:
        """As EnclaveEntry.enter, with the registers in `args`."""
        regs = current.kernel.lp(current).regs
        if leaf == leaves.EENTER:
            arguments: Mapping[str, int] = self.args or {}
            for name, value in arguments.items():
                regs[REGISTER_NAMES.index(name.upper())] = value
        regs[RAX], regs[RBX], regs[RCX], regs[RIP] = leaf, tcs, VDSO_ENCLU, VDSO_ENCLU
        return (yield from super().enter(current, leaf, tcs))
