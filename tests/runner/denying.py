"""A command under a seccomp filter that denies system calls, as container engines and others do.

    python -m tests.runner.denying SPEC [--uid UID] COMMAND ...

SPEC is JSON, as `Denied.command` writes it. `Denied.code` is what `bwrap --seccomp FD` reads.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

KILL: Final = -1
"""In the place of an errno: the process ends with SIGSYS."""
ALLOW: Final = 0

NUMBERS: Final = {
    "mprotect": 10, "rt_sigaction": 13, "ioctl": 16, "madvise": 28, "fork": 57, "kill": 62,
    "ptrace": 101, "prctl": 157, "futex": 202, "inotify_init1": 294, "inotify_add_watch": 254,
    "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "seccomp": 317,
    "memfd_create": 319, "ftruncate": 77, "tgkill": 234, "pidfd_open": 434, "clone3": 435,
}  # fmt: skip

_LD, _JA, _JEQ, _JGT, _JSET, _RET = 0x20, 0x05, 0x15, 0x25, 0x45, 0x06
_X86_64: Final = 0xC000003E
_SECCOMP: Final = 317
_NO_NEW_PRIVS: Final = 38
_CLONE: Final = 56
_MFD_NOEXEC_SEAL: Final = 8
_ARCH_PRCTL, _ARCH_SET_CPUID = 158, 0x1012


@dataclass(frozen=True)
class Denied:
    """What is denied: numbers to errno (or KILL), for x86-64 and for `int 0x80`.

    `above` and `above32`: numbers greater than the first are answered with the second.
    `clone_flags`: clone with one of these is EPERM. `other`: what every call of i386 gets.
    """

    calls: dict[int, int] = field(default_factory=dict)
    above: tuple[int, int] | None = None
    clone_flags: int = 0
    calls32: dict[int, int] = field(default_factory=dict)
    above32: tuple[int, int] | None = None
    other: int = ALLOW
    memfd_noexec: bool = False  # as with sysctl vm.memfd_noexec=2
    no_cpuid_faulting: bool = True  # ENODEV, as on most processors
    seccomp_flags: int = 0  # seccomp(2) with one of these is EINVAL, as on an older kernel
    requests: dict[int, int] = field(default_factory=dict)  # of ioctl: number to errno

    def code(self) -> bytes:
        """The filter, struct sock_filter by struct sock_filter."""
        native = [*_numbers(self.calls, self.above)]
        if self.clone_flags:
            native += [(_JEQ, 0, 4, _CLONE), (_LD, 0, 0, 16)]
            native += [(_JSET, 0, 1, self.clone_flags), _action(errno.EPERM), (_LD, 0, 0, 0)]
        if self.memfd_noexec:
            native += [(_JEQ, 0, 4, NUMBERS["memfd_create"]), (_LD, 0, 0, 24)]
            native += [(_JSET, 1, 0, _MFD_NOEXEC_SEAL), _action(errno.EACCES), (_LD, 0, 0, 0)]
        if self.seccomp_flags:
            native += [(_JEQ, 0, 4, _SECCOMP), (_LD, 0, 0, 24)]
            native += [(_JSET, 0, 1, self.seccomp_flags), _action(errno.EINVAL), (_LD, 0, 0, 0)]
        for request, what in self.requests.items():
            native += [(_JEQ, 0, 4, NUMBERS["ioctl"]), (_LD, 0, 0, 24)]
            native += [(_JEQ, 0, 1, request), _action(what), (_LD, 0, 0, 0)]
        if self.no_cpuid_faulting:
            native += [(_JEQ, 0, 4, _ARCH_PRCTL), (_LD, 0, 0, 16)]
            native += [(_JEQ, 0, 1, _ARCH_SET_CPUID), _action(errno.ENODEV), (_LD, 0, 0, 0)]
        native.append(_action(ALLOW))
        other = [*_numbers(self.calls32, self.above32), _action(self.other)]
        head = [(_LD, 0, 0, 4), (_JEQ, 1, 0, _X86_64), (_JA, 0, 0, len(native) + 1), (_LD, 0, 0, 0)]
        rows = [*head, *native, (_LD, 0, 0, 0), *other]
        return b"".join(struct.pack("<HBBI", *row) for row in rows)

    def command(self, *command: str, uid: int | None = None) -> list[str]:
        """The command under this filter."""
        who = [] if uid is None else ["--uid", str(uid)]
        spec = json.dumps(asdict(self))
        return [sys.executable, "-m", "tests.runner.denying", spec, *who, *command]


def denied(*names: str, as_: int = errno.EPERM) -> Denied:
    """These calls are denied, for x86-64 only."""
    return Denied(calls={NUMBERS[name]: as_ for name in names})


def _action(what: int) -> tuple[int, int, int, int]:
    value = {ALLOW: 0x7FFF0000, KILL: 0x80000000}.get(what, 0x50000 | what)
    return (_RET, 0, 0, value)


def _numbers(
    calls: Mapping[int, int], above: tuple[int, int] | None
) -> Iterable[tuple[int, int, int, int]]:
    for number, what in calls.items():
        yield (_JEQ, 0, 1, number)
        yield _action(what)
    if above is not None:
        yield (_JGT, 0, 1, above[0])
        yield _action(above[1])


def install(code: bytes) -> None:
    """Install the filter for this process and its children."""
    libc = ctypes.CDLL(None, use_errno=True)
    block = ctypes.create_string_buffer(code)
    program = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(block))
    done = libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(_SECCOMP, 1, 0, program)
    assert done == 0, os.strerror(ctypes.get_errno())


def main(spec: str, *rest: str) -> None:
    """See the module."""
    fields = json.loads(spec)
    for name in ("calls", "calls32", "requests"):
        fields[name] = {int(number): what for number, what in fields[name].items()}
    if rest[0] == "--uid":
        os.setgroups([])
        os.setresgid(*[int(rest[1])] * 3)
        os.setresuid(*[int(rest[1])] * 3)
        rest = rest[2:]
    install(Denied(**fields).code())
    os.execvp(rest[0], rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
