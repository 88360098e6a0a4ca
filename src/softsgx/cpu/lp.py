"""A logical processor: the instructions of SGX and the events that a processor takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softsgx.cpu.aex import Delivered, aex
from softsgx.cpu.execute import encls, encls_steps, enclu, enclu_steps, enclv
from softsgx.cpu.memory import LpMemory
from softsgx.cpu.msr import rdmsr, wrmsr
from softsgx.cpu.shadow_stack import endbranch, indirect_branch, shadow_load, shadow_store
from softsgx.mem.pagetable import AddressSpace
from softsgx.spec.registers import RFLAGS

if TYPE_CHECKING:
    from softsgx.cpu.fault import Fault


class LogicalProcessor(LpMemory):
    """One logical processor of a `Processor`.

    Instructions: `encls`, `enclu`, `enclv` execute one leaf at once; `encls_steps`, `enclu_steps`
    are the same for tasks that interleave. `load`, `store`, `fetch` are accesses at CPL 3 through
    the TLB. `deliver` takes an event, with an AEX if the processor is inside an enclave.
    """

    __slots__ = ()

    encls = encls
    enclu = enclu
    enclv = enclv
    encls_steps = encls_steps
    enclu_steps = enclu_steps
    rdmsr = rdmsr
    wrmsr = wrmsr
    # Shadow stack and indirect-branch tracker
    shadow_load = shadow_load
    shadow_store = shadow_store
    indirect_branch = indirect_branch
    endbranch = endbranch

    # Events

    def load_cr3(self, space: AddressSpace) -> None:
        """Switch to another address space. Only outside enclave mode."""
        if not isinstance(space, AddressSpace):
            raise TypeError(f"space: {space!r} is not an AddressSpace")
        if self.secs is not None:
            raise RuntimeError("MOV to CR3 is not possible inside an enclave: CPL is 3")
        self.refuse_in_flight("MOV to CR3")
        self.space = space
        self.flush_tlb("CR3")

    def deliver(self, vector: int, code: int = 0, address: int = 0) -> Delivered:
        """Take an exception or interrupt: AEX if inside. Returns what the OS handler finds."""
        for name, value, bits in (
            ("vector", vector, 8),
            ("code", code, 32),
            ("address", address, 64),
        ):
            if not isinstance(value, int) or not 0 <= value < 1 << bits:
                raise ValueError(f"{name}: {value!r} is not a {bits}-bit number")
        return self._deliver(vector, code, address)

    def _deliver(self, vector: int, code: int, address: int) -> Delivered:
        self.refuse_in_flight("an event")
        if self.secs is not None:
            return aex(self, vector, code, address)
        return Delivered(vector, code, address, from_enclave=False)

    def deliver_fault(self, fault: Fault) -> Delivered:
        """Deliver a `Fault` raised by an access or a leaf."""
        return self._deliver(fault.vector, fault.code, fault.address)

    def interrupt(self, vector: int = 0xFB) -> Delivered:
        """Take an external interrupt, whatever its vector: AEX if inside, else nothing changes."""
        self.refuse_in_flight("an interrupt")
        if self.secs is not None:
            return aex(self, vector, 0, 0, exception=False)
        return Delivered(vector, 0, 0, False)

    def shootdown(self, pages: Sequence[int] | None) -> None:
        """Take the interrupt of a TLB shootdown (`mem.shootdown`).

        Inside, the interrupt is an AEX, which drops all translations. Outside, the handler drops
        those of `pages`, a linear address in each, or all of them if it is None.
        """
        if self.secs is not None:
            self.interrupt()
        elif pages is None:
            self.flush_tlb("shootdown")
        else:
            for address in pages:
                self.tlb.invlpg(address)

    def __repr__(self) -> str:
        where = "outside" if self.secs is None else f"inside enclave {self.secs.EID}"
        return f"<LP {self.id} {where}, flags {self.regs[RFLAGS]:#x}>"
