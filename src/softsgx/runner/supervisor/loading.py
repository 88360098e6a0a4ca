"""Prepares a process at exec, and each file of code that it maps.

The gate, the stub, the mailboxes and the vDSO image are mapped at fixed addresses, and the
auxiliary vector points to the image before ld.so reads it. CPUID and ENCLU instructions become
`int 0x80`, at which the filter stops the thread, in private copies of the pages.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final, Literal

from softsgx.linux.uapi import MAP_ANONYMOUS, MAP_PRIVATE
from softsgx.runner.code.sites import PATTERNS, Sites, patchable
from softsgx.runner.cpuid.cpuid import CpuidPolicy
from softsgx.runner.cpuid.faulting import CpuidTraps
from softsgx.runner.errors import LoadError
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import (
    ARCH_SET_CPUID,
    AT_NULL,
    AT_SYSINFO_EHDR,
    PROT_RW,
    PROT_RX,
    USER_CS,
)
from softsgx.runner.inserted.layout import (
    BOX,
    BOX_SIZE,
    GATE,
    GATE_CODE,
    GATE_INT80,
    GATE_INT80_CODE,
    STUB,
    STUB_SIZE,
    VDSO,
)
from softsgx.runner.inserted.stub import stub_image
from softsgx.runner.inserted.systrap_layout import SPACE_BOX_AT
from softsgx.runner.inserted.vdso import vdso_image
from softsgx.runner.process.scratch import TEXTS, TEXTS_IMAGE
from softsgx.runner.process.shared import map_shared
from softsgx.runner.process.tracee import Tracee
from softsgx.runner.ways import WAYS

if TYPE_CHECKING:
    from softsgx.runner.inserted.mailboxes import Mailboxes
    from softsgx.runner.native.load import NativeParts

_CODE: Final = {kind: code for code, kind in PATTERNS.items()}
_AUX: Final = struct.Struct("<QQ")
_PRIVATE: Final = MAP_PRIVATE | MAP_ANONYMOUS
_CODE_SIZE: Final = (STUB + STUB_SIZE - GATE + 4095) & ~4095


class Loader:
    """Prepares address spaces. `policy` is the processor that programs see; `traps` says when CPUID
    is an exception."""

    def __init__(self, policy: CpuidPolicy, traps: CpuidTraps = CpuidTraps.NEVER) -> None:
        self.policy = policy
        self.traps = traps
        self.mailboxes: Mailboxes | None = None
        self.native: NativeParts | None = None
        self.vdso = vdso_image(b"", 0, VDSO, STUB)
        if WAYS.traced:
            self._stub = stub_image(WAYS.enclu)
        else:
            from softsgx.runner.inserted.systrap_stub import JUMP_TO_SYSTRAP

            self._stub = JUMP_TO_SYSTRAP
        self.files: dict[str, Sites] = {}  # by path, of the files that were mapped

    def executed(self, t: Tracee) -> None:
        """Prepare a process, at the exit stop of its execve, before the program runs."""
        tid = t.tid
        regs = p.get_regs(tid)
        if regs[p.CS] != USER_CS:
            return  # a 32-bit program runs as it is, without SGX
        real, place = self._find_vdso(t, regs[p.RSP])
        size, image = _vdso_bytes(tid, real)
        at = image.find(b"\x0f\x05")
        if at < 0:
            raise LoadError(
                f"process {tid}: no system call instruction in the vDSO of {size} bytes"
            )
        first = real + at
        # Not MAP_FIXED_NOREPLACE: outside of the gate, the filter stops it. The kernel takes the
        # address if it is free.
        code = t.inject_at(first, nr.MMAP, GATE, _CODE_SIZE, PROT_RW, _PRIVATE, p.MASK64, 0)
        if code != GATE:
            raise LoadError(f"process {tid}: {GATE:#x} cannot be mapped: {code}")
        vdso = vdso_image(image, real, VDSO, STUB if self.native is None else self.native.arrive)
        assert vdso.enclu == self.vdso.enclu
        ok = p.write_memory(tid, GATE, GATE_CODE) and p.write_memory(
            tid, GATE_INT80, GATE_INT80_CODE
        )
        ok = ok and p.write_memory(tid, TEXTS, TEXTS_IMAGE)
        ok = ok and p.write_memory(tid, VDSO, vdso.image) and p.write_memory(tid, STUB, self._stub)
        if not ok:
            raise LoadError(f"process {tid}: its memory cannot be written")
        t.inject_at(first, nr.MPROTECT, GATE, _CODE_SIZE, PROT_RX)
        self._map_box(t)
        t.space.gate_ready = True
        if self.native is not None:
            self.native.map(t)
        if place:
            p.write_memory(tid, place, _AUX.pack(AT_SYSINFO_EHDR, VDSO))
        if self.traps is not CpuidTraps.NEVER:  # reset by every exec
            t.cpuid_faulting = t.inject(nr.ARCH_PRCTL, ARCH_SET_CPUID, 0) == 0
        for start, end, path_, offset in _code_mappings(tid):
            self.patch(t, path_, (start, end), offset)

    def _map_box(self, t: Tracee) -> None:
        """The mailboxes that all share, or without a tracer what the address space has for its
        own: scratch memory, and where native.s finds the AEP."""
        family = t.space.family
        if family is not None:
            map_shared(t, family.fd, BOX, BOX_SIZE, PROT_RW, SPACE_BOX_AT)
            return
        assert self.mailboxes is not None
        map_shared(t, self.mailboxes.fd, BOX, BOX_SIZE, PROT_RW)
        self.mailboxes.control.aep = self.vdso.enclu

    def _find_vdso(self, t: Tracee, rsp: int) -> tuple[int, int]:
        """Address of the real vDSO, and of its entry in the auxiliary vector."""
        at = rsp
        stage = 0
        while True:
            # An entry of the vector may lie across two pages.
            data = p.read_memory(t.tid, at, max(_AUX.size, 4096 - at % 4096))
            if data is None:
                raise LoadError(f"process {t.tid}: no auxiliary vector")
            words = struct.unpack(f"<{len(data) // 8}Q", data)
            if stage == 0:
                at_word = 1 + words[0] + 1  # argc, argv, NULL
                at = rsp + 8 * at_word
                stage = 1
                continue
            if stage == 1:
                if 0 not in words:
                    at += len(data)
                    continue
                at += 8 * (words.index(0) + 1)
                stage = 2
                continue
            for n in range(0, len(words) - 1, 2):
                if words[n] == AT_SYSINFO_EHDR:
                    return words[n + 1], at + 8 * n
                if words[n] == AT_NULL:
                    raise LoadError(f"process {t.tid}: this kernel gives it no vDSO")
            at += _AUX.size * (len(words) // 2)

    # CPUID and ENCLU

    def patch(self, t: Tracee, path: str, area: tuple[int, int], offset: int) -> None:
        """Replace the proven sites of the part of a file that is mapped in `area`."""
        start, end = area
        ours = patchable(path)
        t.space.mapped_code(start, end, library=path.startswith("/") and not ours)
        if not ours:
            return
        found = self.files[path] = self._sites_of(path)
        if not found.patch:
            return
        mem = os.open(f"/proc/{t.tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for site in found.patch:
                address = site.offset - offset + start
                if site.kind == "cpuid" and self.traps is CpuidTraps.ALWAYS:
                    continue
                if start <= address and os.pread(mem, 3, address).startswith(_CODE[site.kind]):
                    self._replace(t, site.kind, address)
        except OSError:
            return  # that part of the file is not mapped here
        finally:
            os.close(mem)

    def _replace(self, t: Tracee, kind: Literal["cpuid", "enclu"], address: int) -> None:
        try:
            p.write_code(t.tid, address, getattr(WAYS, kind).ljust(len(_CODE[kind]), b"\x90"))
        except p.GONE:
            raise
        except OSError as error:
            why = f"{kind.upper()} at {address:#x} cannot be replaced: {error}"
            raise LoadError(f"process {t.tid}: {why}") from None
        t.space.sites[address] = kind

    def _sites_of(self, path: str) -> Sites:
        from softsgx.runner.code.site_cache import find_sites

        return find_sites(path)


def _vdso_bytes(tid: int, base: int) -> tuple[int, bytes]:
    for start, end, _rights, _offset, path in maps(tid):
        if start == base:
            data = p.read_memory(tid, start, end - start)
            if data is not None:
                return end - start, data
            raise LoadError(f"process {tid}: {path} cannot be read")
    raise LoadError(f"process {tid}: no vDSO at {base:#x}")


def maps(pid: int) -> list[tuple[int, int, str, int, str]]:
    """/proc/pid/maps: start, end, rights, offset, path."""
    out = []
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.rstrip("\n").split(None, 5)
            start, end = (int(x, 16) for x in fields[0].split("-"))
            path = fields[5] if len(fields) > 5 else ""
            out.append((start, end, fields[1], int(fields[2], 16), path))
    return out


def _code_mappings(tid: int) -> list[tuple[int, int, str, int]]:
    return [
        (start, end, path, offset)
        for start, end, rights, offset, path in maps(tid)
        if "x" in rights and path.startswith("/")
    ]
