"""Enclave memory in /proc/<pid>/mem, as a debugger reads and writes it.

Linux 6.12, fs/proc/base.c, mem_rw. The real mapping has no contents. The model reads and writes a
debug enclave by EDBGRD and EDBGWR; other enclaves cannot be read. Memory outside enclaves is the
process's own.
"""

from __future__ import annotations

import os
import struct
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.linux.errno import EFAULT
from softsgx.linux.ptrace import mem_rw
from softsgx.linux.trace import refused_call
from softsgx.linux.vfs import O_ACCMODE, O_RDONLY, O_WRONLY
from softsgx.runner.calls.paths import MEM
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.proc import alive
from softsgx.runner.process.stops import answer, run_changed, signed32

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softsgx.linux.process import Thread
    from softsgx.runner.process.space import Space
from softsgx.runner.process.tracee import Tracee

_SEGMENTS_MAX: Final = 1024
_MOVED_MAX: Final = 4 << 20  # a longer transfer ends early


class _Kind(NamedTuple):
    write: bool
    vector: bool  # the second and third argument are struct iovec and their number
    position: bool  # the fourth argument is a position in the file


_KINDS: Final = {
    nr.READ: _Kind(False, False, False),
    nr.WRITE: _Kind(True, False, False),
    nr.PREAD64: _Kind(False, False, True),
    nr.PWRITE64: _Kind(True, False, True),
    nr.READV: _Kind(False, True, False),
    nr.WRITEV: _Kind(True, True, False),
    nr.PREADV: _Kind(False, True, True),
    nr.PWRITEV: _Kind(True, True, True),
    nr.PREADV2: _Kind(False, True, True),
    nr.PWRITEV2: _Kind(True, True, True),
}


class ProcessMem:
    """Serves reads and writes of /proc/<pid>/mem of supervised processes."""

    def __init__(self, tracees: Mapping[int, Tracee]) -> None:
        self._tracees = tracees

    def serve(self, t: Tracee, regs: list[int]) -> bool:
        """Serve a call on such a file whose range has enclave areas; False for any other call."""
        kind = _KINDS.get(regs[p.ORIG_RAX])
        fd = signed32(regs[p.RDI])
        space = self._space(t, fd) if kind is not None else None
        if kind is None or space is None:
            return False
        flags, position = _open_as(t, fd)
        if flags & O_ACCMODE == (O_RDONLY if kind.write else O_WRONLY):
            return False
        explicit = kind.position
        if explicit and regs[p.ORIG_RAX] in (nr.PREADV2, nr.PWRITEV2):
            if regs[p.R9]:
                return False  # EOPNOTSUPP
            explicit = regs[p.R10] != p.MASK64
        if explicit:
            position = regs[p.R10]
        segments = _segments(t, regs) if kind.vector else [(regs[p.RSI], regs[p.RDX])]
        length = sum(size for _, size in segments)
        if position >> 63 or not areas_of(space, position, length):
            return False
        result = self._move(t, space, segments, position, kind.write)
        if explicit or result <= 0:
            answer(t, regs, result)
            return True
        # The position of the real file must move, too.
        changes = {p.ORIG_RAX: nr.LSEEK, p.RAX: nr.LSEEK, p.RSI: position + result, p.RDX: 0}
        run_changed(t, regs, changes, lambda _t, _result: result)
        return True

    def _space(self, t: Tracee, fd: int) -> Space | None:
        """The address space of a descriptor of /proc/<pid>/mem; None if it is another file, or
        the process is not supervised."""
        try:
            path = os.readlink(f"/proc/{t.tid}/fd/{fd}".encode())
        except OSError:
            return None
        found = MEM.fullmatch(path)
        if found is None:
            return None
        pid, tid = (int(number or 0) for number in found.groups())
        for other in self._tracees.values():
            if other.tid == tid or (not tid and other.pid == pid):
                # Its end may be known to its parent before it is known here.
                return other.space if other.tid not in p.HELD or alive(other.tid) else None
        return None

    def _move(
        self, t: Tracee, space: Space, segments: list[tuple[int, int]], position: int, write: bool
    ) -> int:
        """Move the segments; returns what do_loop_readv_writev does."""
        done = 0
        for buffer, size in segments:
            size = min(size, _MOVED_MAX - done)
            result = self._move_one(t, space, buffer, size, position + done, write)
            if result < 0:
                return done or result
            done += result
            if result < size:
                break
        return done

    def _move_one(
        self, t: Tracee, space: Space, buffer: int, size: int, position: int, write: bool
    ) -> int:
        thread = t.model()
        content = bytearray(size)
        if write:
            given = p.read_memory(t.tid, buffer, size)
            if given is None:
                return _bad_buffer(thread, "write", "copy_from_user.address", buffer, size)
            content[:] = given
        elsewhere = partial(_elsewhere, space)
        body = mem_rw(thread, space.process, position, memoryview(content), write, elsewhere)
        result = t.run(body)
        if result > 0 and not write and not p.write_memory(t.tid, buffer, bytes(content[:result])):
            return _bad_buffer(thread, "read", "copy_to_user.address", buffer, result)
        return result


def _bad_buffer(thread: Thread, verb: str, rule: str, buffer: int, size: int) -> int:
    """-EFAULT, with an event: the caller's own buffer cannot be accessed."""
    name = f"{verb} of /proc/PID/mem"
    return refused_call(thread, name, EFAULT, rule, address=buffer, size=size)


def areas_of(space: Space, address: int, length: int) -> bool:
    """Whether a range has enclave areas."""
    return any(space.mm.for_each_vma(address, address + length))


def _elsewhere(space: Space, address: int, buf: memoryview, write: bool) -> int:
    """Read or write memory of the process outside enclaves."""
    host = space.attach_memory()
    return host.poke(address, bytes(buf)) if write else host.peek(address, buf)


def _open_as(t: Tracee, fd: int) -> tuple[int, int]:
    """f_flags and position of a descriptor."""
    found = {"flags": 0, "pos": 0}
    with open(f"/proc/{t.tid}/fdinfo/{fd}", encoding="ascii", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value, 8 if name == "flags" else 10)
    return found["flags"], found["pos"] & p.MASK64


def _segments(t: Tracee, regs: list[int]) -> list[tuple[int, int]]:
    """The array of struct iovec; empty if it is unreadable or too long: the real call fails."""
    count = regs[p.RDX]
    raw = p.read_memory(t.tid, regs[p.RSI], 16 * count) if 0 < count <= _SEGMENTS_MAX else None
    return [] if raw is None else list(struct.iter_unpack("<QQ", raw))
