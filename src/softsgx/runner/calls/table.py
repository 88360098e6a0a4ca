"""The system calls of a program that concern enclaves: which handler serves each number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.linux.errno import ERESTARTSYS
from softsgx.linux.vfs import File
from softsgx.runner.calls.advice import MemoryAdvice
from softsgx.runner.calls.buffers import Buffers
from softsgx.runner.calls.cpu_time import CpuTime
from softsgx.runner.calls.descriptors import Descriptors
from softsgx.runner.calls.int80 import serve_int80
from softsgx.runner.calls.mappings import Mappings
from softsgx.runner.calls.nodes import Nodes
from softsgx.runner.calls.process_mem import ProcessMem
from softsgx.runner.calls.releases import Releases
from softsgx.runner.calls.seccomp_calls import SeccompCalls
from softsgx.runner.calls.watched import watch, watches
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.process.forced import ACTION_SIZE
from softsgx.runner.process.interruption import Interruption, restart, restart_at_exit
from softsgx.runner.process.stops import (
    Handler,
    answer,
    resume,
    run_to_exit,
    serve_at_exit,
    signed32,
)
from softsgx.runner.process.tracee import Tracee
from softsgx.spec.bits import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softsgx.runner.calls.mappings import Patch
    from softsgx.runner.cpuid.cpuid import CpuidPolicy
    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.process.world import World
    from softsgx.runner.traps.abort_page import AbortPage


class Calls:
    """Serves the calls that the filters stop.

    `policy` is the processor that programs see; `patch` replaces the sites of a file of code;
    `others` are further handlers; `in_process`: enclave code is executed by the process's threads.
    """

    def __init__(
        self,
        world: World,
        doorbell: Doorbell,
        abort_page: AbortPage,
        tracees: Mapping[int, Tracee],
        *,
        policy: CpuidPolicy,
        patch: Patch,
        others: Mapping[int, Handler],
        in_process: bool,
    ) -> None:
        self.world = world
        self._doorbell = doorbell
        self.releases = Releases(world)
        self.cpu_time = CpuTime(doorbell, kernel_counts=in_process)
        buffers = Buffers(abort_page)
        self.seccomp = SeccompCalls(tracees)
        self._descriptors = Descriptors(ProcessMem(tracees), buffers)
        self.served: Callable[[Tracee], None] = lambda t: None  # `Engine.served`
        epc_in_process = world.memory.count * PAGE_SIZE if in_process else 0
        self._handlers: dict[int, Handler] = {
            **Nodes(world, policy, self.releases).handlers(),
            **self._descriptors.handlers(),
            **buffers.handlers(),
            **Mappings(self.releases, patch, in_process).handlers(),
            **MemoryAdvice(epc_in_process).handlers(),
            **self.cpu_time.handlers(),
            **self.seccomp.handlers(),
            nr.IOCTL: self._ioctl,
            nr.RT_SIGACTION: self._sigaction,
            **others,
        }

    def serve(self, t: Tracee, regs: list[int]) -> None:
        """Serve a seccomp stop at a system call of the program itself."""
        if not self.seccomp.allowed(t, regs):
            return
        handler = self._handlers.get(regs[p.ORIG_RAX])
        held = p.HELD.get(t.tid)
        if held is not None and held.serve():
            return
        if not (_by_syscall(t, regs) if held is None else held.by_syscall()):
            serve_int80(t, regs)
            return
        if handler is None:
            resume(t)
            return
        t.make_current()
        handler(t, regs)

    def _ioctl(self, t: Tracee, regs: list[int]) -> None:
        file = t.space.process.fget(signed32(regs[p.RDI]))
        if not isinstance(file, File):
            resume(t)
            return
        fd = signed32(regs[p.RDI])
        if watches(t, fd):
            if not self._descriptors.ioctl(t, regs, file):
                result = self._driver(t, regs, file)
                if result == -ERESTARTSYS:
                    restart(t, regs)
                else:
                    answer(t, regs, result)
            return

        def first(t: Tracee) -> int:
            watch(t, fd)
            result = self._driver(t, regs, file)
            if result == -ERESTARTSYS:
                restart_at_exit(t, nr.IOCTL)
            return result

        # Another process has passed it to this one, so it is not watched yet.
        serve_at_exit(t, regs, first)

    def _driver(self, t: Tracee, regs: list[int], file: File) -> int:
        self.releases.look()
        thread = t.model()
        user = t.space.mm.user
        user.forget()
        body = file.f_op.ioctl(thread, file, regs[p.RSI] & 0xFFFFFFFF, regs[p.RDX])
        thread.real_signals = Interruption(t, self._doorbell)
        result = t.run(body)
        thread.real_signals = None
        user.forget()
        if result >= 0:
            self.served(t)
        t.interrupted_early = result == -ERESTARTSYS
        return result

    def _sigaction(self, t: Tracee, regs: list[int]) -> None:
        """Remember the handler of an exception, which the kernel may reset (`forced`)."""
        number, place = signed32(regs[p.RDI]), regs[p.RSI]
        action = p.read_memory(t.tid, place, ACTION_SIZE) if place else None

        def done(t: Tracee, result: int) -> None:
            if result == 0 and action is not None:
                t.actions[number] = action

        run_to_exit(t, done)


def _by_syscall(t: Tracee, regs: list[int]) -> bool:
    return p.read_memory(t.tid, regs[p.RIP] - 2, 2) == b"\x0f\x05"
