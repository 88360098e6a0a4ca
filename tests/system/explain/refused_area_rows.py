"""More of `refused_rows`: descriptors, areas, madvise, the vDSO, and accesses of a debugger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from softsgx.cpu import Part
from softsgx.linux import mlock, syscalls, uapi
from softsgx.linux.char_device import open_flags
from softsgx.linux.madvise import MADV_DONTNEED, MADV_HWPOISON, MADV_NORMAL, MADV_REMOVE
from softsgx.linux.mm import TASK_SIZE
from softsgx.linux.process import RLIMIT_NOFILE
from softsgx.linux.trace import refused_call
from softsgx.linux.uapi import SgxEnclaveRun
from softsgx.linux.vdso import sgx_enter_enclave
from softsgx.linux.vfs import O_DIRECTORY, O_RDONLY, O_RDWR, O_WRONLY
from softsgx.sim import Steps
from softsgx.spec.attributes import ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W, X
from softsgx.system import EnclaveThread, Machine, load
from softsgx.system.loader import default_image
from tests.linux.world import World
from tests.system.explain.refused_rows import Follow, Row, machine, running

AREA_ROWS: Final[dict[str, Row]] = {}
SHARED: Final = uapi.MAP_SHARED
FIXED: Final = uapi.MAP_SHARED | uapi.MAP_FIXED
MAYMOVE, REMAP_FIXED, DONTUNMAP = 1, 2, 4

Call = Callable[[World], Any]


def row(rule: str, wrong: Call, right: Call, **options: Any) -> None:
    """A call, and the one that the explanation advises, on a machine with an enclave."""

    def provoked() -> tuple[Machine, Any, Follow]:
        w = running(**options)
        return w.machine, wrong(w), lambda: right(w)

    assert rule not in AREA_ROWS, rule
    AREA_ROWS[rule] = provoked


def opened(w: World, path: str = syscalls.SGX_ENCLAVE, mode: int = O_RDWR) -> int:
    fd: int = w.do(syscalls.sys_open(w.host.thread, path, mode))
    return fd


def mapped(w: World, address: int = 0, length: int = PAGE_SIZE, **other: Any) -> Any:
    """mmap of a new enclave, or of `other`."""
    prot, flags = other.get("prot", R | W), other.get("flags", SHARED)
    fd = other["fd"] if "fd" in other else opened(w)
    return w.do(w.host.mmap(address, length, prot, flags, fd, other.get("offset", 0)))


def data(w: World) -> int:
    address: int = w.enclave.data[0]
    return address


def again(w: World) -> Any:
    return w.protect(data(w), R)


# Descriptors

row("path_openat.name", lambda w: w.do(w.host.open("/dev/sgx")), opened)
row("fget.fd", lambda w: w.do(w.host.close(77)), lambda w: w.do(w.host.close(w.enclave.fd)))


def _no_nodes() -> tuple[Machine, Any, Follow]:
    m = machine(part=Part(launch_control=False))
    other = machine()
    return m, m.run(m.thread().open()), lambda: other.run(other.thread().open())


AREA_ROWS["sgx_drv_init.launch_control"] = _no_nodes


def _too_many(w: World) -> Any:
    fds = [w.do(w.host.open()) for _ in range(RLIMIT_NOFILE)]
    return next(fd for fd in fds if fd < 0)


row("alloc_fd.limit", _too_many, lambda w: w.do(w.host.close(10)) or opened(w))
row(
    "fget.mode",
    lambda w: w.do(syscalls.sys_read_write(w.host.thread, opened(w, mode=O_WRONLY), write=False)),
    mapped,
)
row("sgx_encl_fops.operation", lambda w: w.do(w.host.read(w.enclave.fd)), mapped)


def _directory(w: World) -> Any:
    """As `runner` opens it."""
    errno = -open_flags(O_DIRECTORY)
    return refused_call(w.host.thread, "open", errno, "build_open_flags.flags")


row("build_open_flags.flags", _directory, lambda w: open_flags(O_RDWR) and opened(w))

# mmap

row("sys_mmap.offset", lambda w: mapped(w, offset=1), mapped)
row("do_mmap.length", lambda w: mapped(w, length=0), mapped)
row(
    "do_mmap.noreplace",
    lambda w: mapped(w, data(w), flags=SHARED | uapi.MAP_FIXED_NOREPLACE),
    lambda w: mapped(w, data(w), flags=FIXED, fd=w.enclave.fd),
)
row("do_mmap.type", lambda w: mapped(w, flags=0), mapped)
row(
    "do_mmap.flags",
    lambda w: mapped(w, flags=uapi.MAP_SHARED_VALIDATE | 0x80000),
    mapped,
)
row("do_mmap.write", lambda w: mapped(w, fd=opened(w, mode=O_RDONLY)), mapped)
row("do_mmap.read", lambda w: mapped(w, prot=W, fd=opened(w, mode=O_WRONLY)), mapped)
row("do_mmap.no_mmap", lambda w: mapped(w, fd=opened(w, syscalls.SGX_PROVISION)), mapped)
row("ksys_mmap_pgoff.hugetlb", lambda w: mapped(w, flags=SHARED | uapi.MAP_HUGETLB), mapped)
row("do_mmap.growsdown", lambda w: mapped(w, flags=SHARED | uapi.MAP_GROWSDOWN), mapped)
row("__get_unmapped_area.length", lambda w: mapped(w, length=1 << 48), mapped)
row("__get_unmapped_area.end", lambda w: mapped(w, TASK_SIZE, flags=FIXED), mapped)
row("vm_unmapped_area.space", lambda w: mapped(w, length=TASK_SIZE), mapped)
row(
    "__get_unmapped_area.aligned",
    lambda w: mapped(w, data(w) + 8, flags=FIXED, fd=w.enclave.fd),
    lambda w: mapped(w, data(w), flags=FIXED, fd=w.enclave.fd),
)
row(
    "security_mmap_addr.low",
    lambda w: mapped(w, 0x1000, flags=FIXED),
    lambda w: mapped(w, 0x10000, flags=FIXED),
)
row("sgx_get_unmapped_area.private", lambda w: mapped(w, flags=uapi.MAP_PRIVATE), mapped)


def _limited(wrong: Call) -> Call:
    """With no room for another area; when advised, there is room again."""

    def call(w: World) -> Any:
        w.mm.max_map_count = len(w.mm.vmas) - 1
        result = wrong(w)
        w.mm.max_map_count = 65530
        return result

    return call


row("do_mmap.map_count", _limited(mapped), mapped)


def _middle(w: World) -> Any:
    return w.protect(w.enclave.data[1], R)


row("split_vma.map_count", _limited(_middle), _middle, pages=3)


def _noexec(w: World) -> Any:
    w.kernel.dev_noexec = True
    return mapped(w, prot=R | X)


row("do_mmap.noexec", _noexec, mapped)

# munmap, mprotect, mremap

row(
    "do_vmi_munmap.range",
    lambda w: w.do(w.host.munmap(data(w) + 1, PAGE_SIZE)),
    lambda w: w.do(w.host.munmap(data(w), PAGE_SIZE)),
)
row("do_mprotect_pkey.aligned", lambda w: w.protect(data(w) + 1, R), again)
row("do_mprotect_pkey.end", lambda w: w.protect(data(w), R, 1 << 64), again)
row("do_mprotect_pkey.prot", lambda w: w.protect(data(w), R | 0x100), again)
row(
    "do_mprotect_pkey.pkey",
    lambda w: w.do(syscalls.sys_pkey_mprotect(w.host.thread, data(w), PAGE_SIZE, R, 3)),
    lambda w: w.do(syscalls.sys_pkey_mprotect(w.host.thread, data(w), PAGE_SIZE, R, -1)),
)
HOLE: Final = 0x2000_0000
row(
    "do_mprotect_pkey.hole",
    lambda w: w.protect(HOLE, R),
    lambda w: mapped(w, HOLE, flags=FIXED) and w.protect(HOLE, R),
)


def _mapped_for_reading(w: World) -> Any:
    at = mapped(w, prot=R, fd=opened(w, mode=O_RDONLY))
    return w.protect(at, R | W)


row("mprotect_fixup.may", _mapped_for_reading, lambda w: w.protect(mapped(w, prot=R), R | W))


def remapped(w: World, flags: int = MAYMOVE | REMAP_FIXED, **other: int) -> Any:
    old, size = other.get("old", data(w)), other.get("old_length", PAGE_SIZE)
    new_size, new = other.get("new_length", PAGE_SIZE), other.get("new", HOLE)
    return w.do(w.host.mremap(old, size, new_size, flags, new))


row("sys_mremap.flags", lambda w: remapped(w, 0x40), remapped)
row("sys_mremap.maymove", lambda w: remapped(w, REMAP_FIXED), remapped)
row(
    "sys_mremap.dontunmap",
    lambda w: remapped(w, MAYMOVE | DONTUNMAP, new_length=2 * PAGE_SIZE),
    remapped,
)
row("sys_mremap.aligned", lambda w: remapped(w, old=data(w) + 1), remapped)
row(
    "sys_mremap.new_length",
    lambda w: remapped(w, new_length=0),
    lambda w: w.do(w.host.munmap(data(w), PAGE_SIZE)),
)
row("mremap_to.range", lambda w: remapped(w, new=HOLE + 1), remapped)
row("mremap_to.overlap", lambda w: remapped(w, new=data(w)), remapped)
row("mremap_to.map_count", _limited(remapped), remapped)
row(
    "vma_to_resize.hole",
    lambda w: remapped(w, old=HOLE),
    lambda w: mapped(w, HOLE, flags=FIXED) and remapped(w, old=HOLE, new=2 * HOLE),
)
row("vma_to_resize.dontunmap", lambda w: remapped(w, MAYMOVE | DONTUNMAP), remapped)
row(
    "vma_to_resize.beyond",
    lambda w: remapped(w, old_length=1 << 30, new_length=1 << 30),
    remapped,
)
row(
    "vma_to_resize.grow",
    lambda w: remapped(w, MAYMOVE, new_length=2 * PAGE_SIZE),
    lambda w: mapped(w, data(w), 2 * PAGE_SIZE, flags=FIXED, prot=R, fd=w.enclave.fd),
)


def _private(w: World) -> Any:
    at = w.do(w.host.alloc(PAGE_SIZE))
    return remapped(w, old=at, old_length=0)


row(
    "vma_to_resize.private",
    _private,
    lambda w: remapped(w, old=w.do(w.host.alloc(PAGE_SIZE))),
)
row(
    "sgx_encl_may_map.range",
    lambda w: mapped(w, HOLE, flags=FIXED, fd=w.enclave.fd),
    lambda w: mapped(w, data(w), flags=FIXED, fd=w.enclave.fd),
)


def _touched_for_x(w: World) -> Any:
    w.do(w.host.load(w.enclave.heap, 1))
    assert w.call(lambda t: t.accept_new(w.enclave.heap)) == 0
    return w.protect(w.enclave.heap, RWX)


row("sgx_encl_may_map.cap", lambda w: w.protect(data(w), RWX), _touched_for_x)


def _read_implies_exec(w: World) -> Any:
    w.mm.read_implies_exec = True
    result = again(w)
    w.mm.read_implies_exec = False
    return result


row("sgx_encl_may_map.personality", _read_implies_exec, again)


def _first_mapping_with_a_signal() -> tuple[Machine, Any, Follow]:
    m = machine()
    host = m.thread()
    w = World(m, host, m.run(load(host, default_image())))
    child = m.thread(m.process("other"), 1)
    fd = m.run(child.open(), cpu=1)
    child.thread.pending_signals = 1
    result = m.run(child.mmap(0, PAGE_SIZE, R, SHARED, fd), cpu=1)
    child.thread.pending_signals = 0
    assert w.machine is m
    return m, result, lambda: m.run(child.mmap(0, PAGE_SIZE, R, SHARED, fd), cpu=1)


AREA_ROWS["sgx_encl_mm_add.signal"] = _first_mapping_with_a_signal

# madvise and mlock


def advised(w: World, advice: int = MADV_NORMAL, **other: int) -> Any:
    return w.do(w.host.madvise(other.get("at", data(w)), other.get("length", PAGE_SIZE), advice))


row("do_madvise.advice", lambda w: advised(w, 77), advised)
row("do_madvise.aligned", lambda w: advised(w, at=data(w) + 1), advised)
row("do_madvise.end", lambda w: advised(w, length=1 << 64), advised)
row("do_madvise.hole", lambda w: advised(w, at=HOLE), advised)
row("madvise_vma_behavior.advice", lambda w: advised(w, MADV_DONTNEED), advised)


def _removed_of_a_reader(w: World) -> Any:
    at = mapped(w, prot=R, fd=opened(w, mode=O_RDONLY))
    return advised(w, MADV_REMOVE, at=at)


row("madvise_remove.write", _removed_of_a_reader, advised)


def _as_runner(name: str, errno: int, rule: str) -> Call:
    """What only a real process has: limits and capabilities."""
    return lambda w: refused_call(w.host.thread, name, errno, rule, length=PAGE_SIZE)


row(
    "madvise_inject_error.superuser",
    _as_runner("madvise", 1, "madvise_inject_error.superuser"),
    lambda w: MADV_HWPOISON,
)
row("do_mlock.limit", _as_runner("mlock", 12, "do_mlock.limit"), advised)


def locked(w: World, at: int = 0, length: int = PAGE_SIZE) -> Any:
    return w.do(mlock.sys_mlock(w.host.thread, at or data(w), length))


row(
    "sys_mlock2.flags",
    lambda w: w.do(mlock.sys_mlock2(w.host.thread, data(w), PAGE_SIZE, 6)),
    lambda w: w.do(mlock.sys_mlock2(w.host.thread, data(w), PAGE_SIZE, 1)),
)
row(
    "sys_mlockall.flags",
    lambda w: w.do(mlock.sys_mlockall(w.host.thread, 4)),
    lambda w: w.do(mlock.sys_mlockall(w.host.thread, 5)),
)
row("do_mlock.end", lambda w: locked(w, length=(1 << 64) - PAGE_SIZE), locked)
row("apply_vma_lock_flags.hole", lambda w: locked(w, HOLE), locked)


def synced(w: World, flags: int = mlock.MS_ASYNC, at: int = 0) -> Any:
    return w.do(mlock.sys_msync(w.host.thread, at or data(w), PAGE_SIZE, flags))


row("sys_msync.flags", lambda w: synced(w, 5), synced)
row("sys_msync.aligned", lambda w: synced(w, at=data(w) + 1), synced)
row("sys_msync.hole", lambda w: synced(w, at=HOLE), synced)
row("vfs_fsync_range.none", lambda w: synced(w, mlock.MS_SYNC), synced)

# The vDSO


def entered(w: World, function: int, **reserved: int) -> Any:
    run = SgxEnclaveRun(tcs=w.enclave.tcs[0])
    if reserved:
        run.reserved = bytes([1]) + bytes(len(run.reserved) - 1)

    def leave(_t: EnclaveThread) -> Steps[None]:
        return
        yield

    entry = w.enclave.entry(leave)
    return w.do(sgx_enter_enclave(w.host.thread, function, run, entry.enter))


# A debugger


def debugged(w: World, address: int, word: int | None = None) -> Any:
    debugger = w.machine.thread(cpu=3, name="debugger")
    tracee = w.host.process
    try:
        if word is not None:
            return w.do(debugger.poke(tracee, address, word))
        found = w.do(debugger.peek(tracee, address))
        return found if found < 0 else 0
    finally:
        debugger.thread.switch_out()


row("access_process_vm.hole", lambda w: debugged(w, HOLE), lambda w: debugged(w, data(w)))
row(
    "sgx_vma_access.EDBGRD",
    lambda w: debugged(w, w.enclave.tcs[0] + 2048),
    lambda w: debugged(w, w.enclave.tcs[0]),
)
row(
    "sgx_vma_access.EDBGWR",
    lambda w: debugged(w, w.enclave.tcs[0] + 16, 1),
    lambda w: debugged(w, w.enclave.tcs[0] + 8, 0),
)


def _cap(w: World) -> Any:
    vma = w.mm.vma_lookup(data(w))
    assert vma is not None
    before, vma.flags = vma.flags, RWX
    result = debugged(w, data(w))
    vma.flags = before
    return result


row("sgx_encl_load_page_in_vma.cap", _cap, lambda w: debugged(w, data(w)))
row(
    "sgx_encl_load_page_in_vma.absent",
    lambda w: debugged(w, w.enclave.heap),
    lambda w: debugged(w, data(w)),
)


def _unregistered(w: World) -> Any:
    vma = w.mm.vma_lookup(data(w))
    assert vma is not None
    encl, vma.encl = vma.encl, None
    result = debugged(w, data(w))
    vma.encl = encl
    return result


row("sgx_vma_access.unregistered", _unregistered, lambda w: debugged(w, data(w)))


def _production() -> tuple[Machine, Any, Follow]:
    m = machine()
    host = m.thread()
    image = replace(default_image(), attributes=ATTR_MODE64BIT)
    w, good = World(m, host, m.run(load(host, image))), running()
    return m, debugged(w, data(w)), lambda: debugged(good, data(good))


AREA_ROWS["sgx_vma_access.production"] = _production


def _read_by_vm(w: World, address: int) -> Any:
    found = w.do(w.host.process_vm_readv(w.host.process, address, 8))
    return found if isinstance(found, int) else len(found)


row(
    "process_vm_rw.pages",
    lambda w: _read_by_vm(w, data(w)),
    lambda w: debugged(w, data(w)),
)


def _gone(call: Callable[[World, World], Any]) -> Callable[[], tuple[Machine, Any, Follow]]:
    def provoked() -> tuple[Machine, Any, Follow]:
        w = running()
        other = w.machine.thread(w.machine.process("other"), 1)
        gone = other.process
        w.machine.run(other.exit(), cpu=1)
        return w.machine, call(w, gone), lambda: debugged(w, data(w))  # type: ignore[arg-type]

    return provoked


def _peek_gone(w: World, gone: Any) -> Any:
    return w.do(w.host.peek(gone, 0x1000))


def _readv_gone(w: World, gone: Any) -> Any:
    return w.do(w.host.process_vm_readv(gone, 0x1000, 8))


AREA_ROWS["access_process_vm.exited"] = _gone(_peek_gone)
AREA_ROWS["process_vm_rw.exited"] = _gone(_readv_gone)
row("__vdso_sgx_enter_enclave.function", lambda w: entered(w, 7), lambda w: entered(w, 2))
row(
    "__vdso_sgx_enter_enclave.reserved",
    lambda w: entered(w, 2, reserved=1),
    lambda w: entered(w, 2),
)
