"""The reference engine: enclave code of one address space, executed by Unicorn.

The model's TLB is the only source of translations: the emulator's TLB-fill hook asks it, and is
flushed when the model's TLB was. Threads take turns on one emulator, in slices that end at the
start of a block, where the state is exact; so atomic operations are atomic between threads.

A slice ends when the doorbell rings, when blocks or time are used up, or when the code only waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from softsgx.cpu.fault import GP, UD, Fault
from softsgx.mem.tlb import FETCH, WRITE
from softsgx.runner.code.maddr import exact_address
from softsgx.runner.code.scan import Illegal
from softsgx.runner.code.trapped import ENCLU, undefined
from softsgx.runner.emulator import physical
from softsgx.runner.emulator.blocks import Blocks, Stop, Why, exception
from softsgx.runner.emulator.code_pages import CodePages
from softsgx.runner.emulator.host_wait import HostWait
from softsgx.runner.emulator.physical import Physical
from softsgx.runner.emulator.registers import STALE, Registers
from softsgx.runner.emulator.ring3 import PAGES, enter_ring3
from softsgx.runner.emulator.spins import Spins
from softsgx.runner.emulator.stores import Kind, Store, StoreKinds, StringStores
from softsgx.runner.emulator.unicorn_api import (
    ACCESS,
    UC_ERR_EXCEPTION,
    UC_ERR_OK,
    UC_ERR_WRITE_PROT,
    UC_HOOK_INTR,
    UC_HOOK_MEM_WRITE_PROT,
    UC_HOOK_TLB_FILL,
    UC_PROT_EXEC,
    UC_PROT_READ,
    UC_PROT_WRITE,
    Context,
    FillHook,
    IntrHook,
    Uc,
    UnicornError,
    WriteHook,
)
from softsgx.runner.process.hostmem import OutOfCopies, Stored
from softsgx.spec import faults
from softsgx.spec.attributes import MISC_EXINFO
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, canonical
from softsgx.spec.msr import RFLAGS_TF
from softsgx.spec.registers import RCX, RFLAGS, RIP

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor, Part
    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.process.arena import ArenaMemory
    from softsgx.runner.process.hostmem import HostMemory

# How long a hook in Python takes, in blocks.
_STORE_BLOCKS: Final = 128
_FILL_BLOCKS: Final = 64
_AT_ENCLU: Final = Stop(Why.ENCLU)


class Emulator:
    """One emulator for the enclaves of one address space.

    If slices are `timed`, they also end when time is up or the code spins. If accesses are `asked`,
    each asks the hooks for memory that may not be read or written.
    """

    timed, asked = True, False

    def __init__(
        self, memory: ArenaMemory, host: HostMemory, doorbell: Doorbell, part: Part
    ) -> None:
        self.host = host
        self.memory = memory
        self.doorbell = doorbell
        self.uc = Uc()
        self._registers = Registers(self.uc)
        self._lp: LogicalProcessor | None = None
        # What the emulator's TLB stands for: see _keep_or_drop.
        self._valid: tuple[Any, ...] = (None,)
        self._flushes = -1
        self._pages = CodePages(memory, self._forget_page)
        self._entries: dict[int, int] = {}  # the model's TLB at the end of the last slice
        self._fills_before = -1
        self._full = False
        # Stores to host memory: their kinds by RIP; a string store that is to be done here.
        self._string: Store | None = None
        self._single = -1  # RCX of the element that the emulator stores itself
        self._strings = StringStores(memory, host)
        self._kinds = StoreKinds(self.uc, self._pages.read, self._pages.changing)
        self._fault: Fault | None = None
        self._intr, self._upto = -1, 0
        self.fills = 0
        self._physical = Physical(self.uc, memory, host, self.asked)
        self.uc.hook(UC_HOOK_TLB_FILL, FillHook(self._fill))
        enter_ring3(self.uc, self._physical.boot)
        self._install_hooks(part)
        self._clean = Context(self.uc)

    def _install_hooks(self, part: Part) -> None:
        uc = self.uc
        self.blocks = Blocks(uc, self.doorbell, self._pages.read, self._pages.place, part)
        self.spins = Spins(self.memory, self.blocks)
        self._host_wait = HostWait(self.blocks, self.host, self.doorbell)
        uc.hook(UC_HOOK_MEM_WRITE_PROT, WriteHook(self._on_write), 0, *physical.ASKED)
        uc.hook(UC_HOOK_INTR, IntrHook(self._on_intr))

    def close(self) -> None:
        """Free the emulator."""
        self.uc.close()

    def run(self, lp: LogicalProcessor, alone: bool = False) -> Stop:
        """Execute the enclave code of `lp`, which is in enclave mode, until something stops it.

        Registers are taken from and given back to `lp`, so between two slices it is as if the
        processor itself had executed. `alone`: no other thread waits for the emulator.
        """
        self._begin(lp)
        self.blocks.begin(self.timed)
        self._fault = self._string = None
        self._intr, self._single, self._upto = -1, -1, 0
        error = self._registers.execute(lp, self.host.reads)
        if error == UC_ERR_OK and self._only_enclu(lp):
            self._end_of_slice(lp)
            return _AT_ENCLU
        if error == STALE:
            error = self._without_copies(lp)
        error = self._handle(lp, error, 0)
        if self.spins.suspected:
            error = self._one_round(lp)
        while alone and self._host_wait.over():
            error = self._execute(lp, self._kinds.rip(), 0)
        if self.timed and not alone and (why := self.spins.extend()):
            error = self._execute(lp, self._kinds.rip(), 0)
            self.spins.extended(why)
        if self.blocks.illegal is not None:
            error = self._up_to_illegal(lp, *self.blocks.illegal)
        self._save(lp)
        return self._reason(lp, error)

    def _only_enclu(self, lp: LogicalProcessor) -> bool:
        """Whether nothing but an ENCLU ended the slice, and nothing is left to be done."""
        blocks = self.blocks
        return (
            blocks.control.invalid
            and not (self._fault or self._string or blocks.again or blocks.illegal)
            and not (self._full or blocks.control.reason)
            and self._intr < 0
            and self._pages.read(lp.regs[RIP], 3) == ENCLU
        )

    def _without_copies(self, lp: LogicalProcessor) -> int:
        """Begin the slice whose copies could not be refreshed."""
        if not self.host.refresh():
            self._drop()
        return self._registers.execute(lp, None)

    def _execute(self, lp: LogicalProcessor, rip: int, until: int) -> int:
        """Execute from `rip`; handle those stops here that do not concern the enclave."""
        return self._handle(lp, self.uc.start(rip, until), until)

    def _handle(self, lp: LogicalProcessor, error: int, until: int) -> int:
        """As `_execute`, once the emulator has stopped with `error`."""
        while True:
            if self.blocks.again is not None:
                block, size = self.blocks.again
                self.blocks.again = None
                self.uc.forget_code(block, block + size)
                error = self.uc.start(block, until)
                continue
            if self._string is not None:
                self._save(lp)
                self._do_string(lp)
                if self._fault is not None:
                    return error
            if self._full or (self._intr == faults.DB and not lp.dbgoptin):
                self._save(lp)
                if self._full:  # no room for another copy: drop all, execute the instruction again
                    self._full = False
                    self._drop()
                else:  # after an opt-out entry POPF leaves TF as it is: 0
                    self._intr = -1
                    lp.regs[RFLAGS] &= ~RFLAGS_TF
                self._recover()
                self._registers.load(lp)
            elif error == UC_ERR_WRITE_PROT and self._fault is None:
                self._save(lp)  # a store to a stale copy: execute the instruction again
            else:
                return error
            error = self.uc.start(lp.regs[RIP], until)

    def _one_round(self, lp: LogicalProcessor) -> int:
        """The code seems to spin: execute one more round, to see whether it changes memory."""
        self._save(lp)
        self.spins.begin((list(lp.regs), lp.fsbase, lp.gsbase, lp.x.legacy))
        self.uc.flush_tlb()
        error = self._execute(lp, lp.regs[RIP], 0)
        self._save(lp)
        self.spins.end((list(lp.regs), lp.fsbase, lp.gsbase, lp.x.legacy))
        return error

    def _up_to_illegal(self, lp: LogicalProcessor, block: int, illegal: Illegal) -> int:
        """From the start of a block with an illegal instruction, execute up to that instruction."""
        self._upto = block + illegal.offset
        if illegal.offset == 0:
            return UC_ERR_OK
        self.uc.forget_code(block, self._upto + 1)
        return self._execute(lp, block, self._upto)

    def _begin(self, lp: LogicalProcessor) -> None:
        self._keep_or_drop(lp)
        if self.memory.code_writes != self._pages.writes:
            self._pages.writes = self.memory.code_writes
            self._drop()  # so that pages of code are fetched from, and noted, anew
            self.uc.flush_code()
            self._kinds.forget()
            self.blocks.forget()
        self._lp = self._pages.lp = lp

    def _keep_or_drop(self, lp: LogicalProcessor) -> None:
        """Drop the emulator's translations when the model's were flushed.

        If nothing that a walk reads has changed, walks would only find the same translations; then
        both TLBs keep them.
        """
        processor = lp.processor
        state = (lp, lp.secs, lp.space, lp.space.generation, processor.epcm.generation)
        fresh = not self.host.begin_slice()
        if self.memory.engine is not self:
            # Translations must be filled again to show what another emulator did to shared pages.
            self.memory.engine = self
            fresh = False
        if fresh and state == self._valid:
            if lp.tlb.flushes != self._flushes:
                lp.tlb.entries.update(self._entries)
                self._flushes = lp.tlb.flushes
            return
        if lp.tlb.flushes == self._flushes and self._valid[0] is lp and fresh:
            # The model's TLB was not flushed: what it holds, stale or not, stays valid until then.
            self._valid = (lp,)
            return
        self._valid = state
        self._flushes = lp.tlb.flushes
        self._drop()

    def _drop(self) -> None:
        self.host.drop_copies()
        self.uc.flush_tlb()

    def _save(self, lp: LogicalProcessor) -> None:
        self._registers.save(lp)
        self._end_of_slice(lp)

    def _end_of_slice(self, lp: LogicalProcessor) -> None:
        entries = lp.tlb.entries
        if self.fills != self._fills_before or len(entries) != len(self._entries):
            self._fills_before = self.fills
            self._entries = dict(entries)
        self.host.drain()

    def _reason(self, lp: LogicalProcessor, error: int) -> Stop:
        if self._fault is not None or self._intr >= 0 or error == UC_ERR_EXCEPTION:
            self._recover()
        if self._fault is not None:
            self._exact(lp, self._fault)
            return Stop(Why.FAULT, self._fault)
        if self._intr >= 0:
            return Stop(Why.FAULT, exception(self._intr))
        if error == UC_ERR_EXCEPTION:
            raise UnicornError(f"exception without a cause at {lp.regs[RIP]:#x}")
        if self.blocks.control.invalid:
            code = self._pages.read(lp.regs[RIP], 3)
            return Stop(Why.ENCLU) if code == ENCLU else Stop(Why.FAULT, UD(undefined(code)))
        if self._upto and lp.regs[RIP] == self._upto:
            return Stop(Why.FAULT, self._refusal(lp, self._upto))
        if error:
            raise UnicornError(f"error {error} at {lp.regs[RIP]:#x}")
        return Stop(self.blocks.why)

    def _exact(self, lp: LogicalProcessor, fault: Fault) -> None:
        """For an enclave with MISCSELECT.EXINFO, set the exact address of a page fault."""
        secs = lp.secs
        if fault.vector != faults.PF or secs is None or not secs.MISCSELECT & MISC_EXINFO:
            return
        rip = lp.regs[RIP]
        if fault.code & faults.PFEC_I:
            fault.address = max(rip, fault.address)
            return
        fault.address = exact_address(lp, self._pages.read(rip, 15), fault.address)

    def _refusal(self, lp: LogicalProcessor, rip: int) -> Fault:
        """The fault of an illegal instruction: #UD, but #BP for INT3 after an opt-in entry."""
        if lp.dbgoptin and self._pages.read(rip, 1) == b"\xcc":
            return Fault(faults.BP, "CODE.03")
        return UD("CODE.02")  # an instruction that is illegal inside an enclave

    def _recover(self) -> None:
        """Restore a state without a pending exception: with one, the next is a double fault."""
        self._clean.restore()
        self._registers.fpu.image = None

    # Hooks

    def _fill(self, _uc: Any, address: int, kind: int, entry: Any, _data: Any) -> bool:
        self.fills += 1
        lp = self._lp
        access = ACCESS[kind]
        answer = entry[0]
        if lp is None:  # bringing the emulator to CPL 3: code, stack, descriptor table
            answer.paddr = physical.BOOT + PAGE_SIZE * PAGES.get(address, 2)
            answer.perms = UC_PROT_READ | UC_PROT_WRITE | UC_PROT_EXEC
            return True
        self.blocks.charge(_FILL_BLOCKS)
        try:
            if not canonical(address):
                raise GP("ACCESS.02")  # address not canonical
            if lp.elrange_base <= address < lp.elrange_end:
                word = lp.tlb.entries.get(address >> PAGE_SHIFT, 0)
                if not word & access:
                    word = lp.translate(address, access)
                answer.paddr = word & ~PAGE_MASK
                writes = access == WRITE or not self.spins.trial
                if writes and word & WRITE:
                    self.spins.wrote((word >> PAGE_SHIFT) - self.memory.first)
                answer.perms = self._pages.rights(address >> PAGE_SHIFT, word, access, writes)
                return True
            if access == FETCH:
                raise GP("ACCESS.01")  # fetch outside ELRANGE while in enclave mode
            if self.host.is_enclave(address):
                lp.translate(address, access)  # the abort page, if the page tables allow it
                if access == WRITE:
                    answer.paddr, answer.perms = physical.DROPPED, UC_PROT_WRITE
                    return True
                answer.paddr = physical.ABORT
            else:
                offset = self.host.translate(address, access == WRITE)
                answer.paddr = physical.SHADOW + (offset & ~PAGE_MASK)
        except Fault as fault:
            self._fault = fault
            return False
        except OutOfCopies:
            self._full = True
            return False
        answer.perms = UC_PROT_READ | (UC_PROT_WRITE if access == WRITE else 0)
        return True

    def _on_write(self, _uc: Any, _kind: int, at: int, size: int, value: int, _data: Any) -> bool:
        """A store to a copy of a host page, or to the abort page."""
        self.blocks.charge(_STORE_BLOCKS)
        if at >= physical.ABORT:
            return True
        offset = at - physical.SHADOW
        store = self._kinds.current()
        if store.kind is Kind.STRING and self._kinds.rcx() != self._single:
            self._string = store
            self.spins.stored()
            return False
        if offset & (size - 1):
            return True  # an unaligned store is only announced here: it comes again byte by byte
        data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        if self.spins.trial and self.host.shadow[offset : offset + size] != data:
            self.spins.stored()
        if store.kind is Kind.LOCKED:
            stored = self.host.store_locked(offset, data)
        else:
            stored = self.host.store(offset, data)
        if stored is Stored.FAULT:
            self._fault = self.host.refusal(self.host.address_of(offset))
        return stored is Stored.DONE

    def _do_string(self, lp: LogicalProcessor) -> None:
        """Carry out a REP string store to host memory page by page, as far as possible."""
        store, self._string = self._string, None
        assert store is not None
        try:
            if not self._strings.run(lp, store):
                self._single = lp.regs[RCX]
        except Fault as fault:
            self._fault = fault
        except OutOfCopies:
            self._full = True
        self._registers.load(lp)

    def _forget_page(self, page: int) -> None:
        self._kinds.forget()
        self.blocks.forget_page(page)

    def _on_intr(self, _uc: Any, number: int, _data: Any) -> None:
        self._intr = number
        self.uc.stop()
