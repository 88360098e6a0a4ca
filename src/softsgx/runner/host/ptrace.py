"""ptrace(2) and waiting, by ctypes. man 2 ptrace.

Only the thread that seized a tracee may make requests; all calls here keep the GIL (PyDLL), since
none of them blocks for long.

A thread that nobody traces can be held by code in its own process, which then answers the same
requests (`Held`). So the rest of the runner need not know how a thread is stopped.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from typing import Final, NamedTuple

from softsgx.runner.host import nr
from softsgx.runner.host.abi import AUDIT_ARCH_X86_64
from softsgx.runner.host.not_traced import HELD as HELD
from softsgx.runner.host.not_traced import Held as Held
from softsgx.runner.host.process_memory import read_into as read_into
from softsgx.runner.host.process_memory import read_memory as read_memory
from softsgx.runner.host.process_memory import write_memory as write_memory
from softsgx.spec.bits import MASK32
from softsgx.spec.bits import MASK64 as MASK64

_libc = ctypes.PyDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

PTRACE_TRACEME: Final = 0
PTRACE_PEEKDATA: Final = 2
PTRACE_POKEDATA: Final = 5
PTRACE_CONT: Final = 7
PTRACE_SINGLESTEP: Final = 9
PTRACE_GETREGS: Final = 12
PTRACE_SETREGS: Final = 13
PTRACE_GETFPREGS: Final = 14
PTRACE_SETFPREGS: Final = 15
PTRACE_ATTACH: Final = 16
PTRACE_DETACH: Final = 17
PTRACE_SYSCALL: Final = 24
PTRACE_GETEVENTMSG: Final = 0x4201
PTRACE_GETSIGINFO: Final = 0x4202
PTRACE_SETSIGINFO: Final = 0x4203
PTRACE_GETREGSET: Final = 0x4204
PTRACE_SETREGSET: Final = 0x4205
PTRACE_SEIZE: Final = 0x4206
PTRACE_INTERRUPT: Final = 0x4207
PTRACE_LISTEN: Final = 0x4208
PTRACE_PEEKSIGINFO: Final = 0x4209
PTRACE_GETSIGMASK: Final = 0x420A
PTRACE_SETSIGMASK: Final = 0x420B
PTRACE_GET_SYSCALL_INFO: Final = 0x420E

_NAMES: Final = {value: name for name, value in globals().items() if name.startswith("PTRACE_")}

PTRACE_O_TRACESYSGOOD: Final = 1 << 0
PTRACE_O_TRACEFORK: Final = 1 << 1
PTRACE_O_TRACEVFORK: Final = 1 << 2
PTRACE_O_TRACECLONE: Final = 1 << 3
PTRACE_O_TRACEEXEC: Final = 1 << 4
PTRACE_O_TRACESECCOMP: Final = 1 << 7
PTRACE_O_EXITKILL: Final = 1 << 20
OPTIONS: Final = (
    PTRACE_O_TRACESYSGOOD
    | PTRACE_O_TRACEFORK
    | PTRACE_O_TRACEVFORK
    | PTRACE_O_TRACECLONE
    | PTRACE_O_TRACEEXEC
    | PTRACE_O_TRACESECCOMP
    | PTRACE_O_EXITKILL
)

EVENT_FORK: Final = 1
EVENT_VFORK: Final = 2
EVENT_CLONE: Final = 3
EVENT_EXEC: Final = 4
EVENT_SECCOMP: Final = 7
EVENT_STOP: Final = 128

WALL: Final = 0x4000_0000
SYSCALL_STOP: Final = 0x85  # SIGTRAP | 0x80, with TRACESYSGOOD


# user_regs_struct: 27 words in this order.
(
    R15, R14, R13, R12, RBP, RBX, R11, R10, R9, R8, RAX, RCX, RDX, RSI, RDI, ORIG_RAX,
    RIP, CS, EFLAGS, RSP, SS, FS_BASE, GS_BASE, DS, ES, FS, GS,
) = range(27)  # fmt: skip
_REGS: Final = struct.Struct("27Q")
# One block for all requests: each is over before the next one begins.
_block = ctypes.create_string_buffer(_REGS.size)
_block_at = ctypes.addressof(_block)
# struct ptrace_peeksiginfo_args, followed by one siginfo.
_PEEK_SHARED: Final = 1
_peek = struct.Struct("<QIi")
_peeked = ctypes.create_string_buffer(_peek.size + 128)
_peeked_at = ctypes.addressof(_peeked)
_NT_X86_XSTATE: Final = 0x202
_XSTATE_MAX: Final = 16384  # AMX tiles included


_ARGS: Final = (RDI, RSI, RDX, R10, R8, R9)
_ARGS_I386: Final = (RBX, RCX, RDX, RSI, RDI, RBP)
# struct ptrace_syscall_info: op, arch, ip, sp; at a seccomp stop nr and args.
_INFO: Final = struct.Struct("<B3xIQQ7Q")


class SyscallInfo(NamedTuple):
    """What filters see of a system call: the fields of struct seccomp_data."""

    number: int
    arch: int
    ip: int
    args: tuple[int, ...]


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class NoSuchTracee(ProcessLookupError):
    """The tracee is gone, or not stopped (ESRCH): it was killed meanwhile."""


# What ptrace and /proc raise when the process has been killed.
GONE: Final = (ProcessLookupError, FileNotFoundError)


def request(what: int, tid: int, address: int = 0, data: int = 0) -> int:
    """One ptrace request; NoSuchTracee or OSError if it fails."""
    held = HELD.get(tid)
    if held is not None:
        return held.request(what, data)
    result = _ptrace(what, tid, address, data)
    if result == -1:
        error = ctypes.get_errno()
        if error == errno.ESRCH:
            raise NoSuchTracee(error, "ptrace: no such tracee")
        if error:
            name = _NAMES.get(what, f"ptrace({what:#x})")
            raise OSError(error, f"{name}: {os.strerror(error)}")
    return int(result)


def wait(tid: int) -> int:
    """Wait for the next stop of one thread, or for its end; the wait status."""
    held = HELD.get(tid)
    return os.waitpid(tid, WALL)[1] if held is None else held.wait()


def get_regs(tid: int) -> list[int]:
    """The 27 words of user_regs_struct."""
    held = HELD.get(tid)
    if held is not None:
        return held.get_regs()
    request(PTRACE_GETREGS, tid, 0, _block_at)
    return list(_REGS.unpack(_block))


def set_regs(tid: int, regs: list[int]) -> None:
    """Write user_regs_struct."""
    held = HELD.get(tid)
    if held is not None:
        held.set_regs(regs)
        return
    _REGS.pack_into(_block, 0, *regs)
    request(PTRACE_SETREGS, tid, 0, _block_at)


def get_fpregs(tid: int) -> bytes:
    """The 512-byte FXSAVE image."""
    held = HELD.get(tid)
    if held is not None:
        return held.get_fpregs()
    block = ctypes.create_string_buffer(512)
    request(PTRACE_GETFPREGS, tid, 0, ctypes.addressof(block))
    return block.raw


def set_fpregs(tid: int, image: bytes) -> None:
    """Write the FXSAVE image with the high half of MXCSR 0: the kernel refuses reserved bits."""
    held = HELD.get(tid)
    if held is not None:
        held.set_fpregs(image)
        return
    block = ctypes.create_string_buffer(image[:26] + b"\0\0" + image[28:], 512)
    request(PTRACE_SETFPREGS, tid, 0, ctypes.addressof(block))


def get_xstate(tid: int) -> bytearray:
    """The XSAVE image in standard format, with every component that the kernel reports."""
    held = HELD.get(tid)
    if held is not None:
        return held.get_xstate()
    image = bytearray(_XSTATE_MAX)
    vector = _Iovec(ctypes.addressof(ctypes.c_char.from_buffer(image)), _XSTATE_MAX)
    request(PTRACE_GETREGSET, tid, _NT_X86_XSTATE, ctypes.addressof(vector))
    return image[: vector.length]


def set_xstate(tid: int, image: bytearray) -> None:
    """Write the XSAVE image."""
    held = HELD.get(tid)
    if held is not None:
        held.set_xstate(image)
        return
    vector = _Iovec(ctypes.addressof(ctypes.c_char.from_buffer(image)), len(image))
    request(PTRACE_SETREGSET, tid, _NT_X86_XSTATE, ctypes.addressof(vector))


def event_message(tid: int) -> int:
    """PTRACE_GETEVENTMSG: the new child's tid or, at exec, the former tid."""
    word = ctypes.c_ulong()
    request(PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(word))
    return word.value


