"""What generic code answers for the SGX nodes: character devices without read, write, llseek, poll,
fsync, fallocate and splice. Linux 6.12, fs/open.c, read_write.c, splice.c, sync.c, fcntl.c.

None stands for an answer that does not depend on the kind of file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from softsgx.linux.errno import (
    EBADF,
    EEXIST,
    EINVAL,
    EISDIR,
    ENODATA,
    ENODEV,
    ENOTDIR,
    EOPNOTSUPP,
    EPERM,
    ESPIPE,
)
from softsgx.linux.vfs import (
    O_ACCMODE,
    O_APPEND,
    O_CREAT,
    O_DIRECT,
    O_DIRECTORY,
    O_EXCL,
    O_LARGEFILE,
    O_NOATIME,
    O_NOCTTY,
    O_NOFOLLOW,
    O_NONBLOCK,
    O_PATH,
    O_SYNC_ALONE,
    O_TMPFILE_ALONE,
    O_TRUNC,
    File,
)

O_CLOEXEC: Final = 0o2000000
O_DSYNC: Final = 0o10000
_FASYNC: Final = 0o20000
_VALID: Final = (
    O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_SYNC_ALONE
    | O_DSYNC | _FASYNC | O_DIRECT | O_LARGEFILE | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC
    | O_PATH | O_TMPFILE_ALONE
)  # fmt: skip
_WITH_PATH: Final = O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC
_NOT_KEPT: Final = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC
_SETFL_MASK: Final = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME
_SIGNED: Final = 1 << 63
_S_IALLUGO: Final = 0o7777


def open_flags(flags: int, mode: int = 0, *, openat2: bool = False) -> int:
    """f_flags after an open with `flags`, or an errno. do_sys_open, build_open_flags, do_open."""
    if not openat2:
        flags = (flags & _VALID) | (0 if flags & O_PATH else O_LARGEFILE)
        if flags & O_PATH:
            flags &= _WITH_PATH
    if flags & ~_VALID or (flags & O_PATH and flags & ~_WITH_PATH):
        return -EINVAL
    creates = flags & (O_CREAT | O_TMPFILE_ALONE)
    if openat2 and mode & ~(_S_IALLUGO if creates else 0):
        return -EINVAL
    if flags & O_DIRECTORY and flags & O_CREAT:
        return -EINVAL
    if flags & O_TMPFILE_ALONE and not (flags & O_DIRECTORY and flags & O_ACCMODE):
        return -EINVAL
    if flags & O_CREAT and flags & O_EXCL:
        return -EEXIST
    if flags & O_DIRECTORY:
        return -ENOTDIR
    if flags & O_DIRECT and not flags & O_PATH:
        return -EINVAL  # no direct_IO
    if flags & O_SYNC_ALONE:
        flags |= O_DSYNC
    return flags & ~_NOT_KEPT


# The answer to each call. It gets the file, the six arguments, and, if the call has a second
# descriptor, f_flags of that file (None: no such descriptor).

Answer = Callable[[File, Sequence[int], int | None], int | None]


def _read(file: File, _args: Sequence[int], _other: int | None) -> int:
    return -EINVAL if file.readable else -EBADF


def _write(file: File, _args: Sequence[int], _other: int | None) -> int:
    return -EINVAL if file.writable else -EBADF


def _at(position: int, answer: Answer) -> Answer:
    """-EINVAL if argument number `position`, a file position, is negative; else `answer`."""

    def positioned(file: File, args: Sequence[int], other: int | None) -> int | None:
        return -EINVAL if args[position] & _SIGNED else answer(file, args, other)

    return positioned


def _at_or_current(answer: Answer) -> Answer:
    """preadv2, pwritev2: position -1 is the current one."""

    def positioned(file: File, args: Sequence[int], other: int | None) -> int | None:
        negative = args[3] & _SIGNED and args[3] + 1 != 1 << 64
        return -EINVAL if negative else answer(file, args, other)

    return positioned


def _lseek(_file: File, args: Sequence[int], _other: int | None) -> int:
    return -EINVAL if args[2] & 0xFFFFFFFF > 4 else -ESPIPE


def _invalid(_file: File, _args: Sequence[int], _other: int | None) -> int:
    return -EINVAL


def _ftruncate(_file: File, _args: Sequence[int], _other: int | None) -> int:
    return -EINVAL


def _fallocate(file: File, args: Sequence[int], _other: int | None) -> int:
    mode, offset, length = args[1] & 0xFFFFFFFF, args[2], args[3]
    if offset & _SIGNED or length & _SIGNED or not length:
        return -EINVAL
    keep_size, kind = mode & 1, mode & ~1
    known = {0: (0, 1), 0x02: (1,), 0x08: (0,), 0x10: (0, 1), 0x20: (0,), 0x40: (0, 1)}
    if keep_size not in known.get(kind, ()):
        return -EOPNOTSUPP
    return -ENODEV if file.writable else -EBADF


def _sync_file_range(_file: File, args: Sequence[int], _other: int | None) -> int:
    offset, length, flags = args[1], args[2], args[3] & 0xFFFFFFFF
    end = (offset + length) & (2 * _SIGNED - 1)
    wrong = flags & ~7 or offset & _SIGNED or end & _SIGNED or end < offset
    return -EINVAL if wrong else -ESPIPE


def _readahead(file: File, _args: Sequence[int], _other: int | None) -> int:
    return -EINVAL if file.readable else -EBADF


def _transfers(flags: int | None, *, write: bool) -> bool:
    """Whether the other file of a call is open for that direction."""
    return flags is not None and bool((flags + 1) & (2 if write else 1))


def _to_other(file: File, _args: Sequence[int], other: int | None) -> int:
    """sendfile and splice with the node as the source of data."""
    return -EINVAL if file.readable and _transfers(other, write=True) else -EBADF


def _from_other(file: File, _args: Sequence[int], other: int | None) -> int:
    """sendfile and splice with the node as the destination."""
    return -EINVAL if file.writable and _transfers(other, write=False) else -EBADF


def _sendfile_to(file: File, args: Sequence[int], other: int | None) -> int:
    answer = _from_other(file, args, other)
    return 0 if answer == -EINVAL and not args[3] else answer


def _unless_empty(length: int, answer: Answer) -> Answer:
    """0, the files untested, if argument number `length` is 0; else `answer`."""

    def moved(file: File, args: Sequence[int], other: int | None) -> int | None:
        return answer(file, args, other) if args[length] else 0

    return moved


def _copy_file_range(_file: File, _args: Sequence[int], other: int | None) -> int:
    if other is None:
        return -EBADF
    return -EISDIR if other & O_DIRECTORY else -EINVAL


def _fcntl(file: File, args: Sequence[int], _other: int | None) -> int | None:
    command, argument = args[1] & 0xFFFFFFFF, args[2]
    if command == _F_GETFL:
        return file.flags
    if command == _F_SETFL:
        if argument & O_DIRECT:
            return -EINVAL
        file.flags = argument & _SETFL_MASK | file.flags & ~_SETFL_MASK
        return 0
    if command == _F_ADD_SEALS and not file.writable:
        return -EPERM
    return _FCNTL.get(command)


_F_GETFL, _F_SETFL, _F_ADD_SEALS = 3, 4, 1033
_FCNTL: Final = {
    1024: -EINVAL,  # F_SETLEASE
    1026: -ENOTDIR,  # F_NOTIFY
    _F_ADD_SEALS: -EINVAL,
    1034: -EINVAL,  # F_GET_SEALS
}
# ioctls that generic code answers whatever the kind of file (Linux 6.12, fs/ioctl.c, do_vfs_ioctl):
# FIOCLEX, FIONCLEX, FIOASYNC, FIGETBSZ, FIFREEZE, FITHAW, FS_IOC_FIEMAP, FICLONE, FICLONERANGE,
# FIDEDUPERANGE, FS_IOC_GETFSUUID, FS_IOC_GETFSSYSFSPATH. The driver gets the others, those of
# regular files included; FIONBIO changes f_flags.
GENERIC_IOCTLS: Final = frozenset(
    (
        *(0x5451, 0x5450, 0x5452, 2, 0xC0045877, 0xC0045878, 0xC020660B),
        *(0x40049409, 0x4020940D, 0xC0189436, 0x80111500, 0x80811501),
    )
)
FIONBIO: Final = 0x5421

ANSWERS: Final[dict[str, Answer]] = {
    "read": _read,
    "readv": _read,
    "pread64": _at(3, _read),
    "preadv": _at(3, _read),
    "preadv2": _at_or_current(_read),
    "write": _write,
    "writev": _write,
    "pwrite64": _at(3, _write),
    "pwritev": _at(3, _write),
    "pwritev2": _at_or_current(_write),
    "lseek": _lseek,
    "ftruncate": _ftruncate,
    "fallocate": _fallocate,
    "fsync": _invalid,
    "fdatasync": _invalid,
    "sync_file_range": _sync_file_range,
    "readahead": _readahead,
    "sendfile from": _to_other,
    "sendfile to": _sendfile_to,
    "splice from": _unless_empty(4, _to_other),
    "splice to": _unless_empty(4, _from_other),
    "copy_file_range": _copy_file_range,
    "fcntl": _fcntl,
}


def xattr(name: bytes, *, write: bool) -> int | None:
    """fgetxattr, fsetxattr, fremovexattr: user.* is for regular files and directories."""
    if not name.startswith(b"user."):
        return None
    return -EPERM if write else -ENODATA
