"""Mappings of enclave memory: mmap, munmap, mprotect, mremap.

The real mapping is PROT_NONE, so that every access stops for the supervisor; its rights are in the
model. If a call covers both enclave memory and other memory, the model answers for the former, the
kernel for the latter.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from softsgx.linux import syscalls
from softsgx.linux.errno import EACCES, EEXIST, ENOMEM
from softsgx.linux.mm import DEFAULT_MMAP_MIN_ADDR, TASK_SIZE, page_aligned_range
from softsgx.linux.uapi import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MREMAP_FIXED,
    PROT_EXEC,
    PROT_READ,
)
from softsgx.linux.vfs import File
from softsgx.runner.calls.advice import capable
from softsgx.runner.calls.watched import watch
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.process import call_filters
from softsgx.runner.process.stops import (
    Handler,
    add_filter,
    answer,
    areas,
    refuse_invalid,
    resume,
    run_changed,
    run_instead,
    run_to_exit,
    signed32,
    split,
    split_at_exit,
)
from softsgx.runner.process.tracee import Tracee
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.linux.sgx.encl import SgxEncl
    from softsgx.runner.calls.releases import Releases

    Patch = Callable[[Tracee, str, tuple[int, int], int], None]

_FILTERS_MAX: Final = 6
_CAP_SYS_RAWIO: Final = 17


class Mappings:
    """Serves calls that map, and calls that change what is mapped.

    `patch(t, path, area, offset)` replaces the sites of a file of code. `in_process`: enclave code
    is executed by the threads of the process, so its system calls must stop, too.
    """

    def __init__(self, releases: Releases, patch: Patch, in_process: bool) -> None:
        self._releases = releases
        self._patch = patch
        self._in_process = in_process

    def handlers(self) -> dict[int, Handler]:
        """By number of the system call."""
        return {
            nr.MMAP: self._mmap,
            nr.MPROTECT: self._mprotect,
            nr.PKEY_MPROTECT: self._pkey_mprotect,
            nr.MUNMAP: self._munmap,
            nr.MREMAP: self._mremap,
        }

    def _mmap(self, t: Tracee, regs: list[int]) -> None:
        address, length, prot, flags = regs[p.RDI], regs[p.RSI], regs[p.RDX], regs[p.R10]
        if not flags & MAP_ANONYMOUS:
            file = t.space.process.fget(signed32(regs[p.R8]))
            if isinstance(file, File):
                self._mmap_device(t, regs, file)
                return
            if prot & PROT_EXEC:
                self._mmap_code(t, regs)
                return
        if flags & MAP_FIXED and areas(t, address, length):
            run_to_exit(t, lambda t, result: self._replaced(t, result, length))
            return
        resume(t)

    def _replaced(self, t: Tracee, result: int, length: int) -> None:
        """Other memory was mapped over enclave areas."""
        if result >= 0:
            t.run(syscalls.sys_munmap(t.model(), result, length))
            self._releases.look()

    def _mmap_code(self, t: Tracee, regs: list[int]) -> None:
        """A file of code is mapped: replace its sites before any of it runs."""
        fd, offset, length = signed32(regs[p.R8]), regs[p.R9], regs[p.RSI]
        fixed = bool(regs[p.R10] & MAP_FIXED)

        def mapped(t: Tracee, result: int) -> None:
            if result < 0 and result > -4096:
                return
            if fixed and areas(t, result, length):
                self._replaced(t, result, length)
            try:
                path = os.readlink(f"/proc/{t.tid}/fd/{fd}")
            except OSError:
                return
            end = result + ((length + PAGE_MASK) & ~PAGE_MASK)
            self._patch(t, path, (result, end), offset)

        run_to_exit(t, mapped)

    def _mmap_device(self, t: Tracee, regs: list[int], file: File) -> None:
        """Check in the model, and map PROT_NONE in the process."""
        address, length, prot, flags = regs[p.RDI], regs[p.RSI], regs[p.RDX], regs[p.R10]
        fd = signed32(regs[p.R8])
        thread = t.model()
        if flags & MAP_FIXED and not flags & MAP_FIXED_NOREPLACE:
            if address < DEFAULT_MMAP_MIN_ADDR:
                thread.mm.mmap_min_addr = _mmap_min_addr(t)
            body = syscalls.sys_mmap(thread, address, length, prot, flags, fd, regs[p.R9])
            result = t.run(body)
            if result < 0:
                if _driver_refused(file, address, length, prot, result):
                    # Linux unmaps what was there before it calls the driver.
                    t.at_exit = None
                    self._refused(t, regs, address, length, result)
                    return
                answer(t, regs, result)
                return
            mapped = self._mapped_fixed
        else:
            mapped = self._mapped_anywhere

        def done(t: Tracee, result: int) -> int | None:
            if result == -EEXIST:
                # MAP_FIXED_NOREPLACE. If an enclave area is in the way, the model reports it.
                if areas(t, address, length):
                    body = syscalls.sys_mmap(thread, address, length, prot, flags, fd, regs[p.R9])
                    t.run(body)
                return None
            if -4096 < result < 0 and mapped == self._mapped_fixed:
                # The real kernel refuses, as below vm.mmap_min_addr: undo it in the model.
                t.run(syscalls.sys_munmap(t.model(), address, length))
            return mapped(t, result, length, prot, flags, fd, regs[p.R9])

        run_changed(t, regs, {p.RDX: 0, p.R9: 0}, done)

    def _refused(self, t: Tracee, regs: list[int], address: int, length: int, result: int) -> None:
        arguments = {p.RDI: address, p.RSI: length}
        run_instead(t, regs, nr.MUNMAP, arguments, lambda _t, _result: result)

    def _mapped_fixed(
        self, t: Tracee, result: int, length: int, prot: int, flags: int, fd: int, offset: int
    ) -> int | None:
        if -4096 < result < 0:
            return None
        self._mapped(t, result, length, fd)
        return None

    def _mapped(self, t: Tracee, start: int, length: int, fd: int) -> None:
        """An enclave area was mapped."""
        watch(t, fd)
        code = None
        if self._in_process:
            code = _elrange(t, fd, (start, start + length))
        if t.space.locks_new:
            t.inject(nr.MUNLOCK, start, length)
        self._trace(t, start, start + length, code)

    def _mapped_anywhere(
        self, t: Tracee, result: int, length: int, prot: int, flags: int, fd: int, offset: int
    ) -> int | None:
        """The real kernel has chosen an address: map there in the model."""
        if -4096 < result < 0:
            return None
        thread = t.model()
        thread.mm.mmap_min_addr = min(thread.mm.mmap_min_addr, result)
        kind = flags & ~MAP_FIXED_NOREPLACE | MAP_FIXED
        refused = t.run(syscalls.sys_mmap(thread, result, length, prot, kind, fd, offset))
        if refused < 0:
            t.inject(nr.MUNMAP, result, length)
            return refused
        self._mapped(t, result, length, fd)
        return None

    def _trace(self, t: Tracee, start: int, end: int, code: tuple[int, int] | None) -> None:
        """Have calls that change this range stop from now on."""
        space = t.space
        if any(low <= start and end <= high for low, high in space.traced):
            return
        if space.filters + 1 >= _FILTERS_MAX:
            start, end = 0, TASK_SIZE
        if add_filter(t, call_filters.range_filter(start, end, code)):
            space.traced.append((start, end))
            space.filters += 1

    def _munmap(self, t: Tracee, regs: list[int]) -> None:
        address, length = regs[p.RDI], regs[p.RSI]
        if isinstance(page_aligned_range(address, length), int):
            refuse_invalid(t, regs, address, syscalls.sys_munmap(t.model(), address, length))
            return
        if not areas(t, address, length):
            resume(t)
            return

        def unmapped(t: Tracee, result: int) -> None:
            if result == 0:
                t.run(syscalls.sys_munmap(t.model(), address, length))
                self._releases.look()

        run_to_exit(t, unmapped)

    def _mprotect(self, t: Tracee, regs: list[int]) -> None:
        """The model answers for the parts that are enclave areas, the kernel for the others."""
        address, length, prot = regs[p.RDI], regs[p.RSI], regs[p.RDX]
        found = areas(t, address, length)
        if address & PAGE_MASK or address + length > MASK64:
            refuse_invalid(
                t, regs, address, syscalls.sys_mprotect(t.model(), address, length, prot)
            )
            return
        if not found:
            resume(t)
            return
        end = address + ((length + PAGE_MASK) & ~PAGE_MASK)
        split(t, regs, address, end, partial(self._mprotect_model, t, prot=prot))

    def _pkey_mprotect(self, t: Tracee, regs: list[int]) -> None:
        """Only the kernel knows which keys the process has allocated. It checks the key before the
        range, so the call is made first with a range where nothing can be mapped."""
        address, length, prot, key = regs[p.RDI], regs[p.RSI], regs[p.RDX], signed32(regs[p.R10])
        if key == -1 or address & PAGE_MASK or not areas(t, address, length):
            self._mprotect(t, regs)
            return

        def asked(t: Tracee, result: int) -> int:
            if result != -ENOMEM:
                return self._mprotect_model(t, address, length, prot, key)
            end = address + ((length + PAGE_MASK) & ~PAGE_MASK)
            # Key 0 is that of all memory; the model has no other key.
            model = partial(self._mprotect_model, t, prot=prot, key=key or -1)
            return split_at_exit(t, regs, address, end, model)

        run_changed(t, regs, {p.RDI: TASK_SIZE, p.RSI: PAGE_SIZE, p.RDX: PROT_READ}, asked)

    def _mprotect_model(
        self, t: Tracee, address: int, length: int, prot: int, key: int = -1
    ) -> int:
        thread = t.model()
        if key == -1:
            body = syscalls.sys_mprotect(thread, address, length, prot)
        else:
            body = syscalls.sys_pkey_mprotect(thread, address, length, prot, key)
        return t.run(body)

    def _mremap(self, t: Tracee, regs: list[int]) -> None:
        old, old_length, new_length, flags, new = (
            regs[n] for n in (p.RDI, p.RSI, p.RDX, p.R10, p.R8)
        )
        if not areas(t, old, max(old_length, 1)):
            if flags & MREMAP_FIXED and areas(t, new, new_length):
                run_to_exit(t, lambda t, result: self._replaced(t, result, new_length))
            else:
                resume(t)
            return
        thread = t.model()
        body = syscalls.sys_mremap(thread, old, old_length, new_length, flags, new)
        result = t.run(body)
        if result < 0:
            answer(t, regs, result)
            return
        run_to_exit(t, lambda _t, _result: None)


def _mmap_min_addr(t: Tracee) -> int:
    """The lowest address that the process may map: cap_mmap_addr."""
    if capable(t, _CAP_SYS_RAWIO):
        return 0
    with open("/proc/sys/vm/mmap_min_addr", encoding="ascii") as limit:
        return int(limit.read())


def _driver_refused(file: File, address: int, length: int, prot: int, result: int) -> bool:
    """Whether mmap was refused by the driver, and not by the generic checks before it."""
    if result != -EACCES or address & PAGE_MASK or not length:
        return False
    return file.readable and (file.writable or not prot & 2)


def _elrange(t: Tracee, fd: int, area: tuple[int, int]) -> tuple[int, int]:
    """The range where enclave code may be: the area, and ELRANGE once the enclave is created."""
    file = t.space.process.fget(fd)
    if not isinstance(file, File) or file.encl is None:
        return area
    encl = cast("SgxEncl", file.encl)  # of either driver
    if not encl.size:
        return area
    return min(area[0], encl.base), max(area[1], encl.base + encl.size)
