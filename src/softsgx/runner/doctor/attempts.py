"""Tries what the supervisor needs from the kernel, with the calls that the supervisor makes."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from collections.abc import Callable, Sequence
from typing import Final

from softsgx.linux.madvise import MADV_REMOVE
from softsgx.linux.uapi import MAP_NORESERVE
from softsgx.runner.code.trapped import SYNCHRONOUS
from softsgx.runner.host import bpf, nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import (
    AT_SYSINFO_EHDR,
    AUDIT_ARCH_X86_64,
    IN_DELETE_SELF,
    PRIVATE_NOREPLACE,
    PRIVATE_NORESERVE,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_TRACE,
)
from softsgx.runner.host.filters import install
from softsgx.runner.host.memory_file import memory_file, shm_file
from softsgx.runner.host.native_code import MachineCode
from softsgx.runner.host.probes import Child, Refused, ended, killed_by_filter
from softsgx.runner.inserted.layout import END, GATE

_TRANSLATIONS: Final = 1 << 30  # what Unicorn 2.1 reserves for translated code
_DESCRIPTORS: Final = 64
FAILED: Final = 200  # exit codes from here on; those below are errno
_word: Final = ctypes.c_uint64(7)  # each child has a copy
ANSWER: Final = 4242
# mov eax, edi; int 0x80; ret
_INT80_CODE: Final = bytes.fromhex("89f8cd80c3")
# What EAX holds at ENCLU and CPUID, which `int 0x80` takes for numbers of i386 calls.
_ENCLU_LEAVES: Final = range(8)
_CPUID_LEAVES: Final = (0, 1, 7, 0xD, 0x12, 0x15, 0x80000000, 0x80000008)


def try_proc() -> None:
    """/proc is mounted, is that of this pid namespace, and the files of a child can be opened."""
    try:
        named = os.readlink("/proc/self")
    except OSError as error:
        raise Refused(f"/proc/self: {_said(error)}") from None
    if named != str(os.getpid()):
        where = "it belongs to another pid namespace"
        raise Refused(f"it shows this process as {named}, not {os.getpid()}: {where}")
    shared, other = os.pipe()
    path = f"/proc/{os.getpid()}/fd/{shared}"

    def body() -> int:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return error.errno or 255
        return _stopped()

    with Child(body) as child:
        status = child.wait(os.WUNTRACED)
        if os.WIFEXITED(status):
            why = os.strerror(os.WEXITSTATUS(status))
            raise Refused(f"{path} cannot be opened by a child: {why}")
        for name, mode in (("mem", os.O_RDWR), ("maps", os.O_RDONLY), ("status", os.O_RDONLY)):
            try:
                os.close(os.open(f"/proc/{child.pid}/{name}", mode | os.O_CLOEXEC))
                os.stat(f"/proc/{child.pid}/fd/{shared}")
            except OSError as error:
                raise Refused(f"/proc/PID/{name} of a child: {_said(error)}") from None
    os.close(shared)
    os.close(other)


def _stopped() -> int:
    os.kill(os.getpid(), signal.SIGSTOP)
    return 0


def try_ptrace() -> None:
    """Seize a child as the supervisor does, and make each request that it makes."""
    with _seized(_stopped) as child:
        tid = child.pid
        tried = False
        while os.WIFSTOPPED(status := child.wait()):
            if not tried:
                _requests(tid, status)
                tried = True
            p.request(p.PTRACE_CONT, tid)
        if status or not tried:
            raise Refused(f"a traced child ended with status {status:#x}")


def _requests(tid: int, status: int) -> None:
    regs = p.get_regs(tid)
    p.set_regs(tid, regs)
    p.set_fpregs(tid, p.get_fpregs(tid))
    p.set_xstate(tid, p.get_xstate(tid))
    p.set_sigmask(tid, p.get_sigmask(tid))
    p.queued_signals(tid)
    at = ctypes.addressof(_word)
    p.request(p.PTRACE_POKEDATA, tid, at, _word.value + 1)
    if p.request(p.PTRACE_PEEKDATA, tid, at) != _word.value + 1:
        raise Refused("what PTRACE_POKEDATA wrote is not in the child")
    if status >> 16 == p.EVENT_STOP:
        p.event_message(tid)
    else:
        p.set_siginfo(tid, p.get_siginfo(tid))


def _seized(body: Callable[[], int]) -> Child:
    """A child that runs `body`, which stops itself first, and is continued after that stop."""
    child = Child(body)
    try:
        status = child.wait(os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise Refused(f"a child that should stop ended with status {status:#x}")
        p.request(p.PTRACE_SEIZE, child.pid, 0, p.OPTIONS)
        # A seized child in a group stop is not in a ptrace stop until it has run once more.
        os.kill(child.pid, signal.SIGCONT)
    except BaseException:
        child.__exit__()
        raise
    return child


def _filter() -> bytes:
    """Hand getppid and all calls of i386 to the tracer."""
    program = bpf.Program()
    program.load(4)
    program.equal(AUDIT_ARCH_X86_64, no="trace")
    program.load(0)
    program.equal(nr.GETPPID, yes="trace")
    program.ret(SECCOMP_RET_ALLOW)
    program.label("trace")
    program.ret(SECCOMP_RET_TRACE)
    return program.assemble()


def _traced(body: Callable[[], int], by_prctl: bool) -> int:
    """Run `body` in a child under `_filter`, answer the calls that stop; the status of the child.

    `body` returns 0, or at least FAILED.
    """

    def filtered() -> int:
        _stopped()
        try:
            install(_filter(), by_prctl)
        except OSError as error:
            return error.errno or 255
        return body()

    with _seized(filtered) as child:
        while os.WIFSTOPPED(status := child.wait()):
            if status >> 16 == p.EVENT_SECCOMP:
                _answer(child.pid)
            fault = status >> 16 == 0 and os.WSTOPSIG(status) in SYNCHRONOUS
            p.request(p.PTRACE_CONT, child.pid, 0, os.WSTOPSIG(status) if fault else 0)
    if os.WIFEXITED(status) and 0 < os.WEXITSTATUS(status) < FAILED:
        raise Refused(f"installing a filter: {os.strerror(os.WEXITSTATUS(status))}")
    return status


def _answer(pid: int) -> None:
    """Skip the system call and return a number of our own."""
    registers = p.get_regs(pid)
    registers[p.ORIG_RAX] = p.MASK64
    registers[p.RAX] = ANSWER
    p.set_regs(pid, registers)


def try_filter(by_prctl: bool = False) -> None:
    """Let a filter hand a child's system call to the tracer, which answers in the kernel's place.

    What comes back is a number that no system call of the kernel would return here.
    """
    libc = ctypes.PyDLL(None)

    def body() -> int:
        return 0 if libc.syscall(nr.GETPPID) == ANSWER else FAILED

    status = _traced(body, by_prctl)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == FAILED:
        raise Refused("the tracer's answer did not arrive")
    if status:
        raise Refused(ended(status))


def try_int80(numbers: Sequence[int]) -> None:
    """Execute `int 0x80` with each number in EAX: each must stop for the tracer, even if another
    filter is in force."""
    code = MachineCode(_INT80_CODE, ctypes.c_uint32, ctypes.c_uint32)

    def body() -> int:
        for at, number in enumerate(numbers):
            if code.call(number) != ANSWER:
                return FAILED + at
        return 0

    try:
        status = _traced(body, by_prctl=False)
    except Refused:
        status = -1
    if status == -1 or killed_by_filter(status):
        status = _traced(body, by_prctl=True)
    if os.WIFSIGNALED(status):
        raise Refused(f"int 0x80 raises {signal.Signals(os.WTERMSIG(status)).name}")
    if status:
        number = numbers[os.WEXITSTATUS(status) - FAILED]
        raise Refused(f"int 0x80 with EAX = {number:#x} is answered by another filter")


def try_int80_enclu() -> None:
    """Try `int 0x80` with the numbers that EAX has when it replaces ENCLU."""
    try_int80(_ENCLU_LEAVES)


def try_int80_cpuid() -> None:
    """Try `int 0x80` with the numbers that EAX has when it replaces CPUID."""
    try_int80(_CPUID_LEAVES)


def try_filter_any() -> None:
    """As `try_filter`, with either call that can install a filter."""
    try:
        try_filter()
    except Refused:
        try_filter(by_prctl=True)


def try_memfd() -> None:
    """memfd_create makes files for EPC, mailboxes and device descriptors."""
    _try_file(memory_file("softsgx-doctor", os.MFD_ALLOW_SEALING))


def try_memory_file() -> None:
    """As `try_memfd`, but a file from /dev/shm will do."""
    try:
        _try_file(shm_file())
    except (Refused, OSError):
        try_memfd()


def _try_file(fd: int) -> None:
    try:
        os.ftruncate(fd, 1 << 46)
        with mmap.mmap(fd, mmap.PAGESIZE) as area:
            area[0] = 1
            area.madvise(MADV_REMOVE, 0, mmap.PAGESIZE)
            if area[0]:
                raise Refused("MADV_REMOVE leaves what was there")
    finally:
        os.close(fd)


def try_inotify() -> None:
    """inotify reports when nothing refers to a memory file any more."""
    libc = ctypes.PyDLL(None, use_errno=True)
    # A file of our own: adding a watch needs the right to read the file.
    try:
        file = shm_file()
    except OSError:
        file = memory_file("softsgx-doctor")
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if fd < 0:
            raise _failed("inotify_init1")
        if libc.inotify_add_watch(fd, b"/proc/self/fd/%d" % file, IN_DELETE_SELF) < 0:
            raise _failed("inotify_add_watch")
        os.close(file)
        event = os.read(fd, 4096)
        if int.from_bytes(event[4:8], "little") & IN_DELETE_SELF == 0:
            raise Refused(f"the end of a memory file is reported as {event.hex()}")
    finally:
        if fd >= 0:
            os.close(fd)


def try_writable_code() -> None:
    """Memory that is writable and executable, as the emulator needs for translated code."""
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def try_address_space() -> None:
    """The addresses of what is mapped into each process are free, and the emulator has room."""
    libc = ctypes.PyDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (*[ctypes.c_void_p] * 2, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    at = libc.mmap(GATE, END - GATE, mmap.PROT_READ, PRIVATE_NOREPLACE | MAP_NORESERVE, -1, 0)
    if at != GATE:
        raise _failed(f"mmap at {GATE:#x}")
    room = libc.mmap(None, _TRANSLATIONS, mmap.PROT_READ, PRIVATE_NORESERVE, -1, 0)
    if room == p.MASK64:
        raise _failed(f"{_TRANSLATIONS >> 20} MiB for the emulator")
    libc.munmap(room, _TRANSLATIONS)
    libc.munmap(at, END - GATE)


def try_descriptors() -> None:
    """Enough descriptors can be opened to load libraries while enclaves are open."""
    opened = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(_DESCRIPTORS)]
    for fd in opened:
        os.close(fd)


def try_vdso() -> None:
    """Processes have a vDSO, which the image with the SGX function replaces."""
    libc = ctypes.PyDLL(None)
    libc.getauxval.restype, libc.getauxval.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
    if not libc.getauxval(AT_SYSINFO_EHDR):
        raise Refused("the kernel gives none (vdso=0)")


def _failed(what: str) -> Refused:
    return Refused(f"{what}: {os.strerror(ctypes.get_errno())}")


def _said(error: OSError) -> str:
    return error.strerror or str(error)
