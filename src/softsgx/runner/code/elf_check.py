"""What kind of ELF program a file is, and why it cannot be run if it cannot.

Refusals are a `ProgramError`, one line.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from softsgx.runner.code.elf_code import (
    EHDR,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    PHDR,
    PT_INTERP,
    PT_LOAD,
)
from softsgx.runner.errors import ProgramError

_HEADERS_MAX_BYTES: Final = 1 << 16  # Linux 6.12, fs/binfmt_elf.c, load_elf_phdrs: one page or 64 K
_PATH_MAX: Final = 4096
_MACHINES: Final = {3: "i386", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 40: "ARM"} | {
    22: "s390",
    183: "AArch64",
    243: "RISC-V",
    258: "LoongArch",
}


def check_elf(path: str) -> tuple[str, bool]:
    """PT_INTERP, empty for a static program, and whether it is position independent.

    Raises ProgramError for a file that is no program of this machine, or gives privileges.
    """
    _refuse_privileges(path)
    with open(path, "rb") as file:
        head = file.read(EHDR.size)
        _check_ident(path, head)
        _, e_type, _, _, _, phoff, _, _, _, phentsize, phnum, *_ = EHDR.unpack(head)
        if e_type not in (ET_EXEC, ET_DYN):
            raise ProgramError(path, f"ELF file of type {e_type}, no program")
        size = phnum * PHDR.size
        length = os.fstat(file.fileno()).st_size
        if phentsize != PHDR.size or not 0 < size <= _HEADERS_MAX_BYTES:
            raise ProgramError(path, "damaged ELF file: no usable program headers")
        if phoff + size > length:
            raise ProgramError(path, "damaged ELF file: program headers behind its end")
        file.seek(phoff)
        table = file.read(size)
        headers = list(PHDR.iter_unpack(table))
        if not any(header[0] == PT_LOAD for header in headers):
            raise ProgramError(path, "damaged ELF file: nothing to load")
        for kind, _, offset, _, _, filesz, _, _ in headers:
            if kind == PT_INTERP:
                if not 2 <= filesz <= _PATH_MAX or offset + filesz > length:
                    raise ProgramError(path, "damaged ELF file: PT_INTERP is no path")
                file.seek(offset)
                return _interpreter(path, file.read(filesz)), e_type == ET_DYN
    return "", e_type == ET_DYN


def _refuse_privileges(path: str) -> None:
    """The kernel asks the last file of a chain alone: a #! file gives nobody privileges."""
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
    if len(head) < EHDR.size:
        yield "damaged ELF file: shorter than its header"
    if machine != EM_X86_64 or head[5] != 1:
        yield f"program for {_MACHINES.get(machine, f'machine {machine}')}; {remedy}"
    if head[4] != 2:
        yield f"damaged ELF file: EI_CLASS {head[4]}"


def _interpreter(path: str, raw: bytes) -> str:
    """The path in PT_INTERP, which must exist: else exec says only that the program does not."""
    name = os.fsdecode(raw.partition(b"\0")[0])
    if not name or not os.path.isfile(name):
        why = f"its loader {name or '(empty)'} does not exist here"
        raise ProgramError(path, why, errno.ENOENT)
    return name