def get_siginfo(tid: int) -> bytes:
    """The 128-byte siginfo of a signal-delivery stop."""
    held = HELD.get(tid)
    if held is not None:
        return held.get_siginfo()
    block = ctypes.create_string_buffer(128)
    request(PTRACE_GETSIGINFO, tid, 0, ctypes.addressof(block))
    return block.raw


def at_seccomp_stop(tid: int) -> bool:
    """Whether a thread is at the seccomp stop of a system call."""
    held = HELD.get(tid)
    if held is not None:
        return held.at_seccomp_stop()
    (code,) = struct.unpack_from("<i", get_siginfo(tid), 8)
    return bool(code == signal.SIGTRAP | EVENT_SECCOMP << 8)


def syscall_info(tid: int) -> SyscallInfo:
    """PTRACE_GET_SYSCALL_INFO (Linux 5.3) at a seccomp stop."""
    held = HELD.get(tid)
    if held is not None:
        (arch,) = struct.unpack_from("<I", held.get_siginfo(), 28)  # si_arch
        regs = held.get_regs()
        args = tuple(regs[at] for at in (_ARGS if arch == AUDIT_ARCH_X86_64 else _ARGS_I386))
        return SyscallInfo(regs[ORIG_RAX] & MASK32, arch, regs[RIP], args)
    block = ctypes.create_string_buffer(_INFO.size)
    request(PTRACE_GET_SYSCALL_INFO, tid, _INFO.size, ctypes.addressof(block))
    _, arch, ip, _, number, *words = _INFO.unpack(block)
    return SyscallInfo(number & MASK32, arch, ip, tuple(words))


