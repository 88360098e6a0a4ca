"""Registers of a logical processor in an emulator, and the one call that most of a slice is.

A slice refreshes the copies of host memory, loads the registers, executes, and reads the registers
back. Each is a call of C, and together they are one call of ctypes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from softsgx.runner.emulator.fpu import Fpu
from softsgx.runner.emulator.unicorn_api import UC_ERR_OK, Batch, Uc, function_address
from softsgx.runner.host.call_list import CallList, argument_word, function_word
from softsgx.spec.registers import RIP

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.runner.host.process_memory import PageReads

# RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8.., RFLAGS, RIP, FS base, GS base
_REGISTERS: Final = [35, 38, 40, 37, 44, 36, 43, 39, *range(106, 114), 253, 41, 250, 251]
# Native: with "<" the struct module would copy byte by byte.
_WORDS: Final = struct.Struct("20Q")

# The calls, in order.
_REFRESH, _LOAD_FP, _LOAD, _EXECUTE, _SAVE, _SAVE_FP = range(6)
_LOAD_FP_FUNCTION: Final = function_word(_LOAD_FP)
_RIP: Final = argument_word(_EXECUTE, 1)

STALE: Final = -1
"""The result of `execute` if the copies could not be refreshed; nothing was executed."""


class Registers:
    """The registers of one emulator. `fpu` are those of x87 and SSE."""

    def __init__(self, uc: Uc) -> None:
        self._uc = uc
        self._batch = Batch(uc, _REGISTERS, [8 * i for i in range(20)], _WORDS.size)
        self.fpu = Fpu(uc)
        self._reads: PageReads | None = None
        self._calls = calls = CallList(6)
        read, self._write = (
            function_address(f) for f in (uc.lib.uc_reg_read_batch, uc.lib.uc_reg_write_batch)
        )
        calls.set(_LOAD_FP, self._write, *self.fpu.batch.arguments)
        calls.set(_LOAD, self._write, *self._batch.arguments)
        calls.set(_EXECUTE, function_address(uc.lib.uc_emu_start), uc.handle)
        calls.set(_SAVE, read, *self._batch.arguments)
        calls.set(_SAVE_FP, read, *self.fpu.batch.arguments)

    def load(self, lp: LogicalProcessor) -> None:
        """Processor -> emulator."""
        _WORDS.pack_into(self._batch.buffer, 0, *lp.regs, lp.fsbase, lp.gsbase)
        self._batch.write()
        self.fpu.load(lp.x.legacy)

    def save(self, lp: LogicalProcessor) -> None:
        """Emulator -> processor."""
        self._batch.read()
        self.fpu.batch.read()
        self._take(lp)

    def execute(self, lp: LogicalProcessor, reads: PageReads | None) -> int:
        """Refresh by `reads`, load, and execute from RIP; UC_ERR_* or STALE.

        After UC_ERR_OK the registers have been saved. Raises what a hook raised.
        """
        calls = self._calls
        if reads is not self._reads:
            self._set_reads(reads)
        regs = lp.regs
        _WORDS.pack_into(self._batch.buffer, 0, *regs, lp.fsbase, lp.gsbase)
        words = calls.words
        words[_LOAD_FP_FUNCTION] = self._write if self.fpu.put(lp.x.legacy) else 0
        words[_RIP] = regs[RIP]
        stopped = self._uc.raising(calls.run)
        if stopped < 0:
            self._take(lp)
            return UC_ERR_OK
        if stopped == _REFRESH:
            self.fpu.image = None  # it was not loaded
            return STALE
        return calls.result(stopped)

    def _set_reads(self, reads: PageReads | None) -> None:
        self._reads = reads
        if reads is None:
            self._calls.words[function_word(_REFRESH)] = 0
        else:
            self._calls.set(_REFRESH, reads.function, *reads.arguments, expected=reads.size)

    def _take(self, lp: LogicalProcessor) -> None:
        """Buffers -> processor."""
        words = _WORDS.unpack(self._batch.buffer)
        lp.regs[:] = words[:-2]
        lp.fsbase, lp.gsbase = words[-2:]
        image = self.fpu.get()
        if image != lp.x.legacy:
            lp.x.legacy = image
