"""The program that a command's first word starts: found as by execvp(3), followed as by execve(2).

The kernel executes the file that was found; nothing here replaces it. What the kernel will do with
it is followed here only so that a program which cannot be supervised is refused in one line:
#! lines (Linux 6.12, fs/binfmt_script.c, load_script) and registered formats (fs/binfmt_misc.c).
execvp, and so env(1), runs a file whose format the kernel does not know by /bin/sh.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softsgx.image.elf_format import MAGIC
from softsgx.report.same_file import named_in
from softsgx.runner.code.elf_check import check_elf
from softsgx.runner.errors import ProgramError

SHELL: Final = "/bin/sh"  # glibc, paths.h, _PATH_BSHELL
_ELF: Final = ""
_DEFAULT_PATH: Final = "/bin:/usr/bin"  # confstr(_CS_PATH), where PATH is not set
_HEAD_BYTES: Final = 256  # BINPRM_BUF_SIZE
_INTERPRETERS_MAX: Final = 5  # deeper is ELOOP. Linux 6.12, fs/exec.c, exec_binprm
_BINFMT_MISC: Final = Path("/proc/sys/fs/binfmt_misc")
# With these the next entry of PATH is tried. glibc 2.36, posix/execvpe.c
_SEARCH_ON: Final = (
    *(errno.EACCES, errno.ENOENT, errno.ENOTDIR),
    *(errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT),
)


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """The ELF program that a command starts.

    `file` is what is handed to execve; `scripts` the files that need an interpreter, outermost
    first, so `file` is the first of them if there is one; `path` the ELF program at the end, and
    `interpreter` its PT_INTERP, empty for a static program.
    """

    file: str
    scripts: tuple[str, ...]
    path: str
    interpreter: str
    pie: bool

    @property
    def static(self) -> bool:
        """Whether it needs no ld.so."""
        return not self.interpreter

    def __str__(self) -> str:
        linked = "static" if self.static else "dynamic"
        return f"{self.path}: {linked} {'' if self.pie else 'non-'}PIE x86-64 program"

    def files(self, argv: Sequence[str]) -> list[str]:
        """The files that a run is known to use: those that are executed, and those that the
        arguments name."""
        executed = (self.file, *self.scripts, self.path, self.interpreter)
        return [*filter(None, executed), *named_in(argv[1:])]


def check_program(
    name: str, environ: Mapping[str, str] = os.environ, binfmt_misc: Path = _BINFMT_MISC
) -> ProgramFacts:
    """The program that a command's first word names. Raises ProgramError."""
    if not name or "\0" in name:
        raise ProgramError(repr(name), "not the name of a program", errno.ENOENT)
    formats = list(_formats(binfmt_misc))
    if "/" in name:
        return _followed(name, formats)
    refused = None
    for where in environ.get("PATH", _DEFAULT_PATH).split(":"):
        path = os.path.join(where, name)
        try:
            return _followed(path, formats)
        except ProgramError as error:
            if error.errno not in _SEARCH_ON:
                raise
            if os.path.lexists(path):
                refused = refused or error
    raise refused or ProgramError(name, "no such program in PATH", errno.ENOENT)


def _followed(file: str, formats: list[Format]) -> ProgramFacts:
    """Follow interpreters from a file to the ELF program that the kernel finally loads."""
    path = file
    scripts: list[str] = []
    while True:
        try:
            following = _interpreter(path, _executable_head(path), formats)
            if following is _ELF:
                interpreter, pie = check_elf(path)
                return ProgramFacts(file, tuple(scripts), path, interpreter, pie)
        except ProgramError as error:
            if not scripts:
                raise
            # execve fails for the script, not for the interpreter.
            crlf = " (lines end in CR LF)" if path.endswith("\r") else ""
            shown = repr(path) if crlf else path
            why = f"its interpreter {shown}: {error.why}{crlf}"
            raise ProgramError(scripts[-1], why, error.errno) from None
        if following is None:
            # At any depth: execve fails with ENOEXEC, and execvp runs the shell.
            following, scripts = SHELL, [file]
        else:
            scripts.append(path)
        if len(scripts) > _INTERPRETERS_MAX:
            many = f"more than {_INTERPRETERS_MAX} scripts interpret each other"
            raise ProgramError(file, many, errno.ELOOP)
        if isinstance(following, Format):
            path = following.interpreter
            if following.opened and not os.path.exists(path):
                # The kernel has it open since it was registered, perhaps in another namespace.
                return ProgramFacts(file, tuple(scripts), path, "", False)
        else:
            path = following


