"""Child processes that try what may fail, and are gone afterwards.

An attempt returns, or raises `Refused` or OSError. `guarded` makes attempts in a child: a filter
may answer a call by ending the process. The attempts here concern the processor; attempts that
concern the kernel are in `doctor.attempts`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn

from softsgx.linux.uapi import MREMAP_MAYMOVE
from softsgx.runner.errors import RunnerError
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import ARCH_SET_CPUID, AT_HWCAP2
from softsgx.runner.host.memory_file import memory_file
from softsgx.runner.host.native_code import MachineCode

WAIT_S: Final = 5.0

Attempt = Callable[[], None]

_HWCAP2_FSGSBASE: Final = 1 << 1

# xor eax, eax; enclu; ret (EREPORT: its operands do not matter outside an enclave)
_ENCLU_CODE: Final = bytes.fromhex("31c00f01d7c3")
# push rbx; xor eax, eax; cpuid; pop rbx; ret
_CPUID_CODE: Final = bytes.fromhex("5331c00fa25bc3")
_RETURN: Final = b"\xc3"
# rdgsbase rcx; wrgsbase rdi; rdgsbase rax; wrgsbase rcx; ret
_GSBASE_CODE: Final = bytes.fromhex("f3480faec9 f3480faedf f3480faec8 f3480faed9 c3")


class Refused(Exception):
    """The kernel, or a limit of this process, refused an attempt; the text has the error."""


class Child:
    """A child process that runs only `body` and ends with its result."""

    def __init__(self, body: Callable[[], int]) -> None:
        self.ended = False
        self.pid = os.fork()
        if not self.pid:
            _be_child(body)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)
        while not self.ended:
            self._note(os.waitpid(self.pid, p.WALL)[1])

    def wait(self, options: int = 0, within_s: float = 0.0) -> int:
        """The next wait status; Refused if it does not come in time."""
        limit_s = within_s or WAIT_S
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            found, status = os.waitpid(self.pid, options | os.WNOHANG | p.WALL)
            if found:
                return self._note(status)
            time.sleep(0.0002)
        raise Refused(f"no answer from a child process in {limit_s:.0f} s")

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


def guarded(attempts: Sequence[Attempt]) -> list[str]:
    """Make all attempts in child processes; returns why each failed, "" if it did not.

    An attempt that does not end in time is made once more before it counts as failed.
    """
    found: list[str] = []
    hung: set[int] = set()
    while len(found) < len(attempts):
        read, write = os.pipe()
        os.set_blocking(read, False)  # a grandchild may still hold the other end
        rest = attempts[len(found) :]
        with Child(partial(_report, rest, write)) as child:
            os.close(write)
            try:
                why = ended(child.wait(within_s=WAIT_S * (1 + len(rest))))
                late = False
            except Refused as error:
                why, late = str(error), True
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with os.fdopen(read, encoding="utf-8", errors="replace") as answers:
            found += [line.rstrip("\n") for line in answers]
        number = len(found)
        if number < len(attempts):
            if late and number not in hung:
                hung.add(number)
                continue
            found.append(why)
    return found


def _report(attempts: Sequence[Attempt], write: int) -> int:
    os.setpgid(0, 0)
    for attempt in attempts:
        why = ""
        try:
            attempt()
        except Refused as error:
            why = str(error)
        except OSError as error:
            why = error.strerror or str(error)
        except RunnerError as error:
            why = str(error)
        os.write(write, (" ".join(why.split()) + "\n").encode())
    return 0


def killed_by_filter(status: int) -> bool:
    """Whether a seccomp filter ended the process."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS


def ended(status: int) -> str:
    """How a process ended, in words."""
    if killed_by_filter(status):
        return "a seccomp filter ends the process that tries (SIGSYS)"
    return f"the process that tried ended with status {status:#x}"


def enclu_answer() -> int:
    """The signal that ENCLU ends in here, outside of an enclave: SIGILL if there is no SGX.

    SIGSEGV on a processor that has SGX: in use, switched off, or hidden by a hypervisor.
    """
    code = MachineCode(_ENCLU_CODE, None)

    def body() -> int:
        code.call()
        return 0

    with Child(body) as child:
        status = child.wait()
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) not in (signal.SIGILL, signal.SIGSEGV):
        raise Refused(f"ENCLU ends a child process with status {status:#x}")
    return os.WTERMSIG(status)


def arch_prctl() -> Callable[[int, int], int]:
    """The system call arch_prctl; it returns 0, or -1 and sets errno."""
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    return lambda what, value: int(syscall(nr.ARCH_PRCTL, what, value))


def try_cpuid_faulting() -> None:
    """Have CPUID raise #GP, and execute it."""
    call = arch_prctl()
    code = MachineCode(_CPUID_CODE, None)

    def body() -> int:
        if call(ARCH_SET_CPUID, 0):
            return ctypes.get_errno()
        code.call()
        return 0

    with Child(body) as child:
        status = child.wait()
    if os.WIFEXITED(status):
        number = os.WEXITSTATUS(status)
        raise Refused(os.strerror(number) if number else "CPUID was not intercepted")
    if os.WTERMSIG(status) != signal.SIGSEGV:
        raise Refused(f"CPUID ends a child process with status {status:#x}")


def try_fsgsbase() -> None:
    """Write the GS base by WRGSBASE, and read it back."""
    libc = ctypes.PyDLL(None)
    libc.getauxval.restype, libc.getauxval.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
    if not libc.getauxval(AT_HWCAP2) & _HWCAP2_FSGSBASE:
        raise Refused("FSGSBASE is not enabled: Linux 5.9 or newer, without nofsgsbase")
    base = ctypes.addressof(ctypes.c_uint64())
    code = MachineCode(_GSBASE_CODE, ctypes.c_uint64, ctypes.c_uint64)
    if code.call(base) != base:
        raise Refused("the GS base is not what WRGSBASE wrote")


def try_native() -> None:
    """Try what the native engine needs besides ENCLU: FSGSBASE, and executable pages of a file.

    A page of a memory file is duplicated to another address, made executable, and executed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try_fsgsbase()
    fd = memory_file("softsgx-doctor")
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        os.pwrite(fd, _RETURN, 0)
        with Child(lambda: _execute_page(libc, fd)) as child:
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
    page = libc.mremap(window, 0, size, MREMAP_MAYMOVE)
    if page == failed:
        return 2
    if libc.mprotect(page, size, mmap.PROT_READ | mmap.PROT_EXEC):
        return 3
    ctypes.CFUNCTYPE(None)(page)()
    return 0
