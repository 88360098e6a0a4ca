"""The stub without a tracer in a new program: mapped, with a record for its first thread."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import ERESTARTSYS
from softsgx.linux.uapi import PROT_READ
from softsgx.runner.errors import LoadError
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import PRIVATE_NOREPLACE, PROT_RW, PROT_RX, SYSCALL_LENGTH
from softsgx.runner.inserted import systrap_layout as lay
from softsgx.runner.inserted.systrap import address, image
from softsgx.runner.process.held import HeldThread
from softsgx.runner.process.own_filters import passing
from softsgx.runner.process.shared import map_shared
from softsgx.runner.say import say
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.runner.inserted.records import Records
    from softsgx.runner.process.kept_by_exec import KeptByExec
    from softsgx.runner.process.tracee import Tracee

_VALGRIND: Final = "/valgrind/"  # its tools are executed from a directory of this name


def insert(t: Tracee, records: Records, signals: KeptByExec) -> HeldThread:
    """Map the stub; its `init` is to be entered with the record that is returned, without ENTRY."""
    _say_limits(t)
    code_bytes = image()
    size = (len(code_bytes) + PAGE_MASK) & ~PAGE_MASK
    code = t.inject(nr.MMAP, lay.SYSTRAP_CODE, size, PROT_RW, PRIVATE_NOREPLACE, p.MASK64, 0)
    if code != lay.SYSTRAP_CODE:
        raise LoadError(f"process {t.tid}: {lay.SYSTRAP_CODE:#x} cannot be mapped: {code}")
    p.write_memory(t.tid, lay.SYSTRAP_CODE, code_bytes)
    t.inject(nr.MPROTECT, lay.SYSTRAP_CODE, size, PROT_RX)
    family, control = t.space.family, records.control
    assert family is not None
    start, size = lay.SYSTRAP_CONTROL + lay.SPACE_AT, lay.SYSTRAP_SHARED_SIZE - lay.SPACE_AT
    map_shared(t, control.common_fd, lay.SYSTRAP_CONTROL, PAGE_SIZE, PROT_READ)
    map_shared(t, control.doorbell_fd, lay.SYSTRAP_CONTROL + PAGE_SIZE, PAGE_SIZE, PROT_RW)
    map_shared(t, family.fd, start, size, PROT_RW, lay.SPACE_AT)
    for fd in t.given.values():
        t.inject(nr.CLOSE, fd)
    family.begin(0)
    table = family.begin_table()
    held = HeldThread(records, family.first, t.pid, t.tid)
    held.set_long("TABLE", table)
    held.set_long("PROCESS", table)
    if t.seccomp.confines:
        held.confine(passing(t.seccomp))
    signals.put(held)
    return held


def _say_limits(t: Tracee) -> None:
    """What executes another program's code by translation passes no exceptions on to the stub."""
    if _VALGRIND in os.readlink(f"/proc/{t.tid}/exe"):
        why = "valgrind executes a translation of its program, which cannot be supervised"
        say(f"softsgx: run: process {t.tid}: {why}: no enclaves in it\n")


def begin(t: Tracee, held: HeldThread) -> None:
    """Let a traced thread enter the stub, and then the program; it is not traced any more."""
    regs = p.get_regs(t.tid)
    held.set_long("ENTRY", regs[p.RIP])
    regs[p.RDI], regs[p.RIP], regs[p.ORIG_RAX] = held.address, address("init"), p.MASK64
    p.set_regs(t.tid, regs)
    p.request(p.PTRACE_DETACH, t.tid)


def exec_failed(t: Tracee, given: dict[int, int], gate: bool, ip: int) -> None:
    """exec has failed, or was interrupted before it began: then it is made again.

    `gate`: whether the thread has one. The first process has none before it is executed; there the
    SYSCALL before `ip`, by which it called exec, is used: it may have gone on from there.
    """
    regs = p.get_regs(t.tid)
    for fd in given.values():
        if gate:
            t.inject(nr.CLOSE, fd)
        else:
            t.inject_at(ip - SYSCALL_LENGTH, nr.CLOSE, fd)
    if regs[p.RAX] == -ERESTARTSYS & p.MASK64 and regs[p.ORIG_RAX] != p.MASK64:
        regs[p.RAX] = regs[p.ORIG_RAX]
        regs[p.RIP] -= SYSCALL_LENGTH
        regs[p.ORIG_RAX] = p.MASK64
        p.set_regs(t.tid, regs)
