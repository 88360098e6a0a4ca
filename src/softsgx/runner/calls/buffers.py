"""read(2), write(2) and the like with a buffer in enclave memory, which is the abort page for them.

While the call runs, the pages of the buffer are pages of ones; what the call writes there is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS
from softsgx.mem.tlb import READ, WRITE
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.process.call_filters import BUFFERS, ON_DESCRIPTOR
from softsgx.runner.process.interruption import restart_at_exit
from softsgx.runner.process.stops import Handler, areas, resume, run_changed, serve_at_exit

if TYPE_CHECKING:
    from softsgx.runner.process.tracee import Tracee
    from softsgx.runner.traps.abort_page import AbortPage

_INTO_MEMORY: Final = (nr.READ, nr.PREAD64, nr.RECVFROM)
_LENGTH_MAX: Final = 4 << 20  # a longer transfer ends early
_RESTARTS: Final = (-ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND)


class Buffers:
    """Serves transfers whose buffer is in an enclave area."""

    def __init__(self, abort_page: AbortPage) -> None:
        self._abort_page = abort_page

    def handlers(self) -> dict[int, Handler]:
        """By number of the system call. `Descriptors` passes on those that it handles itself."""
        return dict.fromkeys(set(BUFFERS) - set(ON_DESCRIPTOR), self._transfer)

    def _transfer(self, t: Tracee, regs: list[int]) -> None:
        if not self.serve(t, regs):
            resume(t)

    def serve(self, t: Tracee, regs: list[int]) -> bool:
        """Serve a call if part of its buffer is in an enclave area; False if not."""
        number, address, length = regs[p.ORIG_RAX], regs[p.RSI], min(regs[p.RDX], _LENGTH_MAX)
        if number not in BUFFERS or not areas(t, address, length):
            return False
        access = WRITE if number in _INTO_MEMORY else READ
        if t.tid in p.HELD:
            opened = self._abort_page.open_range(t, address, length, access)
            changes = {p.RDX: length}
            run_changed(t, regs, changes, lambda t, _: self._abort_page.close(t, opened))
            return True

        def run(t: Tracee) -> int:
            opened = self._abort_page.open_range(t, address, length, access)
            rest = (regs[n] for n in (p.R10, p.R8, p.R9))
            result = t.inject(number, regs[p.RDI], address, length, *rest)
            self._abort_page.close(t, opened)
            if result in _RESTARTS:
                restart_at_exit(t, number)
            return result

        serve_at_exit(t, regs, run)
        return True