def _executable_head(path: str) -> bytes:
    """The first bytes of a file that can be executed."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ProgramError(path, _said(error), error.errno or 0) from None
    if stat.S_ISDIR(status.st_mode):
        raise ProgramError(path, "is a directory", errno.EACCES)
    if not stat.S_ISREG(status.st_mode):
        raise ProgramError(path, "is not a regular file", errno.EACCES)
    # The superuser needs any of the x bits, others their own.
    if not os.access(path, os.X_OK, effective_ids=True):
        noexec = status.st_mode & 0o111 and os.statvfs(path).f_flag & os.ST_NOEXEC
        why = "is on a file system mounted noexec" if noexec else "is not executable: chmod +x"
        raise ProgramError(path, why, errno.EACCES)
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise ProgramError(
            path, f"cannot be read, which the supervisor must: {_said(error)}"
        ) from None


def _interpreter(path: str, head: bytes, formats: list[Format]) -> str | Format | None:
    """What the kernel runs instead of a file: _ELF if it runs the file itself, None if it does not
    know the format.

    Registered formats come first, as binfmt_misc does in the kernel's list.
    """
    for registered in formats:
        if registered.fits(path, head):
            return registered
    return _ELF if head.startswith(MAGIC) else _script_interpreter(path, head)


def _script_interpreter(path: str, head: bytes) -> str | None:
    """The interpreter of a #! line; None where the kernel answers ENOEXEC."""
    if not head.startswith(b"#!"):
        return None
    line, newline, _ = head.ljust(_HEAD_BYTES, b"\0")[2:].partition(b"\n")
    line = line.lstrip(b" \t")
    ends = [at for at in (line.find(end) for end in (b" ", b"\t", b"\0")) if at >= 0]
    if not line or not (ends or newline):
        return None  # no name, or one that may be longer than the buffer
    name = line[: min(ends, default=len(line))]
    if not name:
        # The kernel looks up an empty path, which is the working directory.
        raise ProgramError(path, "its #! line names no interpreter", errno.EACCES)
    return os.fsdecode(name)


@dataclass(frozen=True, slots=True)
class Format:
    """An entry of binfmt_misc. Linux 6.12, Documentation/admin-guide/binfmt-misc.rst."""

    interpreter: str
    opened: bool  # flag F
    extension: str
    offset: int
    magic: bytes
    mask: bytes

    def fits(self, path: str, head: bytes) -> bool:
        """Whether a file has this format."""
        if self.extension:
            return os.path.basename(path).rpartition(".")[1:] == (".", self.extension)
        if not self.magic:
            return False
        found = head.ljust(_HEAD_BYTES, b"\0")[self.offset : self.offset + len(self.magic)]
        mask = self.mask or b"\xff" * len(self.magic)
        return len(found) == len(self.magic) and all(
            not (a ^ b) & m for a, b, m in zip(found, self.magic, mask, strict=True)
        )


def _formats(directory: Path) -> Iterator[Format]:
    """The registered and enabled formats that this process can see."""
    if _text(directory / "status").strip() != "enabled":
        return
    names = sorted({entry.name for entry in directory.iterdir()} - {"register", "status"})
    for name in names:
        enabled, *lines = _text(directory / name).splitlines() or [""]
        words = dict(line.partition(" ")[::2] for line in lines)
        if enabled != "enabled" or "interpreter" not in words:
            continue
        yield Format(
            words["interpreter"],
            "F" in words.get("flags:", ""),
            words.get("extension", "").removeprefix("."),
            int(words.get("offset", "0")),
            bytes.fromhex(words.get("magic", "")),
            bytes.fromhex(words.get("mask", "")),
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
