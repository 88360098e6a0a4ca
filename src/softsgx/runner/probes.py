"""Child processes that try what the supervisor needs, for `doctor`. Each is gone afterwards."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import struct
import time
from collections.abc import Callable
from typing import Final, NoReturn

from softsgx.runner.native_code import MachineCode

WAIT_S: Final = 5.0
_WALL: Final = 0x40000000

PTRACE_CONT: Final = 7
PTRACE_GETREGS: Final = 12
PTRACE_SETREGS: Final = 13
PTRACE_SEIZE: Final = 0x4206
PTRACE_O_TRACESECCOMP: Final = 1 << 7
PTRACE_O_EXITKILL: Final = 1 << 20
PTRACE_EVENT_SECCOMP: Final = 7

PR_SET_SECCOMP: Final = 22
PR_SET_NO_NEW_PRIVS: Final = 38
SECCOMP_MODE_FILTER: Final = 2
SECCOMP_RET_TRACE: Final = 0x7FF00000
SECCOMP_RET_ALLOW: Final = 0x7FFF0000
_LOAD_NR: Final = (0x20, 0, 0, 0)  # BPF_LD | BPF_W | BPF_ABS, seccomp_data.nr
_SYS_GETPPID: Final = 110
_ANSWER: Final = 4242
# The order of struct user_regs_struct: R15 first, RAX is number 10, orig_rax number 15.
_REGISTERS: Final = 27
_RAX: Final = 10
_RIP: Final = 16
_ORIG_RAX: Final = 15

_SYS_ARCH_PRCTL: Final = 158
ARCH_SET_CPUID: Final = 0x1012
_AT_HWCAP2: Final = 26
_HWCAP2_FSGSBASE: Final = 1 << 1
_MREMAP_MAYMOVE: Final = 1

# xor eax, eax; enclu; ret (EREPORT: what it points to does not matter outside of an enclave)
_ENCLU_CODE: Final = bytes.fromhex("31c00f01d7c3")
# push rbx; xor eax, eax; cpuid; pop rbx; ret
_CPUID_CODE: Final = bytes.fromhex("5331c00fa25bc3")
_RETURN: Final = b"\xc3"
# mov eax, 20 (getpid of i386); int 0x80; ret
_INT80_CODE: Final = bytes.fromhex("b814000000cd80c3")


class Refused(Exception):
    """The kernel, or who set limits for this process, refuses. The text says what and how."""


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    libc.syscall.restype = ctypes.c_long
    return libc


def _check(result: int, what: str) -> None:
    if result < 0:
        raise Refused(f"{what}: {os.strerror(ctypes.get_errno())}")


class _Child:
    """A child that ends with what `body` returns, and runs nothing else of this process."""

    def __init__(self, body: Callable[[], int]) -> None:
        self.ended = False
        self.pid = os.fork()
        if not self.pid:
            _be_child(body)

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)
        while not self.ended:
            self._note(os.waitpid(self.pid, _WALL)[1])

    def wait(self, options: int = 0) -> int:
        """The next status, which must come soon."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            found, status = os.waitpid(self.pid, options | os.WNOHANG | _WALL)
            if found:
                return self._note(status)
            time.sleep(0.0005)
        raise Refused(f"no answer from a child process in {WAIT_S:.0f} s")

    def _note(self, status: int) -> int:
        self.ended = os.WIFEXITED(status) or os.WIFSIGNALED(status)
        return status


def _be_child(body: Callable[[], int]) -> NoReturn:
    try:
        for number in (signal.SIGSEGV, signal.SIGSYS, signal.SIGILL):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os._exit(body())
    finally:
        os._exit(255)


def try_ptrace() -> None:
    """Attach to a child with PTRACE_SEIZE, as the supervisor does, and read its registers."""
    libc = _libc()

    def body() -> int:
        os.kill(os.getpid(), signal.SIGSTOP)
        return 0

    with _Child(body) as child:
        _seize(libc, child)
        registers = (ctypes.c_uint64 * _REGISTERS)()
        # A seized child in a group stop is not in a ptrace stop until it has run once more.
        os.kill(child.pid, signal.SIGCONT)
        while os.WIFSTOPPED(status := child.wait()):
            _check(libc.ptrace(PTRACE_GETREGS, child.pid, None, registers), "PTRACE_GETREGS")
            _check(libc.ptrace(PTRACE_CONT, child.pid, None, None), "PTRACE_CONT")
        if status or not registers[_RIP]:
            raise Refused(f"a traced child ended with status {status:#x}")


