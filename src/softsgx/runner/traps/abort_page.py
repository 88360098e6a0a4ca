"""The abort page: what a host thread finds where enclave memory is mapped.

SDM 3D, 38.5.1 "Access-control for Accesses that Originate from non-SGX Instructions".

Enclave areas are PROT_NONE in the process, so such an access raises SIGSEGV, which the supervisor
sees first. It walks the page tables of the model, and calls the fault handler of the model's kernel
if the walk fails. If the kernel refuses the access, the program gets the kernel's signal; otherwise
the instruction is executed on a page of ones, and what it wrote there is dropped.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.cpu.access import walk
from softsgx.cpu.fault import Fault
from softsgx.events.cpu import AccessFaulted
from softsgx.linux.fault import do_user_addr_fault
from softsgx.linux.mm import VM_EXEC, VM_READ, VM_RWX, VM_WRITE
from softsgx.linux.process import SEGV_ACCERR, SEGV_MAPERR, Signal
from softsgx.linux.trace import trace_signal
from softsgx.mem.tlb import FETCH, WRITE
from softsgx.runner.code.encoding import LONGEST
from softsgx.runner.code.maddr import access_kind
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.process.forced import force_sig, mask_before, restore_handlers
from softsgx.runner.process.signals import (
    Due,
    bit,
    code_and_address,
    siginfo,
    signal_state,
)
from softsgx.runner.process.tracee import Tracee, in_model_order
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE
from softsgx.spec.faults import PFEC_P

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.linux.mm import Vma
    from softsgx.runner.process.world import World

_ONES: Final = b"\xff" * PAGE_SIZE
# 16 elements of a gather, each across two pages, and an instruction across two.
_PAGES_MAX: Final = 34
_PAGE_FAULTS: Final = (SEGV_MAPERR, SEGV_ACCERR)


class _HostRegisters(NamedTuple):
    regs: list[int]
    fsbase: int
    gsbase: int


class _Attempt:
    """One instruction that touches enclave memory.

    `opened` lists the pages that were made pages of ones. `mask` has the signals that were blocked
    before it; while it is None, the thread is as it was, and its SIGSEGV can still be delivered.
    """

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.mask: int | None = None


class AbortPage:
    """Serves accesses of host threads to enclave areas."""

    def __init__(self, world: World) -> None:
        self.world = world
        # Called before a page becomes a page of ones: threads that use it must leave the enclave.
        self.hide: Callable[[Tracee, int], None] | None = None

    def access(self, t: Tracee) -> tuple[int, Due | None] | None:
        """At the stop of a SIGSEGV: the signal to deliver, with its siginfo already set.

        None if the thread was resumed: the access was carried out, or another signal was sent.
        """
        address = self._address(t, p.get_siginfo(t.tid))
        if address is None:
            return int(signal.SIGSEGV), None
        attempt = _Attempt()
        try:
            refused = self._run(t, attempt, address)
            return None if refused is None else self._refuse(t, attempt, refused)
        finally:
            self.close(t, attempt.opened)

    def from_inside(self, t: Tracee, address: int) -> Signal | None:
        """Serve an access of enclave code to another enclave.

        Returns the kernel's signal if it refuses the access."""
        attempt = _Attempt()
        try:
            return self._run(t, attempt, address)
        finally:
            self.close(t, attempt.opened)

    def _address(self, t: Tracee, info: bytes) -> int | None:
        """si_addr, if the signal is for a page fault on an enclave area."""
        code, address = code_and_address(info)
        if code not in _PAGE_FAULTS or not t.space.mm.vmas:
            return None
        return address if t.space.mm.vma_lookup(address) is not None else None

    # Executing the access

    def _run(self, t: Tracee, attempt: _Attempt, address: int) -> Signal | None:
        """Open pages and execute the instruction until it is done, or raises another signal.

        Returns the signal if the kernel refuses the access.
        """
        while True:
            access = self._access(t, address)
            if address & ~PAGE_MASK in attempt.opened and access != FETCH:
                access = WRITE  # the page has been made readable and still faults
            refused = self._fault_in(t, address, access, log=True)
            if refused is not None:
                return refused
            if attempt.mask is None:
                attempt.mask = mask_before(t, signal.SIGSEGV)
            self._open(t, address & ~PAGE_MASK, t.space.mm.vma_lookup(address))
            attempt.opened.append(address & ~PAGE_MASK)
            number, info = self._step(t)
            found = self._address(t, info) if number == signal.SIGSEGV else None
            if found is None or len(attempt.opened) == _PAGES_MAX:
                self._executed(t, attempt, number, info)
                return None
            address = found

    def _access(self, t: Tracee, address: int) -> int:
        """READ, WRITE or FETCH, from the instruction: siginfo does not tell them apart."""
        regs = p.get_regs(t.tid)
        rip = regs[p.RIP]
        if address == rip:
            return FETCH
        code = p.read_memory(t.tid, rip, LONGEST)
        if code is None:
            # The bytes reach into an unreadable page, or the page is execute-only.
            rest = min(LONGEST, PAGE_SIZE - (rip & PAGE_MASK))
            buffer = bytearray(rest)
            size = t.space.attach_memory().peek(rip, memoryview(buffer))
            code = bytes(buffer[:size])
        host = _HostRegisters(list(in_model_order(regs)), regs[p.FS_BASE], regs[p.GS_BASE])
        return access_kind(host, code, address)

    def _fault_in(
        self, t: Tracee, address: int, access: int, *, log: bool = False
    ) -> Signal | None:
        """Walk the page tables, and run the kernel's fault handler until the walk succeeds.

        Returns the signal if the kernel refuses. `log`: emit an event for each fault.
        """
        thread = t.model()
        while True:
            try:
                walk(t.lp, address, access)
            except Fault as fault:
                if log:
                    _emit(t, address, access, fault)
                body = do_user_addr_fault(thread, fault.code, address)
                refused = self.world.run(body, thread.cpu)
                if refused is not None:
                    return refused
            else:
                return None

    def _refuse(
        self, t: Tracee, attempt: _Attempt, refused: Signal
    ) -> tuple[int, Due | None] | None:
        """Deliver the signal of the kernel's refusal. P in its error code is that of the model.

        W and I need no correction: the real fault was a write or a fetch, too.
        """
        number = refused.number
        sent = trace_signal(t.model(), refused)
        due = Due(siginfo(refused), refused.error_code, PFEC_P, sent_event=sent)
        same = number == signal.SIGSEGV
        if attempt.mask is None and (same or not signal_state(t.tid).blocks_or_ignores(number)):
            p.set_siginfo(t.tid, due.info)
            return number, due
        self.close(t, attempt.opened)
        if not same:
            # The real kernel may have reset the handler of SIGSEGV, but this is another signal.
            if attempt.mask is None:
                attempt.mask = mask_before(t, signal.SIGSEGV)
            self._restore_signals(t, attempt)
            force_sig(t, number)
        t.send(number, due)
        p.request(p.PTRACE_CONT, t.tid)
        return None

    def _executed(self, t: Tracee, attempt: _Attempt, number: int, info: bytes) -> None:
        """The instruction is done, or another signal came first: the program gets it unchanged."""
        self.close(t, attempt.opened)
        raised = code_and_address(info)[0] > 0  # by the instruction itself
        if number == signal.SIGTRAP and raised:
            self._restore_signals(t, attempt)
        else:
            self._restore_signals(t, attempt, number if raised else 0)
            t.send(number, Due(info))
        p.request(p.PTRACE_CONT, t.tid)

    # The thread

    def _restore_signals(self, t: Tracee, attempt: _Attempt, but: int = 0) -> None:
        """Set handlers and mask as they were before. The SIGTRAP of a single step was forced, too.

        Signal `but` is an exception of the program's own: what the kernel did for it stays.
        """
        assert attempt.mask is not None
        p.set_sigmask(t.tid, attempt.mask & ~bit(but) if but else attempt.mask)
        restore_handlers(t, but)

    def _step(self, t: Tracee) -> tuple[int, bytes]:
        """Execute one instruction. Returns the next signal and siginfo: SIGTRAP if it is done."""
        while True:
            p.request(p.PTRACE_SINGLESTEP, t.tid)
            status = t.wait()
            if not status >> 16:
                return os.WSTOPSIG(status), p.get_siginfo(t.tid)

    # The pages

    def open_range(self, t: Tracee, address: int, length: int, access: int) -> list[int]:
        """Make those enclave pages of a buffer that may be accessed pages of ones; returns them."""
        opened = []
        for page in range(address & ~PAGE_MASK, address + length, PAGE_SIZE):
            vma = t.space.mm.vma_lookup(page)
            if vma is not None and self._fault_in(t, page, access) is None:
                self._open(t, page, vma)
                opened.append(page)
        return opened

    def close(self, t: Tracee, opened: list[int]) -> None:
        """Make the pages PROT_NONE again."""
        while opened:
            t.inject(nr.MPROTECT, opened.pop(), PAGE_SIZE, 0)

    def _open(self, t: Tracee, page: int, vma: Vma) -> None:
        if self.hide is not None:
            self.hide(t, page)
        t.inject(nr.MPROTECT, page, PAGE_SIZE, VM_READ | VM_WRITE)
        p.write_memory(t.tid, page, _ONES)
        prot = vma.flags & VM_RWX
        if prot & (VM_WRITE | VM_EXEC):
            prot |= VM_READ
        if prot != VM_READ | VM_WRITE:
            t.inject(nr.MPROTECT, page, PAGE_SIZE, prot)


def _emit(t: Tracee, address: int, access: int, fault: Fault) -> None:
    """Emit AccessFaulted, as the processor does for its accesses: `walk` itself emits no events."""
    log = t.world.log
    if log.on:
        vector, code, rule = fault.vector, fault.code, fault.rule
        log.emit(AccessFaulted(t.lp.id, address, access, vector, code, rule, 0))
