"""Open files: a description, its references, and the operations of the SGX nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from softsgx.linux.errno import ENOTTY
from softsgx.linux.trace import refused_call

if TYPE_CHECKING:
    from softsgx.linux.mm import Vma
    from softsgx.linux.process import Thread
    from softsgx.sim import Steps

O_RDONLY = 0
O_WRONLY = 1
O_RDWR = 2
O_ACCMODE = 3
O_CREAT = 0o100
O_EXCL = 0o200
O_NOCTTY = 0o400
O_TRUNC = 0o1000
O_APPEND = 0o2000
O_NONBLOCK = 0o4000
O_DIRECT = 0o40000
O_LARGEFILE = 0o100000
O_DIRECTORY = 0o200000
O_NOFOLLOW = 0o400000
O_NOATIME = 0o1000000
O_PATH = 0o10000000
O_SYNC_ALONE = 0o4000000  # __O_SYNC
O_TMPFILE_ALONE = 0o20000000  # __O_TMPFILE

_INODES = {"/dev/sgx_enclave": 126, "/dev/sgx_provision": 125}


class FileOperations(Protocol):
    """struct file_operations, as far as the SGX nodes implement it."""

    def release(self, current: Thread, file: File) -> Steps[None]:
        """The last reference to the description is gone."""

    def ioctl(self, current: Thread, file: File, cmd: int, arg: int) -> Steps[int]:
        """unlocked_ioctl."""

    @property
    def get_unmapped_area(self) -> Callable[[Thread, int, int, int], int] | None:
        """Choose the address of a mapping: (current, address, length, flags). None: the default."""

    @property
    def mmap(self) -> Callable[[Thread, File, Vma], Steps[int]] | None:
        """Check and prepare an area; mmap_lock held for writing. None: it cannot be mapped."""


class File:
    """struct file: one open description of a device node. `encl` is set for /dev/sgx_enclave.

    `flags` is f_flags: the access mode and the other flags that F_GETFL returns.
    """

    __slots__ = ("count", "encl", "f_op", "flags", "path")

    def __init__(self, path: str, f_op: FileOperations, flags: int) -> None:
        self.path = path
        self.f_op = f_op
        self.flags = flags
        self.count = 1
        self.encl: object = None

    @property
    def inode(self) -> int:
        """The inode of the node in devtmpfs: fixed here, another at every real boot."""
        return _INODES[self.path]

    @property
    def readable(self) -> bool:
        """FMODE_READ. Access mode 3 gives neither right."""
        return bool((self.flags + 1) & 1)

    @property
    def writable(self) -> bool:
        """FMODE_WRITE."""
        return bool((self.flags + 1) & 2)

    def get(self) -> None:
        """Take a reference."""
        self.count += 1

    def put(self, current: Thread) -> Steps[None]:
        """Drop a reference; the last one releases."""
        self.count -= 1
        assert self.count >= 0, f"{self.path}: reference count below zero"
        if not self.count:
            yield from self.f_op.release(current, self)


class ProvisionNode:
    """/dev/sgx_provision: an access token, which can only be opened."""

    def release(self, current: Thread, file: File) -> Steps[None]:
        """Nothing to do."""
        return
        yield

    def ioctl(self, current: Thread, file: File, cmd: int, arg: int) -> Steps[int]:
        """No ioctl exists."""
        return refused_call(current, "ioctl", ENOTTY, "sgx_provision_fops.request", request=cmd)
        yield

    # It cannot be mapped.
    get_unmapped_area = None
    mmap = None
