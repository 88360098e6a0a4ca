"""madvise, msync, and the mlock family.

The model answers for enclave areas. The mapping that stands for such an area in the process (of a
memfd, or single pages of EPC) would answer differently, and must not be locked.
"""

from __future__ import annotations

from typing import Final

from softsgx.linux import mlock
from softsgx.linux.errno import ENOMEM, EPERM
from softsgx.linux.madvise import MADV_HWPOISON, MADV_SOFT_OFFLINE, PAGE_BY_PAGE, sys_madvise
from softsgx.linux.mm import TASK_SIZE
from softsgx.linux.trace import refused_call
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import CAP_SYS_ADMIN
from softsgx.runner.inserted.layout import NATIVE_EPC
from softsgx.runner.process.stops import Handler, areas, refuse_invalid, resume, run_to_exit, split
from softsgx.runner.process.tracee import Tracee
from softsgx.spec.bits import MASK32, MASK64, PAGE_MASK

_CAP_IPC_LOCK: Final = 14


class MemoryAdvice:
    """Serves these calls where they reach enclave areas.

    `epc_in_process` bytes of EPC are mapped in each process, which must not be locked either.
    """

    def __init__(self, epc_in_process: int) -> None:
        self._epc_in_process = epc_in_process

    def handlers(self) -> dict[int, Handler]:
        """By number of the system call."""
        return {
            nr.MADVISE: self._madvise,
            nr.MSYNC: self._msync,
            nr.MLOCK: self._mlock,
            nr.MLOCK2: self._mlock,
            nr.MUNLOCK: self._mlock,
            nr.MLOCKALL: self._mlockall,
            nr.MUNLOCKALL: self._munlockall,
        }

    def _madvise(self, t: Tracee, regs: list[int]) -> None:
        address, length, advice = regs[p.RDI], regs[p.RSI], regs[p.RDX] & MASK32
        if address & PAGE_MASK or address + length > MASK64:
            refuse_invalid(t, regs, address, sys_madvise(t.model(), address, length, advice))
            return
        if not areas(t, address, length):
            resume(t)
            return

        def model(at: int, size: int) -> int:
            if advice in (MADV_HWPOISON, MADV_SOFT_OFFLINE) and not capable(t, CAP_SYS_ADMIN):
                rule = "madvise_inject_error.superuser"
                return refused_call(t.model(), "madvise", EPERM, rule, advice=advice)
            return t.run(sys_madvise(t.model(), at, size, advice))

        end = address + ((length + PAGE_MASK) & ~PAGE_MASK)
        split(t, regs, address, end, model, past_holes=advice not in PAGE_BY_PAGE)

    def _msync(self, t: Tracee, regs: list[int]) -> None:
        address, length, flags = regs[p.RDI], regs[p.RSI], regs[p.RDX] & MASK32
        if address & PAGE_MASK:
            refuse_invalid(t, regs, address, mlock.sys_msync(t.model(), address, length, flags))
            return
        if not areas(t, address, length):
            resume(t)
            return
        end = address + ((length + PAGE_MASK) & ~PAGE_MASK)
        split(
            t, regs, address, end,
            lambda at, size: t.run(mlock.sys_msync(t.model(), at, size, flags)),
            past_holes=flags != mlock.MS_ASYNC,
        )  # fmt: skip

    def _mlock(self, t: Tracee, regs: list[int]) -> None:
        number, flags = regs[p.ORIG_RAX], regs[p.RDX] & MASK32
        found = mlock.lock_range(regs[p.RDI], regs[p.RSI])
        if found is None or not areas(t, found[0], found[1] - found[0]):
            resume(t)
            return
        start, end = found

        def model(at: int, size: int) -> int:
            thread = t.model()
            if number == nr.MUNLOCK:
                return t.run(mlock.sys_munlock(thread, at, size))
            if number == nr.MLOCK2 and flags & ~mlock.MLOCK_ONFAULT:
                return t.run(mlock.sys_mlock2(thread, at, size, flags))
            # The limit is checked for the whole call, before the areas are.
            over = _over_limit(t, end - start)
            if over:
                return refused_call(thread, "mlock", -over, "do_mlock.limit", length=end - start)
            return t.run(mlock.sys_mlock(thread, at, size))

        split(t, regs, start, end, model)

    def _mlockall(self, t: Tracee, regs: list[int]) -> None:
        flags = regs[p.RDI]

        def locked(t: Tracee, result: int) -> None:
            if result:
                return
            t.space.locks_new = bool(flags & mlock.MCL_FUTURE)
            if not flags & mlock.MCL_CURRENT:
                return
            for start, end in areas(t, 0, TASK_SIZE):
                t.inject(nr.MUNLOCK, start, end - start)
            if self._epc_in_process:
                t.inject(nr.MUNLOCK, NATIVE_EPC, self._epc_in_process)

        run_to_exit(t, locked)

    def _munlockall(self, t: Tracee, regs: list[int]) -> None:
        t.space.locks_new = False
        resume(t)


def _over_limit(t: Tracee, length: int) -> int:
    """As do_mlock checks: -EPERM, -ENOMEM, or 0 if the process may lock `length` more bytes."""
    if capable(t, _CAP_IPC_LOCK):
        return 0
    with open(f"/proc/{t.tid}/limits", encoding="ascii") as limits:
        soft = next(line for line in limits if line.startswith("Max locked memory")).split()[3]
    if soft == "unlimited":
        return 0
    if soft == "0":
        return -EPERM
    locked = int(_status(t, "VmLck").split()[0]) * 1024
    return -ENOMEM if locked + length > int(soft) & ~PAGE_MASK else 0


def capable(t: Tracee, capability: int) -> bool:
    """Whether a stopped thread has the capability of this number."""
    return bool(int(_status(t, "CapEff"), 16) >> capability & 1)


def _status(t: Tracee, field: str) -> str:
    with open(f"/proc/{t.tid}/status", encoding="ascii", errors="replace") as status:
        return next(line for line in status if line.startswith(f"{field}:")).split(":", 1)[1]
