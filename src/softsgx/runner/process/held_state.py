"""The state of a thread that the stub in its own process holds: registers, FP state, signals.

Registers are in the frame that the kernel made for the stub's handler, which lies in the thread's
record. Reading and changing them takes no system call.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
from collections import deque
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import AUDIT_ARCH_X86_64, SIG_DFL, SIG_IGN, XSAVE_SOFTWARE
from softsgx.runner.inserted import systrap_layout as lay
from softsgx.runner.inserted.box import FX_SIZE, REQUEST, TAKEN
from softsgx.runner.say import say
from softsgx.spec.bits import MASK32, MASK64

if TYPE_CHECKING:
    from softsgx.runner.inserted.records import Records

# struct ucontext of x86-64: flags, link, stack_t, 23 registers, a pointer to the FP state, the
# mask. Linux 6.12, arch/x86/include/uapi/asm/sigcontext.h and asm-generic/ucontext.h.
_GREGS_AT: Final = 40
_GREGS: Final = struct.Struct("18Q")
_GREGS_AND_SEGMENTS: Final = struct.Struct("18Q4H")
_ERR_AT: Final = _GREGS_AT + 8 * 19
_FP_AT: Final = _GREGS_AT + 8 * 23
_MASK_AT: Final = _FP_AT + 8 * 9
_FRAME_SIZE: Final = _MASK_AT + 8
_ORDER: Final = (
    p.R8, p.R9, p.R10, p.R11, p.R12, p.R13, p.R14, p.R15, p.RDI, p.RSI, p.RBP, p.RBX,
    p.RDX, p.RAX, p.RCX, p.RSP, p.RIP, p.EFLAGS,
)  # fmt: skip
_in_frame_order = itemgetter(*_ORDER)
# A user_regs_struct of the frame's registers and segments, FS and GS base, -1 for orig_rax and 0.
_FRAME: Final = (*_ORDER, p.CS, p.GS, p.FS, p.SS, p.FS_BASE, p.GS_BASE, p.ORIG_RAX)
_in_user_order = itemgetter(*(_FRAME.index(n) if n in _FRAME else len(_FRAME) for n in range(27)))
_WORD: Final = struct.Struct("Q")
_ARCH: Final = struct.Struct("<I")
_ARCH_AT: Final = 28  # si_arch of SIGSYS
_EXTENDED: Final = struct.Struct("<IIQI")  # magic, extended size, features, size of the image
_FP_XSTATE_MAGIC1: Final = 0x46505853

# Fields of the record by their index among words of 32 and of 64 bits.
_WORD_AT: Final = {name: at // 4 for name, at in lay.RECORD_AT.items()}
_LONG_AT: Final = {name: at // 8 for name, at in lay.RECORD_AT.items()}
_FRAME_LONG, _INFO_LONG = _LONG_AT["FRAME"], _LONG_AT["INFO"]
_FS_LONG, _GS_LONG = _LONG_AT["FS"], _LONG_AT["GS"]
_INSIDE_WORD: Final = _WORD_AT["INSIDE"]
_STACK_AT: Final = lay.RECORD_AT["STACK"]

_RESERVED: Final = lay.RESERVED_SIGNALS
_NUMBERS: Final = tuple(n for n in range(1, lay.SIGNALS + 1) if _RESERVED >> (n - 1) & 1)


class Gone(p.NoSuchTracee):
    """The thread is not stopped, or its record makes no sense."""

    def __init__(self) -> None:
        super().__init__(errno.ESRCH, "the thread is not held")


class HeldState:
    """One thread that has a record. `kind` is what it reported last; 0 while it runs."""

    def __init__(self, records: Records, record: int, pid: int, tid: int) -> None:
        self.records = records
        self.record = record
        self.family = records.family(record)
        self.local = record - self.family.first  # its number in that file
        self.address = self.family.address(self.local)  # of the record, in the process
        self.pid = pid
        self.tid = tid
        self.kind = 0
        self.later: deque[int] = deque()  # statuses that need no report of the stub
        self._memory = self.family.record(self.local)
        self._words = self._memory.cast("I")
        self._longs = self._memory.cast("Q")
        self._regs: list[int] | None = None
        self._changed = False
        self._judged = False  # the stub goes on with the call itself if it may
        self._gs_is_record = False
        self._frame = 0
        # A signal that was sent while it is stopped; and the one that it seems to be stopped by.
        self._sending: tuple[int, bytes] | None = None
        self._sent: tuple[int, bytes] | None = None
        self._out = 0  # what `set_frame` has set, of OUT_SET

    @property
    def maker(self) -> int:
        """The record of the thread that has made this one: in the same file, or -1."""
        number = self.word("PARENT")
        return self.family.first + number if number < lay.RECORDS_MAX else -1

    def free(self) -> None:
        """Free the record: its thread has died without doing so."""
        self.family.put_tables(self.long("TABLE"), self.long("PROCESS"))
        self.family.give_record(self.local)

    # Words of the record

    def word(self, name: str) -> int:
        """A 32-bit field."""
        return self._words[_WORD_AT[name]]

    def set_word(self, name: str, value: int) -> None:
        """Set a 32-bit field."""
        self._words[_WORD_AT[name]] = value & MASK32

    def long(self, name: str) -> int:
        """A 64-bit field."""
        return self._longs[_LONG_AT[name]]

    def set_long(self, name: str, value: int) -> None:
        """Set a 64-bit field."""
        self._longs[_LONG_AT[name]] = value & MASK64

    # The frame

    def _at(self, address: int, size: int) -> int:
        """The offset in the record of something on the thread's signal stack."""
        at = address - self.address
        if not _STACK_AT <= at <= lay.RECORD_STRIDE - size or at % 8:
            raise self.senseless()
        return at

    def senseless(self) -> Gone:
        """The program has written to its records: it is killed. What the request raises then."""
        if self.pid:
            say(f"softsgx: run: process {self.pid}: what it reports makes no sense; killed\n")
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
        self.kind = 0
        return Gone()

    def _frame_at(self) -> int:
        if not self.kind:
            raise Gone
        if not self._frame:
            self._frame = self._at(self._longs[_FRAME_LONG], _FRAME_SIZE)
        return self._frame

    def get_regs(self) -> list[int]:
        """As ptrace.get_regs."""
        if self._regs is None:
            self._regs = self._read()
        return list(self._regs)

    def _read(self) -> list[int]:
        at = self._frame_at()
        values = _GREGS_AND_SEGMENTS.unpack_from(self._memory, at + _GREGS_AT)
        gs = self._longs[_GS_LONG]
        self._gs_is_record = gs == self.address
        if self._gs_is_record:
            gs = 0
        regs = list(_in_user_order((*values, self._longs[_FS_LONG], gs, MASK64, 0)))
        if self.kind == lay.KIND_SYSCALL:
            regs[p.ORIG_RAX] = regs[p.RAX]
            regs[p.RAX] = -errno.ENOSYS & MASK64
        elif self.kind == lay.KIND_EXIT:
            regs[p.ORIG_RAX] = self.long("SYSCALL_NR")
        return regs

    def set_regs(self, regs: list[int]) -> None:
        """As ptrace.set_regs."""
        if self._regs is None:
            self._regs = self._read()
        self._regs = list(regs)
        self._changed = True

    def _write(self, regs: list[int]) -> None:
        at = self._frame_at()
        _GREGS.pack_into(self._memory, at + _GREGS_AT, *_in_frame_order(regs))
        gs = regs[p.GS_BASE]
        if self._gs_is_record and not gs:
            gs = self.address
        self._longs[_FS_LONG] = regs[p.FS_BASE]
        self._longs[_GS_LONG] = gs

    def _fp(self) -> int:
        (address,) = _WORD.unpack_from(self._memory, self._frame_at() + _FP_AT)
        return self._at(address, FX_SIZE)

    def get_fpregs(self) -> bytes:
        """As ptrace.get_fpregs."""
        at = self._fp()
        return bytes(self._memory[at : at + XSAVE_SOFTWARE]).ljust(FX_SIZE, b"\0")

    def set_fpregs(self, image: bytes) -> None:
        """As ptrace.set_fpregs."""
        at = self._fp()
        self._memory[at : at + 26] = image[:26]
        self._memory[at + 32 : at + XSAVE_SOFTWARE] = image[32:XSAVE_SOFTWARE]
        if self._xstate_size(at) > FX_SIZE:  # x87 and SSE are not in their initial state now
            (present,) = _WORD.unpack_from(self._memory, at + FX_SIZE)
            _WORD.pack_into(self._memory, at + FX_SIZE, present | 3)

    def _xstate_size(self, at: int) -> int:
        magic, _, _, size = _EXTENDED.unpack_from(self._memory, at + XSAVE_SOFTWARE)
        if magic != _FP_XSTATE_MAGIC1 or not FX_SIZE < size <= lay.RECORD_STRIDE - at:
            return FX_SIZE
        return int(size)

    def get_xstate(self) -> bytearray:
        """As ptrace.get_xstate."""
        at = self._fp()
        return bytearray(self._memory[at : at + self._xstate_size(at)])

    def set_xstate(self, image: bytearray) -> None:
        """As ptrace.set_xstate."""
        at = self._fp()
        size = min(self._xstate_size(at), len(image))
        self._memory[at : at + XSAVE_SOFTWARE] = image[:XSAVE_SOFTWARE]
        self._memory[at + FX_SIZE : at + size] = image[FX_SIZE:size]

    # Signals

    def _info(self) -> memoryview:
        at = self._at(self._longs[_INFO_LONG], lay.INFO_SIZE)
        return self._memory[at : at + lay.INFO_SIZE]

    def get_siginfo(self) -> bytes:
        """As ptrace.get_siginfo."""
        self._frame_at()
        return bytes(self._info()) if self._sent is None else self._sent[1]

    def by_syscall(self) -> bool:
        """As Held.by_syscall."""
        (arch,) = _ARCH.unpack_from(self._info(), _ARCH_AT)
        return bool(arch == AUDIT_ARCH_X86_64)

    def set_siginfo(self, info: bytes) -> None:
        """As ptrace.set_siginfo."""
        self._frame_at()
        info = info.ljust(lay.INFO_SIZE, b"\0")[: lay.INFO_SIZE]
        if self._sent is None:
            self._info()[:] = info
        else:
            self._sent = self._sent[0], info

    def send(self, number: int, info: bytes) -> bool:
        """As Held.send: the thread will seem to stop for it when it is continued."""
        if not self.kind or self.get_sigmask() >> (number - 1) & 1:
            return False
        if self.kind == lay.KIND_SYSCALL and self.get_regs()[p.ORIG_RAX] != MASK64:
            return False
        self._sending = number, info
        return True

    def get_sigmask(self) -> int:
        """As ptrace.get_sigmask: what the program believes to be blocked."""
        (mask,) = _WORD.unpack_from(self._memory, self._frame_at() + _MASK_AT)
        return int(mask) & ~_RESERVED | self.long("VBLOCKED") & _RESERVED

    def set_sigmask(self, mask: int) -> None:
        """As ptrace.set_sigmask."""
        _WORD.pack_into(self._memory, self._frame_at() + _MASK_AT, mask & ~_RESERVED)
        self.set_long("VBLOCKED", mask & _RESERVED)

    def blocks_or_ignores(self, number: int) -> bool:
        """As Held.blocks_or_ignores."""
        return bool(self.get_sigmask() >> (number - 1) & 1) or self._handler(number) == SIG_IGN

    def untold(self) -> bool:
        """As Held.untold."""
        return self.family.untold(self.long("PROCESS"))

    def _handler(self, number: int) -> int:
        action = self.family.action(self.long("TABLE"), number)
        return SIG_DFL if action is None else int(_WORD.unpack_from(action)[0])

    def set_frame(self, error: int, mask: int, vector: int | None, cr2: int | None) -> None:
        """As Held.set_frame."""
        out = 0
        if mask:
            (before,) = _WORD.unpack_from(self._memory, self._frame_at() + _ERR_AT)
            self.set_long("OUT_ERR", before & ~mask | error & mask)
            out |= lay.OUT_ERR_SET
        if vector is not None:
            self.set_long("OUT_TRAPNO", vector)
            out |= lay.OUT_TRAPNO_SET
        if cr2 is not None:
            self.set_long("OUT_CR2", cr2)
            out |= lay.OUT_CR2_SET
        self._out = out

    def action(self, number: int) -> bytes | None:
        """As Held.action."""
        found = self.family.action(self.long("TABLE"), number)
        return None if found is None else bytes(found)

    def set_action(self, number: int, action: bytes) -> None:
        """As Held.set_action."""
        found = self.family.action(self.long("TABLE"), number)
        if found is not None:
            found[:] = action

    def stopped(self) -> bool:
        """As Held.stopped."""
        return bool(self.kind) or self.family.report(self.local) in (REQUEST, TAKEN)

    def native_slot(self, address: int) -> None:
        """As Held.native_slot."""
        self.set_long("NATIVE", address)

    def confine(self, passes: bytes) -> None:
        """As Held.confine."""
        at = lay.RECORD_AT["PASSES"]
        self._memory[at : at + len(passes)] = passes
        self.family.confine(self.long("TABLE"))

    def runs_inside(self, inside: bool) -> None:
        """As Held.runs_inside."""
        self._words[_INSIDE_WORD] = inside

    def masks(self, blocked: int, ignored: int, caught: int) -> tuple[int, int, int]:
        """Blocked, ignored and caught signals as the program believes, from those of the kernel."""
        virtual_ignored = virtual_caught = 0
        for number in _NUMBERS:
            handler = self._handler(number)
            if handler == SIG_IGN:
                virtual_ignored |= 1 << (number - 1)
            elif handler != SIG_DFL:
                virtual_caught |= 1 << (number - 1)
        if self.kind:
            blocked = self.get_sigmask()
        return (
            blocked & ~_RESERVED | self.long("VBLOCKED") & _RESERVED,
            ignored & ~_RESERVED | virtual_ignored,
            caught & ~_RESERVED | virtual_caught,
        )
