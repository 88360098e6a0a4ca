"""Enclave code on the reference engine, without a program: a bare processor, and this process.

The memory outside the enclave is that of the test itself.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from softsgx.cpu import Bare, LogicalProcessor, Part
from softsgx.cpu.fault import Fault
from softsgx.cpu.part import DEFAULT_PART
from softsgx.runner.emulator.blocks import Stop, Why
from softsgx.runner.emulator.emulator import Emulator
from softsgx.runner.inserted.doorbell import Doorbell
from softsgx.runner.inserted.mailboxes import Mailboxes
from softsgx.runner.process.arena import ArenaMemory
from softsgx.runner.process.hostmem import HostMemory
from softsgx.spec.bits import MASK64, PAGE_SIZE
from softsgx.spec.epcm import REG, R, X
from softsgx.spec.registers import REGISTER_NAMES
from softsgx.spec.tcs import TCS_DBGOPTIN, TCS_OFF_FLAGS

CODE_OFFSET: Final = 0x10_0000
EPC_PAGES: Final = 96


@cache
def assemble(text: str) -> bytes:
    """Intel syntax; labels and directives as GNU as has them, `;` between instructions."""
    with TemporaryDirectory() as directory:
        source, output = Path(directory, "code.s"), Path(directory, "code")
        source.write_text(f".intel_syntax noprefix\n{text}\n", encoding="utf-8")
        subprocess.run(["as", "--64", "-o", f"{output}.o", str(source)], check=True)
        copy = ["objcopy", "-O", "binary", "-j", ".text", f"{output}.o", str(output)]
        subprocess.run(copy, check=True)
        return output.read_bytes()


class HostPages:
    """Memory outside the enclave: anonymous pages of this process."""

    def __init__(self, pages: int, flags: int = mmap.MAP_PRIVATE) -> None:
        self.map = mmap.mmap(-1, pages * PAGE_SIZE, flags=flags | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))

    def word(self, offset: int = 0) -> int:
        """The eight bytes at an offset."""
        return int.from_bytes(self.map[offset : offset + 8], "little")

    def protect(self, rights: int, first: int = 0, pages: int = 1) -> None:
        """mprotect(2)."""
        libc = ctypes.CDLL(None, use_errno=True)
        at = ctypes.c_void_p(self.address + first * PAGE_SIZE)
        assert libc.mprotect(at, ctypes.c_size_t(pages * PAGE_SIZE), rights) == 0


class EngineRig:
    """An enclave with `text` as its code, entered by `lps` logical processors.

    Code starts at `code`; `data` is the first of two RW pages. Registers are those of `regs`.
    Unless the engine is `timed`, slices depend on the code alone.
    """

    def __init__(
        self,
        text: str | bytes,
        *,
        lps: int = 1,
        code_rights: int = R | X,
        code_pages: int = 1,
        dbgoptin: bool = False,
        timed: bool = False,
        part: Part = DEFAULT_PART,
    ) -> None:
        bare = self.bare = Bare(epc_pages=EPC_PAGES, lps=1 + lps, part=part)
        processor = self.processor = bare.processor
        memory = self.memory = ArenaMemory(processor.memory, processor.epc.first, EPC_PAGES)
        processor.memory = memory
        enclave = self.enclave = bare.enclave(
            pages=2, threads=lps, size=1 << 22, tcs={"OENTRY": CODE_OFFSET}, init=False
        )
        code = assemble(text) if isinstance(text, str) else text
        self.code = enclave.base + CODE_OFFSET
        for page in range(code_pages):
            piece = code[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
            enclave.add(self.code + page * PAGE_SIZE, piece, REG | code_rights)
        assert bare.einit(enclave.secs, bare.sigstruct(enclave.secs)) == 0
        self.data = enclave.data[0]
        self.mailboxes = Mailboxes()
        self.doorbell = Doorbell(self.mailboxes)
        self.host = HostMemory(os.getpid(), lambda address: False)
        self.engine = Emulator(memory, self.host, self.doorbell, processor.part)
        self.engine.timed = timed
        if dbgoptin:  # as a debugger does, with EDBGWR
            flags = processor.epc.physical(self.page(enclave.tcs[0])) + TCS_OFF_FLAGS
            memory.write(flags, TCS_DBGOPTIN.to_bytes(8, "little"))
        for number in range(lps):
            self.enter(number)

    def close(self) -> None:
        """Free the emulator."""
        self.engine.close()
        self.host.close()
        self.mailboxes.close()
        self.memory.close()

    def lp(self, number: int = 0) -> LogicalProcessor:
        """A logical processor of the enclave's; the very first one is the kernel's."""
        return self.processor.lps[1 + number]

    def enter(self, number: int = 0) -> None:
        """EENTER by a logical processor, on a TCS of its own."""
        self.enclave.enter(self.lp(number), number)

    def set(self, number: int = 0, **registers: int) -> None:
        """Change registers by their names in lower case."""
        for name, value in registers.items():
            self.lp(number).regs[REGISTER_NAMES.index(name.upper())] = value & MASK64

    def get(self, name: str, number: int = 0) -> int:
        """A register by its name in lower case."""
        return self.lp(number).regs[REGISTER_NAMES.index(name.upper())]

    def run(self, number: int = 0) -> Stop:
        """One slice."""
        return self.engine.run(self.lp(number))

    def finish(self, number: int = 0, slices: int = 1000) -> Stop:
        """Slices, until one ends for another reason than its budget."""
        for _ in range(slices):
            stop = self.run(number)
            if stop.why in (Why.ENCLU, Why.FAULT):
                return stop
            self.doorbell.look()
        raise AssertionError(f"still running at {self.get('rip', number):#x}")

    def fault(self, number: int = 0) -> Fault:
        """Run to an exception, and deliver it: an AEX. The exception."""
        stop = self.finish(number)
        assert stop.fault is not None, stop
        self.lp(number).deliver_fault(stop.fault)
        return stop.fault

    def expect_exit(self, number: int = 0) -> None:
        """Run to the next ENCLU, or fail with another stop."""
        stop = self.finish(number)
        assert stop.why is Why.ENCLU, f"{stop} at {self.get('rip', number) - self.code:#x}"

    def resume(self, number: int = 0) -> None:
        """ERESUME."""
        self.enclave.resume(self.lp(number), number)

    def reenter(self, number: int = 0) -> None:
        """EEXIT and EENTER."""
        self.enclave.exit(self.lp(number))
        self.enter(number)

    def page(self, address: int) -> int:
        """The EPC page at an address of the enclave."""
        return self.enclave.pages[address & ~(PAGE_SIZE - 1)]

    def peek(self, address: int, size: int = 8) -> int:
        """Enclave memory as it is, whatever protects it."""
        physical = self.processor.epc.physical(self.page(address)) | address & (PAGE_SIZE - 1)
        return int.from_bytes(self.memory.read(physical, size), "little")


@contextmanager
def rig(text: str | bytes, **options: int | Part) -> Iterator[EngineRig]:
    """An `EngineRig`, closed at the end."""
    made = EngineRig(text, **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()
