"""Signals to a thread in the supervisor's code: the handler must see it at the ENCLU or after it.

`inserted/stub.py` says in which phase of an ENCLU each instruction of the stub is; here the thread
is rolled back or forward accordingly.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from softsgx.runner.host import ptrace as p
from softsgx.runner.inserted.box import IDLE, REPLY
from softsgx.runner.inserted.layout import END, GATE, STUB
from softsgx.runner.inserted.stub import PHASES, Phase, Range, rolled_back, rolled_forward, where
from softsgx.runner.process import forced
from softsgx.runner.process.tracee import Tracee, in_model_order
from softsgx.runner.ways import WAYS
from softsgx.spec.registers import RIP

if TYPE_CHECKING:
    from softsgx.runner.enclaves.engine import Engine
    from softsgx.runner.inserted.records import AnyMailboxes
    from softsgx.runner.inserted.vdso import VdsoImage


class InsertedCode:
    """Takes threads out of the stub, the mailboxes and the way into native enclaves.

    `enclu(t, regs, rip)` executes an ENCLU of a stopped thread.
    """

    def __init__(
        self,
        engine: Engine,
        mailboxes: AnyMailboxes,
        vdso: VdsoImage,
        enclu: Callable[[Tracee, list[int], int], None],
    ) -> None:
        self._engine = engine
        self._mailboxes = mailboxes
        self._vdso = vdso
        self._enclu = enclu
        self._phases = _phases()

    def leave(self, t: Tracee) -> None:
        """Set the registers to those at the ENCLU, or to those after it."""
        regs = p.get_regs(t.tid)
        rip = regs[p.RIP]
        if not GATE <= rip < END:
            return
        if self._engine.on_the_way(t, regs):
            return
        vdso, mailboxes = self._vdso, self._mailboxes
        if rip == vdso.jump or (rip == STUB and not WAYS.traced):
            regs[p.RIP] = vdso.enclu
            p.set_regs(t.tid, regs)
            return
        place = where(rip, self._phases)
        if place is None:
            return
        mailbox = place.mailbox
        if mailbox is None:
            mailbox = mailboxes.control.find(t.tid)
        if place.phase is Phase.WAIT and t.mailbox is not None:
            self._engine.interrupted(t)
        elif place.phase is Phase.WAIT and mailbox is not None:
            state = mailboxes.control.state(mailbox)
            if state == REPLY:
                self._roll_forward(t, regs, mailbox)
            else:
                # A request that has not been taken yet: withdraw it.
                mailboxes.control.set_state(mailbox, IDLE)
                self._set(t, regs, mailboxes.boxes[mailbox].registers)
        elif place.phase is Phase.DEPART and mailbox is not None:
            self._roll_forward(t, regs, mailbox)
        elif place.phase in (Phase.ARRIVE, Phase.TRAP):
            current = _in_model_order(regs)
            self._set(t, regs, rolled_back(current, _reader(t), vdso.enclu, self._phases))

    def no_stack(self, t: Tracee, number: int) -> bool:
        """Serve an ENCLU whose stub faulted for lack of stack below the red zone: an ENCLU needs no
        stack. False if it was another fault."""
        if number not in (signal.SIGSEGV, signal.SIGBUS):
            return False
        regs = p.get_regs(t.tid)
        place = where(regs[p.RIP], self._phases)
        if place is None or place.phase is not Phase.ARRIVE:
            return False
        forced.undo(t, number)
        enclu = self._vdso.enclu
        t.model()
        t.lp.regs[:] = rolled_back(_in_model_order(regs), _reader(t), enclu, self._phases)
        regs = t.to_user(regs)
        regs[p.ORIG_RAX] = regs[p.RAX]
        self._enclu(t, regs, enclu)
        return True

    def _roll_forward(self, t: Tracee, regs: list[int], mailbox: int) -> None:
        mailboxes = self._mailboxes
        box = mailboxes.boxes[mailbox]
        mailboxes.control.set_state(mailbox, IDLE)
        p.set_fpregs(t.tid, box.fx)
        self._set(t, regs, rolled_forward(box))

    def _set(self, t: Tracee, regs: list[int], values: Sequence[int]) -> None:
        t.model()
        t.lp.regs[:] = values
        p.set_regs(t.tid, t.to_user(regs))


def _phases() -> Sequence[Range]:
    if WAYS.traced:
        return PHASES
    from softsgx.runner.inserted import systrap_stub

    return systrap_stub.PHASES


def _reader(t: Tracee) -> Callable[[int, int], bytes]:
    def read(address: int, size: int) -> bytes:
        data = p.read_memory(t.tid, address, size)
        if data is None:
            raise p.NoSuchTracee(3, "stack of a stopped thread is gone")
        return data

    return read


def _in_model_order(regs: list[int]) -> list[int]:
    out = list(in_model_order(regs))
    assert out[RIP] == regs[p.RIP]
    return out
