"""System calls of the program that concern enclaves: what each stop at the filter leads to.

A call is either answered here (it does not run), or runs, perhaps with other arguments, and is
completed at its exit. Whatever is not about enclaves goes on untouched.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from softsgx.linux import syscalls
from softsgx.linux.errno import EACCES, EINVAL, EPERM
from softsgx.linux.mm import TASK_SIZE
from softsgx.linux.uapi import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MREMAP_FIXED,
    PROT_EXEC,
)
from softsgx.linux.vfs import File
from softsgx.runner import bpf
from softsgx.runner import ptrace as p
from softsgx.runner.layout import END, GATE
from softsgx.runner.native_load import elrange
from softsgx.runner.tracee import NR_MPROTECT, NR_MUNMAP, Tracee
from softsgx.runner.world import SGX_ENCLAVE, SGX_PROVISION
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE

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
_CPUINFO: Final = b"/proc/cpuinfo"
_PATH_MAX: Final = max(len(name) for name in (*NODES, _CPUINFO)) + 1

_NR_SECCOMP: Final = 317
_NR_MEMFD_CREATE: Final = 319
_NR_GETPID: Final = 39
_MFD_CLOEXEC: Final = 1
_AT_EMPTY_PATH: Final = 0x1000
_STAT_MODE, _STAT_RDEV = 24, 40
_STATX_MODE, _STATX_RDEV = 28, 128
_FILTERS_MAX: Final = 6
_DEVICE_SIZE: Final = 1 << 46  # sparse: pages of ones for the abort page
_IN_DELETE_SELF: Final = 0x400
_MADV_REFUSED: Final = frozenset({4, 8, 9, 11})  # DONTNEED, FREE, REMOVE, DOFORK
_OPENED_MAX: Final = 4 << 20  # a transfer with enclave memory is cut to so many bytes
_BELOW: Final = 128 + 4096  # scratch memory below the red zone

_libc = ctypes.PyDLL(None, use_errno=True)


class Calls:
    """Serves the calls that the filters stop."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.world = supervisor.world
        self._watch = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._watched: dict[int, int] = {}  # watch -> inode
        self._handlers: dict[int, Callable[[Tracee, list[int]], None]] = {
            bpf.IOCTL: self._ioctl,
            bpf.MMAP: self._mmap,
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
            bpf.MPROTECT: self._mprotect,
            bpf.PKEY_MPROTECT: self._mprotect,
            bpf.MUNMAP: self._munmap,
            bpf.MREMAP: self._mremap,
            bpf.MADVISE: self._madvise,
            bpf.CLOCK_GETTIME: self._clock,
            bpf.GETRUSAGE: self._rusage,
            bpf.TIMES: self._times,
            bpf.RT_SIGACTION: self._sigaction,
            bpf.GETXATTR: lambda t, r: self._path_only(t, r, p.RDI),
            bpf.LGETXATTR: lambda t, r: self._path_only(t, r, p.RDI),
            bpf.FSTAT: self._fstat,
            **dict.fromkeys((*bpf.BUFFERS, bpf.READV, bpf.WRITEV), self._transfer),
        }

    def serve(self, t: Tracee, regs: list[int]) -> None:
        """A seccomp stop that is no site of ours."""
        handler = self._handlers.get(regs[p.ORIG_RAX])
        if handler is None or p.read_memory(t.tid, regs[p.RIP] - 2, 2) != b"\x0f\x05":
            _go_on(t)  # int 0x80 of the program itself
            return
        t.speak()
        handler(t, regs)

    # Ways to end a stop

    def _answer(self, t: Tracee, regs: list[int], result: int) -> None:
        """The call does not run; this is its result."""
        regs[p.ORIG_RAX] = p.MASK64
        regs[p.RAX] = result & p.MASK64
        p.set_regs(t.tid, regs)
        _go_on(t)

    def _to_exit(self, t: Tracee, then: Callable[[Tracee, int], int | None]) -> None:
        """Let the call run, then call `then(t, result)`; what it returns replaces the result."""

        def at_exit(t: Tracee) -> None:
            regs = p.get_regs(t.tid)
            new = then(t, _signed(regs[p.RAX]))
            if new is not None:
                regs = p.get_regs(t.tid)
                regs[p.RAX] = new & p.MASK64
                p.set_regs(t.tid, regs)

        t.at_exit = at_exit
        p.request(p.PTRACE_SYSCALL, t.tid)

    def _changed(
        self,
        t: Tracee,
        regs: list[int],
        changes: dict[int, int],
        then: Callable[[Tracee, int], int | None],
    ) -> None:
        """Run the call with other registers, which the program gets back as they were."""
        before = {at: regs[at] for at in changes if at not in (p.RAX, p.ORIG_RAX)}
        new = list(regs)
        for at, value in changes.items():
            new[at] = value & p.MASK64
        p.set_regs(t.tid, new)

        def restore(t: Tracee, result: int) -> int | None:
            after = p.get_regs(t.tid)
            for at, value in before.items():
                after[at] = value
            p.set_regs(t.tid, after)
            return then(t, result)

        self._to_exit(t, restore)

    # Opening and looking

    def _node(self, t: Tracee, address: int) -> bytes | None:
        """The path at an address, if it is one that concerns us."""
        raw = p.read_memory(t.tid, address, _PATH_MAX)
        if raw is None:
            raw = p.read_memory(t.tid, address, min(_PATH_MAX, PAGE_SIZE - address % PAGE_SIZE))
        if raw is None or not raw.startswith((b"/dev/sgx", _CPUINFO)):
            return None
        name = raw.split(b"\0", 1)[0]
        return name if name in NODES or name == _CPUINFO else None

    def _open(self, t: Tracee, regs: list[int], path: int, flags: int) -> None:
        name = self._node(t, regs[path])
        if name is None:
            _go_on(t)
            return
        self._open_node(t, regs, name, regs[flags])

    def _openat2(self, t: Tracee, regs: list[int]) -> None:
        name = self._node(t, regs[p.RSI])
        how = p.read_memory(t.tid, regs[p.RDX], 8) if name is not None else None
        if name is None or how is None:
            _go_on(t)
            return
        self._open_node(t, regs, name, int.from_bytes(how, "little"))

    def _open_node(self, t: Tracee, regs: list[int], name: bytes, flags: int) -> None:
        """Instead: memfd_create. Its number, sharing and closing stay the real kernel's affair."""
        scratch = (regs[p.RSP] - _BELOW) & ~15
        if not p.write_memory(t.tid, scratch, name + b"\0"):
            _go_on(t)
            return
        changes = {
            p.ORIG_RAX: _NR_MEMFD_CREATE,
            p.RAX: _NR_MEMFD_CREATE,
            p.RDI: scratch,
            p.RSI: _MFD_CLOEXEC if flags & os.O_CLOEXEC else 0,
        }

        def opened(t: Tracee, fd: int) -> int | None:
            if fd < 0:
                return None
            if name == _CPUINFO:
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

        self._changed(t, regs, changes, opened)

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
        scratch = (regs[p.RSP] - _BELOW) & ~15
        if node is None or not p.write_memory(t.tid, scratch, b"/dev/null\0"):
            _go_on(t)
            return

        def looked(t: Tracee, result: int) -> int | None:
            if result == 0:
                patch(t, node)
            return None

        self._changed(t, regs, {path: scratch}, looked)

    def _stat(self, t: Tracee, regs: list[int], path: int, buffer: int) -> None:
        place = regs[buffer]
        self._looking(t, regs, path, lambda t, node: _patch_stat(t, place, node))

    def _fstatat(self, t: Tracee, regs: list[int]) -> None:
        place, flags = regs[p.RDX], regs[p.R10]
        if flags & _AT_EMPTY_PATH and p.read_memory(t.tid, regs[p.RSI], 1) in (b"\0", None):
            file = t.space.process.fget(_signed32(regs[p.RDI]))
            if isinstance(file, File):
                self._to_exit(t, lambda t, _result: _patch_stat(t, place, file.path))
                return
            _go_on(t)
            return
        self._stat(t, regs, p.RSI, p.RDX)

    def _statx(self, t: Tracee, regs: list[int]) -> None:
        place = regs[p.R8]
        if regs[p.RDX] & _AT_EMPTY_PATH and p.read_memory(t.tid, regs[p.RSI], 1) in (b"\0", None):
            file = t.space.process.fget(_signed32(regs[p.RDI]))
            if isinstance(file, File):
                self._to_exit(t, lambda t, _result: _patch_statx(t, place, file.path))
                return
            _go_on(t)
            return
        self._looking(t, regs, p.RSI, lambda t, node: _patch_statx(t, place, node))

    def _fstat(self, t: Tracee, regs: list[int]) -> None:
        file, place = t.space.process.fget(_signed32(regs[p.RDI])), regs[p.RSI]
        if isinstance(file, File):
            self._to_exit(t, lambda t, _result: _patch_stat(t, place, file.path))
            return
        _go_on(t)

    def _transfer(self, t: Tracee, regs: list[int]) -> None:
        """read(2), write(2) and the like: of a node, or with a buffer in enclave memory."""
        if isinstance(t.space.process.fget(_signed32(regs[p.RDI])), File):
            self._answer(t, regs, -EINVAL)
            return
        number, address, length = regs[p.ORIG_RAX], regs[p.RSI], min(regs[p.RDX], _OPENED_MAX)
        if number not in bpf.BUFFERS or not self._areas(t, address, length):
            _go_on(t)
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
        self._changed(t, regs, {p.ORIG_RAX: _NR_GETPID, p.RAX: _NR_GETPID}, run)

    def _sigaction(self, t: Tracee, regs: list[int]) -> None:
        """The program's handler of SIGSEGV, in case the kernel takes it away (see AbortPage)."""
        place = regs[p.RSI]
        action = p.read_memory(t.tid, place, 32) if place else None

        def done(t: Tracee, result: int) -> None:
            if result == 0 and action is not None:
                t.space.segv_action = action

        self._to_exit(t, done)

    # The driver

    def _ioctl(self, t: Tracee, regs: list[int]) -> None:
        file = t.space.process.fget(_signed32(regs[p.RDI]))
        if not isinstance(file, File):
            _go_on(t)
            return
        self.look_for_released()
        thread = t.model()
        user = t.space.mm.user
        user.forget()
        body = file.f_op.ioctl(thread, file, regs[p.RSI] & 0xFFFFFFFF, regs[p.RDX])
        self._answer(t, regs, self.world.run(body, thread.cpu))
        user.forget()

    # Mappings

    def _mmap(self, t: Tracee, regs: list[int]) -> None:
        address, length, prot, flags = regs[p.RDI], regs[p.RSI], regs[p.RDX], regs[p.R10]
        if not flags & MAP_ANONYMOUS:
            file = t.space.process.fget(_signed32(regs[p.R8]))
            if isinstance(file, File):
                self._mmap_device(t, regs, file)
                return
            if prot & PROT_EXEC:
                self._mmap_code(t, regs)
                return
        if flags & MAP_FIXED and self._areas(t, address, length):
            self._to_exit(t, lambda t, result: self._replaced(t, result, length))
            return
        _go_on(t)

    def _replaced(self, t: Tracee, result: int, length: int) -> None:
        """Something was mapped over enclave areas."""
        if result >= 0:
            thread = t.model()
            self.world.run(syscalls.sys_munmap(thread, result, length), thread.cpu)
            self.look_for_released()

    def _mmap_code(self, t: Tracee, regs: list[int]) -> None:
        """A file of code: its sites are replaced before any of it runs."""
        fd, offset, length = _signed32(regs[p.R8]), regs[p.R9], regs[p.RSI]
        fixed = bool(regs[p.R10] & MAP_FIXED)

        def mapped(t: Tracee, result: int) -> None:
            if result < 0 and result > -4096:
                return
            if fixed and self._areas(t, result, length):
                self._replaced(t, result, length)
            try:
                path = os.readlink(f"/proc/{t.tid}/fd/{fd}")
            except OSError:
                return
            self.supervisor.loader.patch(t, path, result, offset)

        self._to_exit(t, mapped)

    def _mmap_device(self, t: Tracee, regs: list[int], file: File) -> None:
        """Check in the model, map PROT_NONE in the process: all accesses come to us."""
        address, length, prot, flags = regs[p.RDI], regs[p.RSI], regs[p.RDX], regs[p.R10]
        fd = _signed32(regs[p.R8])
        thread = t.model()
        if flags & MAP_FIXED and not flags & MAP_FIXED_NOREPLACE:
            body = syscalls.sys_mmap(thread, address, length, prot, flags, fd, regs[p.R9])
            result = self.world.run(body, thread.cpu)
            if result < 0:
                if _driver_refused(file, address, length, prot, result):
                    # The real kernel has taken away what was there before it asks the driver.
                    t.at_exit = None
                    self._refused(t, regs, address, length, result)
                    return
                self._answer(t, regs, result)
                return
            mapped = self._mapped_fixed
        else:
            mapped = self._mapped_anywhere

        def done(t: Tracee, result: int) -> int | None:
            if -4096 < result < 0 and mapped == self._mapped_fixed:
                # Refused after all, as below vm.mmap_min_addr: the model has it, the process not.
                self.world.run(syscalls.sys_munmap(t.model(), address, length), t.model().cpu)
            return mapped(t, result, length, prot, flags, fd, regs[p.R9])

        self._changed(t, regs, {p.RDX: 0, p.R9: 0}, done)

    def _refused(self, t: Tracee, regs: list[int], address: int, length: int, result: int) -> None:
        changes = {p.ORIG_RAX: NR_MUNMAP, p.RAX: NR_MUNMAP, p.RDI: address, p.RSI: length}
        self._changed(t, regs, changes, lambda _t, _result: result)

    def _mapped_fixed(
        self, t: Tracee, result: int, length: int, prot: int, flags: int, fd: int, offset: int
    ) -> int | None:
        if -4096 < result < 0:
            return None
        self._mapped(t, result, length, fd)
        return None

    def _mapped(self, t: Tracee, start: int, length: int, fd: int) -> None:
        """An enclave area was made."""
        code = None
        if self.world.native:
            code = elrange(t, fd, (start, start + length))
        self._trace(t, start, start + length, code)

    def _mapped_anywhere(
        self, t: Tracee, result: int, length: int, prot: int, flags: int, fd: int, offset: int
    ) -> int | None:
        """The real kernel has chosen an address; now the model is asked."""
        if -4096 < result < 0:
            return None
        thread = t.model()
        kind = flags & ~MAP_FIXED_NOREPLACE | MAP_FIXED
        answer = self.world.run(
            syscalls.sys_mmap(thread, result, length, prot, kind, fd, offset), thread.cpu
        )
        if answer < 0:
            t.inject(NR_MUNMAP, result, length)
            return answer
        self._mapped(t, result, length, fd)
        return None

    def _trace(self, t: Tracee, start: int, end: int, code: tuple[int, int] | None) -> None:
        """From now on, calls that change this range stop."""
        space = t.space
        if any(low <= start and end <= high for low, high in space.traced):
            return
        if space.filters + 1 >= _FILTERS_MAX:
            start, end = 0, TASK_SIZE
        if _add_filter(t, bpf.range_filter(GATE, (END - GATE) >> 12, start, end, code)):
            space.traced.append((start, end))
            space.filters += 1

    def _trace_device(self, t: Tracee, fd: int) -> None:
        devices = t.space.devices
        if fd not in devices and len(devices) < _FILTERS_MAX:
            if _add_filter(t, bpf.device_filter(GATE, (END - GATE) >> 12, fd)):
                devices.append(fd)

    def _areas(self, t: Tracee, address: int, length: int) -> list[tuple[int, int]]:
        """The enclave areas of a range, cut to it."""
        if not t.space.mm.vmas or address + length > 1 << 64:
            return []
        end = address + ((length + PAGE_MASK) & ~PAGE_MASK)
        return [
            (max(vma.start, address), min(vma.end, end))
            for vma in t.space.mm.for_each_vma(address, end)
        ]

    def _munmap(self, t: Tracee, regs: list[int]) -> None:
        address, length = regs[p.RDI], regs[p.RSI]
        if not self._areas(t, address, length):
            _go_on(t)
            return

        def unmapped(t: Tracee, result: int) -> None:
            if result == 0:
                thread = t.model()
                self.world.run(syscalls.sys_munmap(thread, address, length), thread.cpu)
                self.look_for_released()

        self._to_exit(t, unmapped)

    def _mprotect(self, t: Tracee, regs: list[int]) -> None:
        """Parts that are enclave areas are the model's, the others the kernel's, in their order."""
        address, length, prot = regs[p.RDI], regs[p.RSI], regs[p.RDX]
        areas = self._areas(t, address, length)
        if not areas or address & PAGE_MASK:
            _go_on(t)
            return
        end = address + ((length + PAGE_MASK) & ~PAGE_MASK)
        parts: list[tuple[int, int, bool]] = []
        at = address
        for start, stop in areas:
            if at < start:
                parts.append((at, start, False))
            parts.append((start, stop, True))
            at = stop
        if at < end:
            parts.append((at, end, False))
        if all(ours for _, _, ours in parts):
            self._answer(t, regs, self._mprotect_model(t, address, end - address, prot))
            return

        def run(t: Tracee, _result: int) -> int:
            for start, stop, ours in parts:
                if ours:
                    result = self._mprotect_model(t, start, stop - start, prot)
                else:
                    result = t.inject(NR_MPROTECT, start, stop - start, prot)
                if result:
                    return result
            return 0

        # A call that does nothing, to come to a place where calls can be injected.
        self._changed(t, regs, {p.RSI: 0}, run)

    def _mprotect_model(self, t: Tracee, address: int, length: int, prot: int) -> int:
        thread = t.model()
        return self.world.run(syscalls.sys_mprotect(thread, address, length, prot), thread.cpu)

    def _mremap(self, t: Tracee, regs: list[int]) -> None:
        old, old_length, new_length, flags, new = (
            regs[n] for n in (p.RDI, p.RSI, p.RDX, p.R10, p.R8)
        )
        if not self._areas(t, old, max(old_length, 1)):
            if flags & MREMAP_FIXED and self._areas(t, new, new_length):
                self._to_exit(t, lambda t, result: self._replaced(t, result, new_length))
            else:
                _go_on(t)
            return
        thread = t.model()
        body = syscalls.sys_mremap(thread, old, old_length, new_length, flags, new)
        result = self.world.run(body, thread.cpu)
        if result < 0:
            self._answer(t, regs, result)
            return
        self._to_exit(t, lambda _t, _result: None)

    def _madvise(self, t: Tracee, regs: list[int]) -> None:
        if regs[p.RDX] in _MADV_REFUSED and self._areas(t, regs[p.RDI], regs[p.RSI]):
            self._answer(t, regs, -EINVAL)
            return
        _go_on(t)

    # Time

    def _clock(self, t: Tracee, regs: list[int]) -> None:
        place, thread_only = regs[p.RSI], regs[p.RDI] == 3
        seconds = self._emulated(t, thread_only)
        if not seconds:
            _go_on(t)
            return

        def read(t: Tracee, result: int) -> None:
            raw = p.read_memory(t.tid, place, 16) if result == 0 else None
            if raw is not None:
                whole, nanoseconds = struct.unpack("<qq", raw)
                total = whole * 10**9 + nanoseconds + int(seconds * 1e9)
                p.write_memory(t.tid, place, struct.pack("<qq", *divmod(total, 10**9)))

        self._to_exit(t, read)

    def _rusage(self, t: Tracee, regs: list[int]) -> None:
        who, place = _signed32(regs[p.RDI]), regs[p.RSI]
        seconds = self._emulated(t, who == 1) if who in (0, 1) else 0.0
        if not seconds:
            _go_on(t)
            return

        def read(t: Tracee, result: int) -> None:
            raw = p.read_memory(t.tid, place, 16) if result == 0 else None
            if raw is not None:
                whole, micros = struct.unpack("<qq", raw)
                total = whole * 10**6 + micros + int(seconds * 1e6)
                p.write_memory(t.tid, place, struct.pack("<qq", *divmod(total, 10**6)))

        self._to_exit(t, read)

    def _times(self, t: Tracee, regs: list[int]) -> None:
        place = regs[p.RDI]
        ticks = int(self._emulated(t, False) * os.sysconf("SC_CLK_TCK"))
        if not ticks or not place:
            _go_on(t)
            return

        def read(t: Tracee, _result: int) -> None:
            raw = p.read_memory(t.tid, place, 8)
            if raw is not None:
                p.write_memory(t.tid, place, struct.pack("<q", struct.unpack("<q", raw)[0] + ticks))

        self._to_exit(t, read)

    def _emulated(self, t: Tracee, thread_only: bool) -> float:
        """Seconds that the emulator worked for a thread or its process."""
        if thread_only:
            return t.cpu_time
        return sum(x.cpu_time for x in self.supervisor.tracees.values() if x.pid == t.pid)


def _add_filter(t: Tracee, code: bytes) -> bool:
    """One more filter for all threads of the process."""
    at = (p.get_regs(t.tid)[p.RSP] - _BELOW) & ~15
    block = struct.pack("<QQ", len(code) // 8, at + 16) + code
    return p.write_memory(t.tid, at, block) and t.inject(_NR_SECCOMP, 1, 1, at) == 0


def _go_on(t: Tracee) -> None:
    p.request(p.PTRACE_CONT, t.tid)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _signed32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _driver_refused(file: File, address: int, length: int, prot: int, result: int) -> bool:
    """Whether the refusal came from the driver, after the generic checks."""
    if result not in (-EACCES, -EPERM) or address & PAGE_MASK or not length:
        return False
    return file.readable and (file.writable or not prot & 2)


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
