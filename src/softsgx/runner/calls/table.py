"""System calls of the program that concern enclaves: what each stop at the filter leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.linux.errno import ERESTARTSYS
from softsgx.linux.vfs import File
from softsgx.runner.calls.advice import MemoryAdvice
from softsgx.runner.calls.cpu_time import CpuTime
from softsgx.runner.calls.descriptors import Descriptors
from softsgx.runner.calls.mappings import Mappings
from softsgx.runner.calls.nodes import Nodes
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.process.forced import ACTION_SIZE
from softsgx.runner.process.interruption import Interruption, restart, restart_at_exit
from softsgx.runner.process.stops import (
    Handler,
    answer,
    changed,
    go_on,
    signed32,
    to_exit,
)
from softsgx.runner.process.tracee import Tracee

if TYPE_CHECKING:
    from softsgx.runner.supervisor.supervisor import Supervisor


class Calls:
    """Serves the calls that the filters stop."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.world = supervisor.world
        self.nodes = Nodes(supervisor)
        self.descriptors = Descriptors(supervisor)
        self.cpu_time = CpuTime(supervisor)
        self._handlers: dict[int, Handler] = {
            **self.nodes.handlers(),
            **self.descriptors.handlers(),
            **Mappings(supervisor).handlers(),
            **MemoryAdvice(supervisor).handlers(),
            **self.cpu_time.handlers(),
            nr.IOCTL: self._ioctl,
            nr.RT_SIGACTION: self._sigaction,
            **supervisor.traps.handlers(),
        }

    def serve(self, t: Tracee, regs: list[int]) -> None:
        """A seccomp stop that is no site of ours."""
        handler = self._handlers.get(regs[p.ORIG_RAX])
        if handler is None or p.read_memory(t.tid, regs[p.RIP] - 2, 2) != b"\x0f\x05":
            go_on(t)  # int 0x80 of the program itself
            return
        t.speak()
        handler(t, regs)

    def _ioctl(self, t: Tracee, regs: list[int]) -> None:
        file = t.space.process.fget(signed32(regs[p.RDI]))
        if not isinstance(file, File):
            go_on(t)
            return
        fd = signed32(regs[p.RDI])
        if self.descriptors.watches(t, fd):
            if not self.descriptors.ioctl(t, regs, file):
                result = self._driver(t, regs, file)
                if result == -ERESTARTSYS:
                    restart(t, regs)
                else:
                    answer(t, regs, result)
            return

        def first(t: Tracee, _result: int) -> int:
            self.descriptors.watch(t, fd)
            result = self._driver(t, regs, file)
            if result == -ERESTARTSYS:
                restart_at_exit(t, nr.IOCTL)
            return result

        # Somebody has passed it to this process: a stop is needed where calls can be injected.
        changed(t, regs, {p.ORIG_RAX: nr.GETPID, p.RAX: nr.GETPID}, first)

    def _driver(self, t: Tracee, regs: list[int], file: File) -> int:
        self.nodes.look_for_released()
        thread = t.model()
        user = t.space.mm.user
        user.forget()
        body = file.f_op.ioctl(thread, file, regs[p.RSI] & 0xFFFFFFFF, regs[p.RDX])
        thread.real_signals = Interruption(t, self.supervisor.doorbell)
        result = self.world.run(body, thread.cpu)
        thread.real_signals = None
        user.forget()
        t.unlucky = result == -ERESTARTSYS
        return result

    def _sigaction(self, t: Tracee, regs: list[int]) -> None:
        """The program's handler of an exception, in case the kernel takes it away (`forced`)."""
        number, place = signed32(regs[p.RDI]), regs[p.RSI]
        action = p.read_memory(t.tid, place, ACTION_SIZE) if place else None

        def done(t: Tracee, result: int) -> None:
            if result == 0 and action is not None:
                t.actions[number] = action

        to_exit(t, done)
