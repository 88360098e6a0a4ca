"""What kind of program a command names, and why it cannot be run if it cannot.

Found as execvp finds it, with #! lines followed as the kernel follows them: the interpreter is
what runs, with nothing unusual about it. Refusals are a `RunnerError`, one line.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from softsgx.runner.elf_code import (
    EHDR,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    MAGIC,
    PHDR,
    PT_INTERP,
    PT_LOAD,
)
from softsgx.runner.errors import RunnerError

_DEFAULT_PATH: Final = "/bin:/usr/bin"  # confstr(_CS_PATH), where PATH is not set
_SCRIPT_HEAD_BYTES: Final = 256  # BINPRM_BUF_SIZE
_SCRIPTS_MAX: Final = 5  # deeper is ELOOP. Linux 6.12, fs/exec.c, exec_binprm
_HEADERS_MAX_BYTES: Final = 1 << 16  # Linux 6.12, fs/binfmt_elf.c, load_elf_phdrs: one page or 64 K
_PATH_MAX: Final = 4096
_MACHINES: Final = {3: "i386", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 40: "ARM"} | {
    22: "s390",
    183: "AArch64",
    243: "RISC-V",
    258: "LoongArch",
}


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """The ELF program that a command starts.

    `path` is the file that is executed, `scripts` the #! files that led to it, outermost first;
    `interpreter` is its PT_INTERP, empty for a static program.
    """

    path: str
    scripts: tuple[str, ...]
    interpreter: str
    pie: bool

    @property
    def static(self) -> bool:
        """Whether no ld.so takes part."""
        return not self.interpreter

    def __str__(self) -> str:
        linked = "static" if self.static else "dynamic"
        return f"{self.path}: {linked} {'' if self.pie else 'non-'}PIE x86-64 program"


def check_program(name: str, environ: Mapping[str, str] = os.environ) -> ProgramFacts:
    """The program that a command's first word names. Raises RunnerError."""
    path = find_program(name, environ)
    scripts: list[str] = []
    while True:
        head = _executable_head(path)
        if not head.startswith(b"#!"):
            break
        scripts.append(path)
        if len(scripts) > _SCRIPTS_MAX:
            raise RunnerError(name, f"more than {_SCRIPTS_MAX} scripts interpret each other")
        path = _script_interpreter(path, head)
    interpreter, pie = _check_elf(path)
    return ProgramFacts(path, tuple(scripts), interpreter, pie)


def find_program(name: str, environ: Mapping[str, str]) -> str:
    """The file that execvp would execute. Raises RunnerError."""
    if not name or "\0" in name:
        raise RunnerError(repr(name), "no name of a program")
    if "/" in name:
        return name
    refused = None
    for where in environ.get("PATH", _DEFAULT_PATH).split(":"):
        path = os.path.join(where or ".", name)
        try:
            _refuse_file(path)
        except RunnerError as error:
            if os.path.lexists(path):
                refused = refused or error
            continue
        return path
    raise refused or RunnerError(name, "no such program in PATH")


def _refuse_file(path: str) -> os.stat_result:
    """The status of a file that can be executed."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise RunnerError(path, _said(error)) from None
    if stat.S_ISDIR(status.st_mode):
        raise RunnerError(path, "is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise RunnerError(path, "is no regular file")
    # The superuser needs one x bit of any kind, as others need theirs.
    if not os.access(path, os.X_OK, effective_ids=True):
        raise RunnerError(path, "is not executable: chmod +x")
    return status


def _executable_head(path: str) -> bytes:
    """The first bytes of a file that gives nobody privileges."""
    status = _refuse_file(path)
    setgid = stat.S_ISGID | stat.S_IXGRP
    for bits, kind in ((stat.S_ISUID, "setuid"), (setgid, "setgid")):
        if status.st_mode & bits == bits:
            why = "supervised programs cannot gain privileges; run a copy without that bit"
            raise RunnerError(path, f"{kind} program: {why}")
    try:
        if "security.capability" in os.listxattr(path):
            raise RunnerError(path, "has file capabilities, which a supervised program cannot gain")
    except OSError:
        pass  # a file system without extended attributes
    try:
        with open(path, "rb") as file:
            return file.read(_SCRIPT_HEAD_BYTES)
    except OSError as error:
        raise RunnerError(
            path, f"cannot be read, which the supervisor must: {_said(error)}"
        ) from None


def _script_interpreter(path: str, head: bytes) -> str:
    """The interpreter of a #! line. Linux 6.12, fs/binfmt_script.c."""
    line, newline, _ = head[2:].partition(b"\n")
    words = line.replace(b"\t", b" ").split(b" ")
    named = next((word for word in words if word), b"")
    if not named or b"\0" in named:
        raise RunnerError(path, "its #! line names no interpreter")
    cut = not newline and len(head) == _SCRIPT_HEAD_BYTES and words[-1] == named
    if cut:
        raise RunnerError(path, "the interpreter in its #! line is cut short by the kernel")
    interpreter = os.fsdecode(named)
    if not os.path.exists(interpreter):
        raise RunnerError(path, f"its interpreter {interpreter} does not exist")
    return interpreter


def _check_elf(path: str) -> tuple[str, bool]:
    """PT_INTERP, and whether it is position independent."""
    with open(path, "rb") as file:
        head = file.read(EHDR.size)
        if head[:4] != MAGIC:
            raise RunnerError(path, "neither an ELF program nor a script with a #! line")
        _check_ident(path, head)
        _, e_type, _, _, _, phoff, _, _, _, phentsize, phnum, *_ = EHDR.unpack(head)
        if e_type not in (ET_EXEC, ET_DYN):
            raise RunnerError(path, f"ELF file of type {e_type}, no program")
        size = phnum * PHDR.size
        length = os.fstat(file.fileno()).st_size
        if phentsize != PHDR.size or not 0 < size <= _HEADERS_MAX_BYTES:
            raise RunnerError(path, "damaged ELF file: no usable program headers")
        if phoff + size > length:
            raise RunnerError(path, "damaged ELF file: program headers behind its end")
        file.seek(phoff)
        table = file.read(size)
        headers = list(PHDR.iter_unpack(table))
        if not any(header[0] == PT_LOAD for header in headers):
            raise RunnerError(path, "damaged ELF file: nothing to load")
        for kind, _, offset, _, _, filesz, _, _ in headers:
            if kind == PT_INTERP:
                if not 2 <= filesz <= _PATH_MAX or offset + filesz > length:
                    raise RunnerError(path, "damaged ELF file: PT_INTERP is no path")
                file.seek(offset)
                return _interpreter(path, file.read(filesz)), e_type == ET_DYN
    return "", e_type == ET_DYN


def _check_ident(path: str, head: bytes) -> None:
    for why in _ident_faults(head):
        raise RunnerError(path, why)


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
        raise RunnerError(path, f"its loader {name or '(empty)'} does not exist here")
    return name


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