def set_siginfo(tid: int, info: bytes) -> None:
    """Replace the siginfo of a signal-delivery stop."""
    held = HELD.get(tid)
    if held is not None:
        held.set_siginfo(info)
        return
    block = ctypes.create_string_buffer(info, 128)
    request(PTRACE_SETSIGINFO, tid, 0, ctypes.addressof(block))


def queued_signals(tid: int) -> list[bytes]:
    """The siginfo of the first eight signals that are pending for this thread alone."""
    if tid in HELD:
        return []  # its exceptions come before any other signal
    infos = ctypes.create_string_buffer(8 * 128)
    arguments = struct.pack("<QIi", 0, 0, 8)
    count = request(
        PTRACE_PEEKSIGINFO,
        tid,
        ctypes.cast(ctypes.c_char_p(arguments), ctypes.c_void_p).value or 0,
        ctypes.addressof(infos),
    )
    return [infos.raw[128 * n : 128 * n + 128] for n in range(count)]


def signals_queued(tid: int) -> bool:
    """Whether any signal may be pending for this thread or its process, blocked or not."""
    if tid in HELD:
        return True
    for flags in (0, _PEEK_SHARED):
        _peek.pack_into(_peeked, 0, 0, flags, 1)
        if request(PTRACE_PEEKSIGINFO, tid, _peeked_at, _peeked_at + _peek.size):
            return True
    return False


def get_sigmask(tid: int) -> int:
    """The blocked signals, bit n-1 for signal n."""
    held = HELD.get(tid)
    if held is not None:
        return held.get_sigmask()
    word = ctypes.c_uint64()
    request(PTRACE_GETSIGMASK, tid, 8, ctypes.addressof(word))
    return word.value


def set_sigmask(tid: int, mask: int) -> None:
    """Replace the blocked signals."""
    held = HELD.get(tid)
    if held is not None:
        held.set_sigmask(mask)
        return
    word = ctypes.c_uint64(mask)
    request(PTRACE_SETSIGMASK, tid, 8, ctypes.addressof(word))


def tgsigqueue(pid: int, tid: int, number: int, info: bytes) -> None:
    """Send a signal with siginfo to one thread; do nothing if it is gone."""
    if _syscall(nr.RT_TGSIGQUEUEINFO, pid, tid, number, info) and ctypes.get_errno() != errno.ESRCH:
        _syscall(nr.TGKILL, pid, tid, number)  # refused by a filter


def write_code(tid: int, address: int, data: bytes) -> None:
    """Write to memory that a stopped tracee itself may not write, in private copies of pages.

    OSError on a fault. A kernel may deny this to /proc/PID/mem, but not to ptrace
    (Linux 6.12, fs/proc/base.c, proc_mem_foll_force).
    """
    start = address & ~7
    end = (address + len(data) + 7) & ~7
    mem = os.open(f"/proc/{tid}/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        if tid in HELD:
            os.pwrite(mem, data, address)
            return
        old = bytearray(os.pread(mem, end - start, start))
    finally:
        os.close(mem)
    old[address - start : address - start + len(data)] = data
    for at in range(0, len(old), 8):
        request(PTRACE_POKEDATA, tid, start + at, int.from_bytes(old[at : at + 8], "little"))
