"""The abort page: what a host thread finds where enclave memory is mapped. SDM 3D, 37.3.

Enclave areas are PROT_NONE in the process, so that such an access is a SIGSEGV that only we see. It
goes through the fault handler of the driver like any other; then the instruction runs on a page of
ones, and what it wrote is forgotten.
"""

from __future__ import annotations

import os
import signal
import struct
from typing import TYPE_CHECKING, Final

from softsgx.linux.fault import do_user_addr_fault
from softsgx.linux.mm import VM_EXEC, VM_READ, VM_RWX, VM_WRITE
from softsgx.linux.process import SIGBUS, Signal
from softsgx.runner import ptrace as p
from softsgx.runner.forced import ACTION_SIZE, mask_before, set_action
from softsgx.runner.tracee import NR_MPROTECT, Tracee
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.faults import PFEC_I, PFEC_U, PFEC_W

if TYPE_CHECKING:
    from softsgx.runner.world import World

_ONES: Final = b"\xff" * PAGE_SIZE
_CODE_AT, _ADDRESS_AT = 8, 16
_PAGES_MAX: Final = 4


class AbortPage:
    """Serves accesses of host threads to enclave areas."""

    def __init__(self, world: World) -> None:
        self.world = world

    def access(self, t: Tracee) -> bool:
        """A SIGSEGV is about to be delivered. True if it was an access that is served here."""
        info = p.get_siginfo(t.tid)
        (code,) = struct.unpack_from("<i", info, _CODE_AT)
        (address,) = struct.unpack_from("<Q", info, _ADDRESS_AT)
        if code <= 0 or not t.space.mm.vmas:
            return False
        vma = t.space.mm.vma_lookup(address)
        if vma is None or not vma.flags & VM_RWX:
            return False
        opened: list[int] = []
        rip = p.get_regs(t.tid)[p.RIP]
        mask = mask_before(t, signal.SIGSEGV)
        try:
            return self._step(t, address, rip, opened, mask)
        finally:
            self.close(t, opened)

    def _done(self, t: Tracee, opened: list[int], mask: int, number: int = 0) -> None:
        self.close(t, opened)
        p.set_sigmask(t.tid, mask)  # a single step is a SIGTRAP, which unblocks itself, too
        p.request(p.PTRACE_CONT, t.tid, 0, number)

    def open_range(self, t: Tracee, address: int, length: int, opened: list[int]) -> None:
        """Make the enclave pages of a buffer pages of ones, as far as their areas allow it."""
        for page in range(address & ~PAGE_MASK, address + length, PAGE_SIZE):
            vma = t.space.mm.vma_lookup(page)
            if (
                vma is not None
                and vma.flags & VM_RWX
                and self._fault(t, page, 0, vma.flags) is None
            ):
                self._open(t, page, vma.flags)
                opened.append(page)

    def close(self, t: Tracee, opened: list[int]) -> None:
        """Nobody may touch the pages any more."""
        while opened:
            t.inject(NR_MPROTECT, opened.pop(), PAGE_SIZE, 0)

    def _step(self, t: Tracee, address: int, rip: int, opened: list[int], mask: int) -> bool:
        """Open the page, execute one instruction, perhaps with a second page."""
        while len(opened) < _PAGES_MAX:
            page = address & ~PAGE_MASK
            vma = t.space.mm.vma_lookup(address)
            if vma is None or page in opened:
                return False  # refused by the rights of the area: the program's own fault
            refused = self._fault(t, address, rip, vma.flags)
            if refused is not None and refused.number == SIGBUS:
                self._send(t, refused)
                return True
            if refused is not None:
                return False
            self._open(t, page, vma.flags)
            opened.append(page)
            p.request(p.PTRACE_SINGLESTEP, t.tid)
            _, status = os.waitpid(t.tid, p.WALL)
            if not os.WIFSTOPPED(status):
                self.world.ended.append((t, status))
                raise p.NoSuchTracee(3, "died in a single step")
            number = os.WSTOPSIG(status)
            if number == signal.SIGTRAP:
                self._done(t, opened, mask)
                return True
            if number != signal.SIGSEGV:
                self._done(t, opened, mask, number)
                return True
            (address,) = struct.unpack_from("<Q", p.get_siginfo(t.tid), _ADDRESS_AT)
        return False

    def _fault(self, t: Tracee, address: int, rip: int, flags: int) -> Signal | None:
        """The driver's fault handler: a missing page is loaded or added, whoever touches it."""
        thread = t.model()
        code = PFEC_U | (PFEC_I if address == rip else 0)
        if not flags & VM_READ and flags & VM_WRITE:
            code |= PFEC_W
        body = do_user_addr_fault(thread, code, address)
        return self.world.run(body, thread.cpu)

    def _open(self, t: Tracee, page: int, flags: int) -> None:
        native = t.space.native
        if native is not None:
            self._nobody_inside(t)
            native.hide((page >> PAGE_SHIFT,))
            for operation in native.pending():
                t.inject(operation.number, *operation.arguments)
            native.hidden.clear()
        t.inject(NR_MPROTECT, page, PAGE_SIZE, VM_READ | VM_WRITE)
        p.write_memory(t.tid, page, _ONES)
        prot = flags & VM_RWX
        if prot & (VM_WRITE | VM_EXEC):
            prot |= VM_READ
        if prot != VM_READ | VM_WRITE:
            t.inject(NR_MPROTECT, page, PAGE_SIZE, prot)

    def _nobody_inside(self, t: Tracee) -> None:
        """Threads that run natively would see the page of ones: interrupt them."""
        for thread in t.space.process.threads:
            lp = self.world.machine.processor.lps[thread.cpu]
            if thread is not t.thread and lp.enclave_mode:
                lp.interrupt()

    def _send(self, t: Tracee, found: Signal) -> None:
        t.siginfo[found.number] = found
        mask, bit = p.get_sigmask(t.tid), 1 << (found.number - 1)
        if mask & bit:
            # force_sig: who blocks it dies of it. Otherwise it would stay pending, and the access
            # happen again and again.
            set_action(t, found.number, bytes(ACTION_SIZE))
            p.set_sigmask(t.tid, mask & ~bit)
        p.tgkill(t.pid, t.tid, found.number)
        p.request(p.PTRACE_CONT, t.tid)