def _seize(libc: ctypes.CDLL, child: _Child) -> None:
    """Attach to a child that stops itself first."""
    status = child.wait(os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        raise Refused(f"a child that should stop ended with status {status:#x}")
    options = PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL
    _check(libc.ptrace(PTRACE_SEIZE, child.pid, None, options), "PTRACE_SEIZE")


def try_seccomp_trace() -> None:
    """Let a filter hand a child's system call to the tracer, which answers in the kernel's place.

    What comes back is a number that no system call of the kernel would return here.
    """
    libc = _libc()
    equal = (0x15, 0, 1, _SYS_GETPPID)  # BPF_JMP | BPF_JEQ | BPF_K: else skip one
    rows = (_LOAD_NR, equal, (6, 0, 0, SECCOMP_RET_TRACE), (6, 0, 0, SECCOMP_RET_ALLOW))
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *row) for row in rows))
    fprog = struct.pack("<HxxxxxxQ", len(rows), ctypes.addressof(program))
    filter_ = ctypes.create_string_buffer(fprog)

    def body() -> int:
        os.kill(os.getpid(), signal.SIGSTOP)
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            return 100
        if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(filter_), 0, 0):
            return 101
        return 0 if libc.syscall(_SYS_GETPPID) == _ANSWER else 102

    with _Child(body) as child:
        _seize(libc, child)
        os.kill(child.pid, signal.SIGCONT)
        while os.WIFSTOPPED(status := child.wait()):
            if status >> 16 == PTRACE_EVENT_SECCOMP:
                _answer(libc, child.pid)
            _check(libc.ptrace(PTRACE_CONT, child.pid, None, None), "PTRACE_CONT")
        _explain(status)


def _answer(libc: ctypes.CDLL, pid: int) -> None:
    """Skip the system call and return a number of our own."""
    registers = (ctypes.c_uint64 * _REGISTERS)()
    _check(libc.ptrace(PTRACE_GETREGS, pid, None, registers), "PTRACE_GETREGS")
    registers[_ORIG_RAX] = (1 << 64) - 1
    registers[_RAX] = _ANSWER
    _check(libc.ptrace(PTRACE_SETREGS, pid, None, registers), "PTRACE_SETREGS")


def _explain(status: int) -> None:
    steps = {100: "NO_NEW_PRIVS is refused", 101: "installing a filter is refused"}
    steps[102] = "the tracer's answer did not arrive"
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) in steps:
        raise Refused(steps[os.WEXITSTATUS(status)])
    if status:
        raise Refused(f"a filtered child ended with status {status:#x}")


def try_int80() -> None:
    """Execute `int 0x80` with getpid of i386."""
    code = MachineCode(_INT80_CODE, ctypes.c_int)
    with _Child(lambda: 0 if code.call() == os.getpid() else 1) as child:
        status = child.wait()
        if os.WIFSIGNALED(status):
            raise Refused(f"int 0x80 raises {signal.Signals(os.WTERMSIG(status)).name}")
        if status:
            raise Refused("int 0x80 does not reach the system calls of i386")


def enclu_answer() -> int:
    """The signal that ENCLU ends in here, outside of an enclave: SIGILL if there is no SGX.

    SIGSEGV on a processor that has it, in use, switched off, or hidden by a hypervisor.
    """
    code = MachineCode(_ENCLU_CODE, None)

    def body() -> int:
        code.call()
        return 0

    with _Child(body) as child:
        status = child.wait()
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) not in (signal.SIGILL, signal.SIGSEGV):
        raise Refused(f"ENCLU ends a child process with status {status:#x}")
    return os.WTERMSIG(status)


def try_cpuid_faulting() -> None:
    """Make CPUID raise #GP, and execute one."""
    libc = _libc()
    code = MachineCode(_CPUID_CODE, None)

    def body() -> int:
        if libc.syscall(_SYS_ARCH_PRCTL, ARCH_SET_CPUID, 0):
            return ctypes.get_errno()
        code.call()
        return 0

    with _Child(body) as child:
        status = child.wait()
    if os.WIFEXITED(status):
        number = os.WEXITSTATUS(status)
        raise Refused(os.strerror(number) if number else "CPUID is executed all the same")
    if os.WTERMSIG(status) != signal.SIGSEGV:
        raise Refused(f"CPUID ends a child process with status {status:#x}")


def try_native() -> None:
    """What the native engine asks of the machine beside ENCLU: FSGSBASE, and pages of EPC.

    A page of a memory file is duplicated to another address, made executable, and executed.
    """
    libc = _libc()
    libc.getauxval.restype, libc.getauxval.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
    if not libc.getauxval(_AT_HWCAP2) & _HWCAP2_FSGSBASE:
        raise Refused("FSGSBASE is not enabled: Linux 5.9 or newer, without nofsgsbase")
    fd = os.memfd_create("softsgx-doctor")
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        os.pwrite(fd, _RETURN, 0)
        with _Child(lambda: _execute_page(libc, fd)) as child:
            status = child.wait()
    finally:
        os.close(fd)
    if status:
        steps = {1: "mmap", 2: "mremap", 3: "mprotect"}
        step = steps.get(os.WEXITSTATUS(status), "execution")
        raise Refused(f"memory files cannot be executed: {step} (status {status:#x})")


def _execute_page(libc: ctypes.CDLL, fd: int) -> int:
    """0, or the number of the step that was refused."""
    size, failed = mmap.PAGESIZE, ctypes.c_void_p(-1).value
    for name, *arguments in (
        ("mmap", ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long),
        ("mremap", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int),
    ):
        function = getattr(libc, str(name))
        function.restype, function.argtypes = ctypes.c_void_p, tuple(arguments)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    window = libc.mmap(None, size, 0, mmap.MAP_SHARED, fd, 0)
    if window == failed:
        return 1
    page = libc.mremap(window, 0, size, _MREMAP_MAYMOVE)
    if page == failed:
        return 2
    if libc.mprotect(page, size, mmap.PROT_READ | mmap.PROT_EXEC):
        return 3
    ctypes.CFUNCTYPE(None)(page)()
    return 0
