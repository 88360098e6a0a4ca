"""Memory of another process by the calls and by /proc/PID/mem, which must give the same."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from softsgx.runner.host import process_memory as m
from softsgx.runner.ways import WAYS

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


@pytest.fixture(params=[False, True], ids=["calls", "file"])
def by_file(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WAYS, "memory_by_file", request.param)


@contextmanager
def child(size: int = 4 * PAGE) -> Iterator[tuple[int, int]]:
    """A child that waits, and an address: pages rw-, r--, ---, rw- of private memory."""
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area[:] = b"".join(bytes([65 + n]) * PAGE for n in range(size // PAGE))
    held = ctypes.c_char.from_buffer(area)
    address = ctypes.addressof(held)
    pid = os.fork()
    if not pid:
        signal.pause()
        os._exit(0)
    try:
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        yield pid, address
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        _libc.mprotect(address, size, 3)
        del held
        area.close()


@pytest.mark.usefixtures("by_file")
def test_rights_of_the_areas_count() -> None:
    with child() as (_, address):
        assert _libc.mprotect(address + PAGE, PAGE, 1) == 0
        assert _libc.mprotect(address + 2 * PAGE, PAGE, 0) == 0
        me = os.getpid()
        assert m.read_memory(me, address + PAGE - 2, 4) == b"AABB"
        assert m.read_memory(me, address + 2 * PAGE - 2, 4) is None
        assert m.read_memory(me, address + 2 * PAGE, 1) is None
        assert m.write_memory(me, address, b"xy")
        assert not m.write_memory(me, address + PAGE, b"x")
        assert not m.write_memory(me, address + 2 * PAGE, b"x")
        assert m.write_memory(me, address + 3 * PAGE, b"z")
        assert m.read_memory(me, address, 3) == b"xyA"
        assert m.read_memory(me, address + 3 * PAGE, 2) == b"zD"


@pytest.mark.usefixtures("by_file")
def test_another_process() -> None:
    with child() as (pid, address):
        assert m.write_memory(pid, address + PAGE - 1, b"12")
        assert m.read_memory(pid, address + PAGE - 2, 4) == b"A12B"
        assert m.read_memory(os.getpid(), address + PAGE - 2, 4) == b"AABB"


@pytest.mark.usefixtures("by_file")
@pytest.mark.parametrize("address", [0, 8, (1 << 47) - 4, 1 << 47, 1 << 62, 1 << 63, (1 << 64) - 8])
def test_where_nothing_is(address: int) -> None:
    assert m.read_memory(os.getpid(), address, 8) is None
    assert not m.write_memory(os.getpid(), address, b"12345678")


@pytest.mark.usefixtures("by_file")
def test_process_that_has_exited() -> None:
    with child() as (pid, address):
        pass
    assert m.read_memory(pid, address, 8) is None
    assert not m.write_memory(pid, address, b"12345678")


@pytest.mark.usefixtures("by_file")
def test_pages_behind_the_end_of_a_file() -> None:
    fd = os.memfd_create("short")
    os.ftruncate(fd, PAGE)
    with mmap.mmap(fd, PAGE) as area:
        os.ftruncate(fd, 0)
        held = ctypes.c_char.from_buffer(area)
        assert m.read_memory(os.getpid(), ctypes.addressof(held), 8) is None
        assert not m.write_memory(os.getpid(), ctypes.addressof(held), b"12345678")
        del held
    os.close(fd)


@pytest.mark.parametrize("refused", [errno.EPERM, errno.ENOSYS])
def test_refused_calls_lead_to_the_file(refused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault does not; nor does a process that cannot be reached at all."""

    def deny(*_: object) -> int:
        ctypes.set_errno(refused)
        return -1

    word = ctypes.c_uint64(5)
    address = ctypes.addressof(word)
    monkeypatch.setattr(WAYS, "memory_by_file", False)
    assert m.read_memory(os.getpid(), 8, 8) is None
    assert not WAYS.memory_by_file
    with monkeypatch.context() as denied:
        denied.setattr(m, "_syscall", deny)
        with pytest.raises(OSError, match=os.strerror(refused)):
            m.try_vm_calls()
        assert m.write_memory(os.getpid(), address, b"\6")
        assert WAYS.memory_by_file
        assert m.read_memory(os.getpid(), address, 8) == b"\6" + bytes(7)
    m.try_vm_calls()
