"""The device nodes as the program sees them: opening them, and calls that look at them.

A memfd stands for an open node, so that the real kernel numbers, shares and closes its descriptors.
Calls on these are in descriptors.py.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from softsgx.linux.char_device import O_CLOEXEC, open_flags
from softsgx.linux.errno import ENOENT
from softsgx.linux.vfs import O_CREAT, O_EXCL, O_NOFOLLOW, O_PATH, File, ProvisionNode
from softsgx.runner.calls.node_stat import MINORS, patch_stat, patch_statx
from softsgx.runner.calls.paths import NODES, STAND_IN, Walk, read_path
from softsgx.runner.calls.watched import watch
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
)
from softsgx.runner.host.memory_file import SHM, TMPFILE
from softsgx.runner.process.identity import identity
from softsgx.runner.process.scratch import CPUINFO, NULL, lend, text
from softsgx.runner.process.stops import (
    Handler,
    refuse,
    resume,
    run_changed,
    run_instead,
    run_to_exit,
    signed32,
)
from softsgx.runner.process.tracee import Tracee
from softsgx.runner.ways import WAYS

if TYPE_CHECKING:
    from softsgx.runner.calls.releases import Releases
    from softsgx.runner.cpuid.cpuid import CpuidPolicy
    from softsgx.runner.process.world import World

_RESOLVE_LINKS: Final = 0x02 | 0x04 | 0x20  # NO_MAGICLINKS, NO_SYMLINKS, CACHED
_DEVICE_SIZE: Final = 1 << 46  # sparse: pages of ones for the abort page
Patch = Callable[[Tracee, File], None]


class Nodes:
    """Serves calls about /dev/sgx_enclave and /dev/sgx_provision, and /proc/cpuinfo."""

    def __init__(self, world: World, policy: CpuidPolicy, releases: Releases) -> None:
        self.world = world
        self._policy = policy
        self._releases = releases
        # For stat(2) of a node by its path.
        self._closed = {node: File(node, ProvisionNode(), 0) for node in MINORS}

    def handlers(self) -> dict[int, Handler]:
        """By number of the system call."""
        here = AT_FDCWD
        return {
            nr.OPEN: lambda t, r: self._open(t, r, here, r[p.RDI], r[p.RSI]),
            nr.OPENAT: lambda t, r: self._open(t, r, r[p.RDI], r[p.RSI], r[p.RDX]),
            nr.OPENAT2: self._openat2,
            nr.STAT: lambda t, r: self._stat(t, r, p.RDI, here, follow=True),
            nr.LSTAT: lambda t, r: self._stat(t, r, p.RDI, here, follow=False),
            nr.NEWFSTATAT: self._fstatat,
            nr.STATX: self._statx,
            nr.FSTAT: self._fstat,
            nr.READLINK: lambda t, r: self._readlink(t, r, p.RDI, here),
            nr.READLINKAT: lambda t, r: self._readlink(t, r, p.RSI, r[p.RDI]),
            **{
                number: lambda t, r: self._path_only(t, r, p.RDI, here)
                for number in (nr.ACCESS, nr.GETXATTR, nr.LISTXATTR, nr.STATFS)
            },
            **{
                number: lambda t, r: self._path_only(t, r, p.RDI, here, follow=False)
                for number in (nr.LGETXATTR, nr.LLISTXATTR)
            },
            nr.FACCESSAT: lambda t, r: self._path_only(t, r, p.RSI, r[p.RDI]),
            nr.FACCESSAT2: lambda t, r: self._path_only(
                t, r, p.RSI, r[p.RDI], follow=not r[p.R10] & AT_SYMLINK_NOFOLLOW
            ),
            nr.NAME_TO_HANDLE_AT: lambda t, r: self._path_only(
                t, r, p.RSI, r[p.RDI], follow=bool(r[p.R8] & AT_SYMLINK_FOLLOW)
            ),
        }

    def _target(
        self, t: Tracee, address: int, directory: int, *, follow: bool = True
    ) -> bytes | None:
        """The file that the path at an address leads to, if it is one that is served here."""
        path = read_path(t.tid, address)
        if not path or not t.space.gate_ready:
            return None
        return Walk(t, directory, self.world.files).target(path, follow=follow)

    def _absent(self, t: Tracee, regs: list[int], found: bytes | None) -> bool:
        """Answer a call for a node that the model's kernel does not create; False for others."""
        if found not in NODES or self.world.kernel.has_nodes:
            return False
        refuse(t, regs, -ENOENT, "open", "sgx_drv_init.launch_control")
        return True

    # Opening

    def _open(self, t: Tracee, regs: list[int], directory: int, path: int, flags: int) -> None:
        found = self._target(t, path, directory, follow=_follows(flags))
        self._opens(t, regs, found, flags & 0xFFFFFFFF, 0, openat2=False)

    def _openat2(self, t: Tracee, regs: list[int]) -> None:
        how = p.read_memory(t.tid, regs[p.RDX], 24) if regs[p.R10] >= 24 else None
        flags, mode, resolve = struct.unpack("<QQQ", how or bytes(24))
        found = None
        if how is not None and not resolve & ~_RESOLVE_LINKS:
            follow = _follows(flags) and not resolve
            found = self._target(t, regs[p.RSI], regs[p.RDI], follow=follow)
        self._opens(t, regs, found, flags, mode, openat2=True)

    def _opens(
        self,
        t: Tracee,
        regs: list[int],
        found: bytes | None,
        flags: int,
        mode: int,
        *,
        openat2: bool,
    ) -> None:
        if self._absent(t, regs, found):
            return
        if found is None:
            resume(t)
        elif found in NODES:
            kept = open_flags(flags, mode, openat2=openat2)
            if kept < 0:
                refuse(t, regs, kept, "open", "build_open_flags.flags")
                return
            self._stand_in(
                t, regs, found, flags, lambda t, fd: self._node_opened(t, fd, found, kept)
            )
        elif found == CPUINFO:
            self._stand_in(t, regs, found, flags, self._fill_cpuinfo)
        else:
            run_to_exit(t, self._mem_opened)

    def _stand_in(
        self,
        t: Tracee,
        regs: list[int],
        name: bytes,
        flags: int,
        then: Callable[[Tracee, int], int | None],
    ) -> None:
        """Run memfd_create instead of open."""
        number, arguments = nr.MEMFD_CREATE, {p.RDI: text(name)}
        arguments[p.RSI] = WAYS.memfd | (os.MFD_CLOEXEC if flags & O_CLOEXEC else 0)
        if WAYS.files_in_shm:
            number, arguments = nr.OPEN, {p.RDI: text(SHM.encode()), p.RDX: 0o600}
            arguments[p.RSI] = TMPFILE | flags & O_CLOEXEC
        run_instead(t, regs, number, arguments, lambda t, fd: None if fd < 0 else then(t, fd))

    def _node_opened(self, t: Tracee, fd: int, name: bytes, flags: int) -> int | None:
        self._releases.look()
        path = f"/proc/{t.tid}/fd/{fd}"
        if not os.readlink(path.encode()).startswith(STAND_IN):
            return None  # another thread has closed it and opened something else
        if flags & O_PATH:
            error = _only_a_path(t, fd)
            if error:
                return error
        else:
            os.truncate(path, _DEVICE_SIZE)
        stand_in = identity(path)
        self._releases.await_end(path, stand_in)
        error = self.world.opened(NODES[name], stand_in, flags)
        if error:
            t.inject(nr.CLOSE, fd)
            return error
        watch(t, fd)
        return None

    def _mem_opened(self, t: Tracee, fd: int) -> None:
        if fd >= 0:
            watch(t, fd)

    def _fill_cpuinfo(self, t: Tracee, fd: int) -> int | None:
        from softsgx.runner.cpuid.cpuinfo import cpuinfo_text

        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as real:
            content = cpuinfo_text(real.read(), self._policy)
        with open(f"/proc/{t.tid}/fd/{fd}", "w", encoding="ascii", errors="replace") as file:
            file.write(content)
        return None

    # Looking at them

    def _path_only(
        self, t: Tracee, regs: list[int], path: int, directory: int, *, follow: bool = True
    ) -> None:
        """access(2) and others: answered as for /dev/null, which everyone may read and write."""
        self._inspect(t, regs, path, directory, follow, None)

    def _inspect(
        self,
        t: Tracee,
        regs: list[int],
        path: int,
        directory: int,
        follow: bool,
        patch: Patch | None,
    ) -> None:
        found = self._target(t, regs[path], directory, follow=follow)
        node = NODES.get(found) if found is not None else None
        if self._absent(t, regs, found):
            return
        if node is None:
            resume(t)
        else:
            self._as_null(t, regs, {path: text(NULL)}, self._closed[node], patch)

    def _as_null(
        self,
        t: Tracee,
        regs: list[int],
        changes: dict[int, int],
        file: File,
        patch: Patch | None,
    ) -> None:
        """Make the call on /dev/null, and correct the result where it differs."""

        def looked(t: Tracee, result: int) -> None:
            if result == 0 and patch is not None:
                patch(t, file)

        run_changed(t, regs, changes, looked)

    def _stat(self, t: Tracee, regs: list[int], path: int, directory: int, *, follow: bool) -> None:
        place = regs[p.RDX if path == p.RSI else p.RSI]
        self._inspect(t, regs, path, directory, follow, lambda t, file: patch_stat(t, place, file))

    def _fstatat(self, t: Tracee, regs: list[int]) -> None:
        place, flags = regs[p.RDX], regs[p.R10]
        if _of_descriptor(t, regs, flags):
            self._stat_open(
                t, regs, {p.RSI: text(NULL)}, lambda t, file: patch_stat(t, place, file)
            )
            return
        follow = not flags & AT_SYMLINK_NOFOLLOW
        self._stat(t, regs, p.RSI, regs[p.RDI], follow=follow)

    def _statx(self, t: Tracee, regs: list[int]) -> None:
        place, flags = regs[p.R8], regs[p.RDX]

        def patch(t: Tracee, file: File) -> None:
            patch_statx(t, place, file)

        if _of_descriptor(t, regs, flags):
            self._stat_open(t, regs, {p.RSI: text(NULL)}, patch)
            return
        follow = not flags & AT_SYMLINK_NOFOLLOW
        self._inspect(t, regs, p.RSI, regs[p.RDI], follow, patch)

    def _fstat(self, t: Tracee, regs: list[int]) -> None:
        place = regs[p.RSI]
        changes = {p.ORIG_RAX: nr.STAT, p.RAX: nr.STAT, p.RDI: text(NULL)}
        self._stat_open(t, regs, changes, lambda t, file: patch_stat(t, place, file))

    def _stat_open(self, t: Tracee, regs: list[int], changes: dict[int, int], patch: Patch) -> None:
        fd = signed32(regs[p.RDI])
        file = t.space.process.node(fd)
        if file is None:
            resume(t)
            return

        def seen(t: Tracee, file: File) -> None:
            patch(t, file)
            watch(t, fd)  # it may have been received from a socket

        self._as_null(t, regs, changes, file, seen)

    def _readlink(self, t: Tracee, regs: list[int], path: int, directory: int) -> None:
        """EINVAL for a node. The link in /proc of an open node reads as the node's path."""
        found = self._target(t, regs[path], directory, follow=False)
        if self._absent(t, regs, found):
            return
        if found in NODES:
            run_changed(t, regs, {path: text(NULL)}, lambda _t, _result: None)
            return
        name = read_path(t.tid, regs[path])
        shown = None
        if name is not None and name.rpartition(b"/")[2].isdigit():
            shown = Walk(t, directory, self.world.files).shown(name)
        if shown is None:
            resume(t)
            return
        buffer, size = (p.RSI, p.RDX) if path == p.RDI else (p.RDX, p.R10)
        place, own = regs[buffer], shown[: regs[size]]

        def read(t: Tracee, length: int) -> int | None:
            if length <= 0:
                return None
            p.write_memory(t.tid, place, own)
            return len(own)

        run_to_exit(t, read)


def _follows(flags: int) -> bool:
    """Whether an open follows a symbolic link in the last component."""
    return not (flags & O_NOFOLLOW or (flags & O_CREAT and flags & O_EXCL))


def _of_descriptor(t: Tracee, regs: list[int], flags: int) -> bool:
    """Whether a call is about its descriptor: AT_EMPTY_PATH with an empty or unreadable path."""
    empty = (b"\0", None)
    return bool(flags & AT_EMPTY_PATH) and p.read_memory(t.tid, regs[p.RSI], 1) in empty


def _only_a_path(t: Tracee, fd: int) -> int:
    """Replace `fd` by an O_PATH descriptor of the same file; 0, or a negated errno."""
    kept = t.inject(nr.FCNTL, fd, 1)  # F_GETFD
    flags = O_CLOEXEC if kept == 1 else 0
    path = lend(t.tid, f"/proc/self/fd/{fd}\0".encode())
    other = t.inject(nr.OPENAT, AT_FDCWD, path, O_PATH | flags, 0)
    if other < 0:
        t.inject(nr.CLOSE, fd)
        return other
    t.inject(nr.DUP3, other, fd, flags)
    t.inject(nr.CLOSE, other)
    return 0
