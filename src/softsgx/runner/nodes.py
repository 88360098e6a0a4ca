"""The device nodes as the program sees them: opening, looking, reading; and when they are released.

A memfd stands for an open node: its number, sharing and closing stay the real kernel's affair.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import EINVAL
from softsgx.linux.vfs import File
from softsgx.runner import bpf
from softsgx.runner import ptrace as p
from softsgx.runner.layout import END, GATE
from softsgx.runner.scratch import CPUINFO, NULL, text
from softsgx.runner.stops import (
    Handler,
    add_filter,
    answer,
    areas,
    changed,
    go_on,
    signed32,
    to_exit,
)
from softsgx.runner.tracee import Tracee
from softsgx.runner.world import SGX_ENCLAVE, SGX_PROVISION
from softsgx.spec.bits import PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.runner.supervisor import Supervisor

NODES: Final = {
    b"/dev/sgx_enclave": SGX_ENCLAVE,
    b"/dev/sgx/enclave": SGX_ENCLAVE,
    b"/dev/sgx_provision": SGX_PROVISION,
    b"/dev/sgx/provision": SGX_PROVISION,
}
MINORS: Final = {SGX_ENCLAVE: 125, SGX_PROVISION: 126}
_MISC_MAJOR: Final = 10
_PATH_MAX: Final = max(len(name) for name in (*NODES, CPUINFO)) + 1

_NR_MEMFD_CREATE: Final = 319
_NR_GETPID: Final = 39
_MFD_CLOEXEC: Final = 1
_AT_EMPTY_PATH: Final = 0x1000
_STAT_MODE, _STAT_RDEV = 24, 40
_STATX_MODE, _STATX_RDEV = 28, 128
_FILTERS_MAX: Final = 6
_DEVICE_SIZE: Final = 1 << 46  # sparse: pages of ones for the abort page
_IN_DELETE_SELF: Final = 0x400
_OPENED_MAX: Final = 4 << 20  # a transfer with enclave memory is cut to so many bytes

_libc = ctypes.PyDLL(None, use_errno=True)


class Nodes:
    """Serves calls about /dev/sgx_enclave and /dev/sgx_provision, and /proc/cpuinfo."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.world = supervisor.world
        self._watch = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._watched: dict[int, int] = {}  # watch -> inode

    def handlers(self) -> dict[int, Handler]:
        """By number of the system call."""
        return {
            bpf.OPEN: lambda t, r: self._open(t, r, p.RDI, p.RSI),
            bpf.OPENAT: lambda t, r: self._open(t, r, p.RSI, p.RDX),
            bpf.OPENAT2: self._openat2,
            bpf.STAT: lambda t, r: self._stat(t, r, p.RDI, p.RSI),
            bpf.LSTAT: lambda t, r: self._stat(t, r, p.RDI, p.RSI),
            bpf.NEWFSTATAT: self._fstatat,
            bpf.STATX: self._statx,
            bpf.ACCESS: lambda t, r: self._path_only(t, r, p.RDI),
            bpf.FACCESSAT: lambda t, r: self._path_only(t, r, p.RSI),
            bpf.FACCESSAT2: lambda t, r: self._path_only(t, r, p.RSI),
            bpf.GETXATTR: lambda t, r: self._path_only(t, r, p.RDI),
            bpf.LGETXATTR: lambda t, r: self._path_only(t, r, p.RDI),
            bpf.FSTAT: self._fstat,
            **dict.fromkeys((*bpf.BUFFERS, bpf.READV, bpf.WRITEV), self._transfer),
        }

    def _node(self, t: Tracee, address: int) -> bytes | None:
        """The path at an address, if it is one that concerns us."""
        raw = p.read_memory(t.tid, address, _PATH_MAX)
        if raw is None:
            raw = p.read_memory(t.tid, address, min(_PATH_MAX, PAGE_SIZE - address % PAGE_SIZE))
        if raw is None or not raw.startswith((b"/dev/sgx", CPUINFO)):
            return None
        name = raw.split(b"\0", 1)[0]
        return name if name in NODES or name == CPUINFO else None

    def _open(self, t: Tracee, regs: list[int], path: int, flags: int) -> None:
        name = self._node(t, regs[path])
        if name is None:
            go_on(t)
            return
        self._open_node(t, regs, name, regs[flags])

    def _openat2(self, t: Tracee, regs: list[int]) -> None:
        name = self._node(t, regs[p.RSI])
        how = p.read_memory(t.tid, regs[p.RDX], 8) if name is not None else None
        if name is None or how is None:
            go_on(t)
            return
        self._open_node(t, regs, name, int.from_bytes(how, "little"))

    def _open_node(self, t: Tracee, regs: list[int], name: bytes, flags: int) -> None:
        """Instead: memfd_create. Its number, sharing and closing stay the real kernel's affair."""
        changes = {
            p.ORIG_RAX: _NR_MEMFD_CREATE,
            p.RAX: _NR_MEMFD_CREATE,
            p.RDI: text(name),
            p.RSI: _MFD_CLOEXEC if flags & os.O_CLOEXEC else 0,
        }

        def opened(t: Tracee, fd: int) -> int | None:
            if fd < 0:
                return None
            if name == CPUINFO:
                self._fill_cpuinfo(t, fd)
                return None
            self.look_for_released()
            path = f"/proc/{t.tid}/fd/{fd}"
            if not os.readlink(path).startswith("/memfd:"):
                return None  # another thread has closed it, and opened something else
            inode = os.stat(path).st_ino
            os.truncate(path, _DEVICE_SIZE)
            self.world.opened(NODES[name], inode, flags & os.O_ACCMODE)
            watch = _libc.inotify_add_watch(self._watch, path.encode(), _IN_DELETE_SELF)
            self._watched[watch] = inode
            self._trace_device(t, fd)
            return None

        changed(t, regs, changes, opened)

    def _fill_cpuinfo(self, t: Tracee, fd: int) -> None:
        from softsgx.runner.cpuinfo import cpuinfo_text

        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as real:
            text = cpuinfo_text(real.read(), self.supervisor.loader.policy)
        with open(f"/proc/{t.tid}/fd/{fd}", "w", encoding="ascii", errors="replace") as file:
            file.write(text)

    def look_for_released(self) -> None:
        """Release the enclaves whose last descriptor and mapping are gone."""
        while True:
            try:
                events = os.read(self._watch, 4096)
            except BlockingIOError:
                return
            at = 0
            while at < len(events):
                watch, mask, _cookie, length = struct.unpack_from("<iIII", events, at)
                at += 16 + length
                inode = self._watched.get(watch)
                if inode is not None and mask & _IN_DELETE_SELF:
                    del self._watched[watch]
                    self.world.closed(inode)

    def _path_only(self, t: Tracee, regs: list[int], path: int) -> None:
        """access(2): as for /dev/null, which anybody may read and write."""
        self._looking(t, regs, path, lambda _t, _node: None)

    def _looking(
        self, t: Tracee, regs: list[int], path: int, patch: Callable[[Tracee, str], None]
    ) -> None:
        name = self._node(t, regs[path])
        node = NODES.get(name) if name is not None else None
        if node is None:
            go_on(t)
            return

        def looked(t: Tracee, result: int) -> int | None:
            if result == 0:
                patch(t, node)
            return None

        changed(t, regs, {path: text(NULL)}, looked)

    def _stat(self, t: Tracee, regs: list[int], path: int, buffer: int) -> None:
        place = regs[buffer]
        self._looking(t, regs, path, lambda t, node: _patch_stat(t, place, node))

    def _fstatat(self, t: Tracee, regs: list[int]) -> None:
        place, flags = regs[p.RDX], regs[p.R10]
        if flags & _AT_EMPTY_PATH and p.read_memory(t.tid, regs[p.RSI], 1) in (b"\0", None):
            self._stat_open(t, regs, place, _patch_stat)
            return
        self._stat(t, regs, p.RSI, p.RDX)

    def _statx(self, t: Tracee, regs: list[int]) -> None:
        place = regs[p.R8]
        if regs[p.RDX] & _AT_EMPTY_PATH and p.read_memory(t.tid, regs[p.RSI], 1) in (b"\0", None):
            self._stat_open(t, regs, place, _patch_statx)
            return
        self._looking(t, regs, p.RSI, lambda t, node: _patch_statx(t, place, node))

    def _fstat(self, t: Tracee, regs: list[int]) -> None:
        self._stat_open(t, regs, regs[p.RSI], _patch_stat)

    def _stat_open(
        self,
        t: Tracee,
        regs: list[int],
        place: int,
        patch: Callable[[Tracee, int, str], None],
    ) -> None:
        """What a descriptor is: of an open node, `patch` what the kernel writes to `place`."""
        file = t.space.process.fget(signed32(regs[p.RDI]))
        if isinstance(file, File):

            def seen(t: Tracee, result: int) -> None:
                if result == 0:
                    patch(t, place, file.path)

            to_exit(t, seen)
            return
        go_on(t)

    def _transfer(self, t: Tracee, regs: list[int]) -> None:
        """read(2), write(2) and the like: of a node, or with a buffer in enclave memory."""
        if isinstance(t.space.process.fget(signed32(regs[p.RDI])), File):
            answer(t, regs, -EINVAL)
            return
        number, address, length = regs[p.ORIG_RAX], regs[p.RSI], min(regs[p.RDX], _OPENED_MAX)
        if number not in bpf.BUFFERS or not areas(t, address, length):
            go_on(t)
            return
        # Pages of ones while the call runs; what it writes there is lost with them.
        opened: list[int] = []

        def run(t: Tracee, _result: int) -> int:
            self.supervisor.abort_page.open_range(t, address, length, opened)
            rest = (regs[n] for n in (p.R10, p.R8, p.R9))
            result = t.inject(number, regs[p.RDI], address, length, *rest)
            self.supervisor.abort_page.close(t, opened)
            return result

        # A call that does nothing, to come to a place where calls can be injected.
        changed(t, regs, {p.ORIG_RAX: _NR_GETPID, p.RAX: _NR_GETPID}, run)

    def _trace_device(self, t: Tracee, fd: int) -> None:
        devices = t.space.devices
        if fd not in devices and len(devices) < _FILTERS_MAX:
            if add_filter(t, bpf.device_filter(GATE, (END - GATE) >> 12, fd)):
                devices.append(fd)


def _patch_stat(t: Tracee, place: int, node: str) -> None:
    raw = p.read_memory(t.tid, place + _STAT_MODE, 4)
    if raw is not None:
        mode = stat.S_IFCHR | 0o666
        p.write_memory(t.tid, place + _STAT_MODE, struct.pack("<I", mode))
        p.write_memory(
            t.tid, place + _STAT_RDEV, struct.pack("<Q", os.makedev(_MISC_MAJOR, MINORS[node]))
        )


def _patch_statx(t: Tracee, place: int, node: str) -> None:
    mode = stat.S_IFCHR | 0o666
    p.write_memory(t.tid, place + _STATX_MODE, struct.pack("<H", mode))
    p.write_memory(t.tid, place + _STATX_RDEV, struct.pack("<II", _MISC_MAJOR, MINORS[node]))
