"""What kind of ELF program a file is, or why it cannot be run.

Refusals are a `ProgramError`, one line.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from softsgx.image.elf_format import (
    ELFCLASS64,
    ELFDATA2LSB,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    PT_INTERP,
    PT_LOAD,
    Ehdr,
    Phdr,
)
from softsgx.runner.errors import ProgramError
from softsgx.runner.host.abi import PATH_MAX

_HEADERS_MAX_BYTES: Final = 1 << 16  # Linux 6.12, fs/binfmt_elf.c, load_elf_phdrs: one page or 64 K
_MACHINES: Final = {3: "i386", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 40: "ARM"} | {
    22: "s390",
    183: "AArch64",
    243: "RISC-V",
    258: "LoongArch",
}


def check_elf(path: str) -> tuple[str, bool]:
    """PT_INTERP, empty for a static program, and whether the program is position independent.

    Raises ProgramError for a file that is not a program for this machine, or gives privileges.
    """
    _refuse_privileges(path)
    with open(path, "rb") as file:
        head = file.read(Ehdr.SIZE)
        _check_ident(path, head)
        ehdr = Ehdr.unpack(head)
        if ehdr.e_type not in (ET_EXEC, ET_DYN):
            raise ProgramError(path, f"ELF file of type {ehdr.e_type}, no program")
        size = ehdr.e_phnum * Phdr.SIZE
        length = os.fstat(file.fileno()).st_size
        if ehdr.e_phentsize != Phdr.SIZE or not 0 < size <= _HEADERS_MAX_BYTES:
            raise ProgramError(path, "damaged ELF file: no usable program headers")
        if ehdr.e_phoff + size > length:
            raise ProgramError(path, "damaged ELF file: program headers past its end")
        file.seek(ehdr.e_phoff)
        table = file.read(size)
        headers = [Phdr.unpack(table[at : at + Phdr.SIZE]) for at in range(0, size, Phdr.SIZE)]
        if not any(header.p_type == PT_LOAD for header in headers):
            raise ProgramError(path, "damaged ELF file: nothing to load")
        for phdr in headers:
            if phdr.p_type == PT_INTERP:
                if not 2 <= phdr.p_filesz <= PATH_MAX or phdr.p_offset + phdr.p_filesz > length:
                    raise ProgramError(path, "damaged ELF file: PT_INTERP is no path")
                file.seek(phdr.p_offset)
                return _interpreter(path, file.read(phdr.p_filesz)), ehdr.e_type == ET_DYN
    return "", ehdr.e_type == ET_DYN


def _refuse_privileges(path: str) -> None:
    """ProgramError if the file gives privileges. A #! script gives none, only its interpreter."""
    status = os.stat(path)
    setgid = stat.S_ISGID | stat.S_IXGRP
    for bits, kind in ((stat.S_ISUID, "setuid"), (setgid, "setgid")):
        if status.st_mode & bits == bits:
            why = "supervised programs cannot gain privileges; run a copy without that bit"
            raise ProgramError(path, f"{kind} program: {why}")
    try:
        if "security.capability" in os.listxattr(path):
            raise ProgramError(
                path, "has file capabilities, which a supervised program cannot gain"
            )
    except OSError:
        pass  # a file system without extended attributes


def _check_ident(path: str, head: bytes) -> None:
    for why in _ident_faults(head):
        raise ProgramError(path, why)


def _ident_faults(head: bytes) -> Iterator[str]:
    """What is wrong with the first fields of an ELF header."""
    machine = int.from_bytes(head[18:20], "little" if head[5:6] != b"\x02" else "big")
    remedy = "only x86-64 programs can be supervised"
    if head[4:5] == b"\x01":
        yield f"32-bit program{' (x32)' if machine == EM_X86_64 else ''}; {remedy}"
    if len(head) < Ehdr.SIZE:
        yield "damaged ELF file: shorter than its header"
    if machine != EM_X86_64 or head[5] != ELFDATA2LSB:
        yield f"program for {_MACHINES.get(machine, f'machine {machine}')}; {remedy}"
    if head[4] != ELFCLASS64:
        yield f"damaged ELF file: EI_CLASS {head[4]}"


def _interpreter(path: str, raw: bytes) -> str:
    """The path in PT_INTERP. ProgramError if it does not exist: exec would blame the program."""
    name = os.fsdecode(raw.partition(b"\0")[0])
    if not name or not os.path.isfile(name):
        why = f"its loader {name or '(empty)'} does not exist here"
        raise ProgramError(path, why, errno.ENOENT)
    return name
