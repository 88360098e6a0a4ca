"""Calls on descriptors that are something else in the real kernel: a memfd stands for an open
node, and the real /proc/<pid>/mem has no enclave memory.

A filter stops the calls on such a descriptor (`watched`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from softsgx.linux import char_device
from softsgx.linux.errno import EBADF, EFAULT
from softsgx.linux.vfs import O_NONBLOCK, File
from softsgx.runner.calls.paths import MEM, read_path
from softsgx.runner.calls.watched import watch
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.process import call_filters
from softsgx.runner.process.scratch import NULL, text
from softsgx.runner.process.stops import (
    Handler,
    answer,
    refuse,
    resume,
    run_instead,
    run_to_exit,
    signed32,
)

if TYPE_CHECKING:
    from softsgx.runner.calls.buffers import Buffers
    from softsgx.runner.calls.process_mem import ProcessMem
    from softsgx.runner.process.tracee import Tracee

_ARGUMENTS: Final = (p.RDI, p.RSI, p.RDX, p.R10, p.R8, p.R9)
_F_DUPFD, _F_DUPFD_CLOEXEC = 0, 1030
_LOCKS: Final = frozenset((6, 7, 37, 38))  # F_SETLK, F_SETLKW and those of descriptions
_F_RDLCK, _F_WRLCK = 0, 1


class Descriptors:
    """Serves calls on descriptors that are watched."""

    def __init__(self, mem: ProcessMem, buffers: Buffers) -> None:
        self._mem = mem
        self._buffers = buffers

    def handlers(self) -> dict[int, Handler]:
        """By number of the system call. `Nodes` serves fstat."""
        return {
            **dict.fromkeys(call_filters.ON_DESCRIPTOR, self._call),
            nr.FCNTL: self._fcntl,
            nr.SENDFILE: self._sendfile,
            nr.SPLICE: self._splice,
            nr.COPY_FILE_RANGE: self._splice,
            nr.FSTATFS: self._fstatfs,
            **dict.fromkeys((nr.FGETXATTR, nr.FSETXATTR, nr.FREMOVEXATTR), self._xattr),
            **dict.fromkeys((nr.DUP, nr.DUP2, nr.DUP3, nr.PIDFD_GETFD), self._duplicated),
        }

    def ioctl(self, t: Tracee, regs: list[int], file: File) -> bool:
        """Serve an ioctl on a node if generic kernel code answers it; False if the driver does."""
        number = regs[p.RSI] & 0xFFFFFFFF
        if number in char_device.GENERIC_IOCTLS:
            resume(t)
            return True
        if number == char_device.FIONBIO:
            raw = p.read_memory(t.tid, regs[p.RDX], 4)
            if raw is not None:
                file.flags = file.flags & ~O_NONBLOCK | (O_NONBLOCK if any(raw) else 0)
            answer(t, regs, -EFAULT if raw is None else 0)
            return True
        return False

    def _node(self, t: Tracee, register: int) -> File | None:
        file = t.space.process.fget(register)
        return file if isinstance(file, File) else None

    def _call(self, t: Tracee, regs: list[int]) -> None:
        file = self._node(t, signed32(regs[p.RDI]))
        if file is None:
            if not self._mem.serve(t, regs) and not self._buffers.serve(t, regs):
                resume(t)
            return
        name = call_filters.ON_DESCRIPTOR[regs[p.ORIG_RAX]]
        found = char_device.ANSWERS[name](file, _arguments(regs), None)
        self._answered(t, regs, name, found)

    def _answered(self, t: Tracee, regs: list[int], name: str, found: int | None) -> None:
        if found is None:
            resume(t)
        elif found < 0:
            mode = "fget.mode" if found == -EBADF else "sgx_encl_fops.operation"
            refuse(t, regs, found, name, mode)
        else:
            answer(t, regs, found)

    def _fcntl(self, t: Tracee, regs: list[int]) -> None:
        command = regs[p.RSI] & 0xFFFFFFFF
        if command in (_F_DUPFD, _F_DUPFD_CLOEXEC):
            self._duplicated(t, regs)
            return
        file = self._node(t, signed32(regs[p.RDI]))
        if file is None:
            resume(t)
            return
        if command in _LOCKS:
            raw = p.read_memory(t.tid, regs[p.RDX], 2) or b"\2\0"
            kind = int.from_bytes(raw, "little")
            if (kind == _F_RDLCK and not file.readable) or (kind == _F_WRLCK and not file.writable):
                refuse(t, regs, -EBADF, "fcntl", "fget.mode")
                return
        answered = char_device.ANSWERS["fcntl"](file, _arguments(regs), None)
        self._answered(t, regs, "fcntl", answered)

    def _sendfile(self, t: Tracee, regs: list[int]) -> None:
        self._two(t, regs, p.RSI, p.RDI, "sendfile")

    def _splice(self, t: Tracee, regs: list[int]) -> None:
        name = "splice" if regs[p.ORIG_RAX] == nr.SPLICE else "copy_file_range"
        self._two(t, regs, p.RDI, p.RDX, name)

    def _two(self, t: Tracee, regs: list[int], source: int, target: int, name: str) -> None:
        """A call that moves data from one descriptor to another."""
        for ours, other, side in ((source, target, "from"), (target, source, "to")):
            file = self._node(t, signed32(regs[ours]))
            if file is not None:
                flags = self._flags(t, signed32(regs[other]))
                found = char_device.ANSWERS.get(name) or char_device.ANSWERS[f"{name} {side}"]
                self._answered(t, regs, name, found(file, _arguments(regs), flags))
                return
        resume(t)

    def _flags(self, t: Tracee, fd: int) -> int | None:
        file = self._node(t, fd)
        if file is not None:
            return file.flags
        try:
            with open(f"/proc/{t.tid}/fdinfo/{fd}", encoding="ascii", errors="replace") as lines:
                return next(int(x.split()[1], 8) for x in lines if x.startswith("flags:"))
        except (OSError, StopIteration):
            return None

    def _fstatfs(self, t: Tracee, regs: list[int]) -> None:
        if t.space.process.node(signed32(regs[p.RDI])) is None:
            resume(t)
            return
        run_instead(t, regs, nr.STATFS, {p.RDI: text(NULL)}, lambda _t, _result: None)

    def _xattr(self, t: Tracee, regs: list[int]) -> None:
        file = self._node(t, signed32(regs[p.RDI]))
        name = read_path(t.tid, regs[p.RSI]) if file is not None else None
        write = regs[p.ORIG_RAX] != nr.FGETXATTR
        found = None if name is None else char_device.xattr(name, write=write)
        self._answered(t, regs, "setxattr" if write else "getxattr", found)

    def _duplicated(self, t: Tracee, regs: list[int]) -> None:
        """Watch the new descriptor if it is of a node or of /proc/<pid>/mem."""

        def made(t: Tracee, fd: int) -> None:
            if fd >= 0 and self._concerns(t, fd):
                watch(t, fd)

        run_to_exit(t, made)

    def _concerns(self, t: Tracee, fd: int) -> bool:
        if t.space.process.node(fd) is not None:
            return True
        try:
            return MEM.fullmatch(os.readlink(f"/proc/{t.tid}/fd/{fd}".encode())) is not None
        except OSError:
            return False


def _arguments(regs: list[int]) -> list[int]:
    return [regs[n] for n in _ARGUMENTS]
