"""What the native engine maps into every process, and what it requires of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.runner.errors import LoadError, RunnerError
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import PRIVATE_NOREPLACE, PROT_RW, PROT_RX
from softsgx.runner.host.probes import Refused, try_native
from softsgx.runner.inserted.assembled import code_of
from softsgx.runner.inserted.layout import NATIVE_CODE, NATIVE_EPC, NATIVE_SLOTS, SLOTS_SIZE
from softsgx.runner.inserted.machine_code import NATIVE_CODE as _PARTS
from softsgx.runner.inserted.systrap_layout import SPACE_SLOTS_AT
from softsgx.runner.native.armed import ARRIVE
from softsgx.runner.process.shared import map_shared
from softsgx.runner.say import say
from softsgx.spec.bits import PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.runner.native.slots import Slots
    from softsgx.runner.process.arena import ArenaMemory
    from softsgx.runner.process.tracee import Tracee

_CODE: Final = code_of(_PARTS)

NOTICE: Final = (
    "softsgx: run: native engine: host threads can read and write mapped enclave pages, and enclave"
    " code can {}jump outside; docs/run.md lists what is not enforced\n"
)


def announce(cpuid_faults: bool) -> None:
    """Print what this engine does not enforce; RunnerError if the machine cannot run it."""
    try:
        try_native()
    except Refused as refused:
        raise RunnerError("--engine native", f"{refused}; use --engine unicorn") from None
    say(NOTICE.format("" if cpuid_faults else "execute CPUID and "))


class NativeParts:
    """What is mapped into every process at exec."""

    def __init__(self, memory: ArenaMemory, slots: Slots) -> None:
        self.memory = memory
        self.arrive = ARRIVE
        self.slots = slots

    def map(self, t: Tracee) -> None:
        """Map the code, the slots, and all of EPC with PROT_NONE."""
        code = t.inject(nr.MMAP, NATIVE_CODE, PAGE_SIZE, PROT_RX, PRIVATE_NOREPLACE, p.MASK64, 0)
        _placed(t, NATIVE_CODE, code)
        p.write_code(t.tid, NATIVE_CODE, _CODE)
        family = t.space.family
        fd, offset = (self.slots.fd, 0) if family is None else (family.fd, SPACE_SLOTS_AT)
        map_shared(t, fd, NATIVE_SLOTS, SLOTS_SIZE, PROT_RW, offset)
        map_shared(t, self.memory.fd, NATIVE_EPC, self.memory.count * PAGE_SIZE, 0)


def _placed(t: Tracee, place: int, got: int) -> None:
    if got != place:
        raise LoadError(f"process {t.tid}: {place:#x} cannot be mapped: {got}")
