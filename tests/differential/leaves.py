"""A processor whose leaves are noted one by one, and fail on demand.

The bodies of the leaves are wrapped, so both drivers meet the same processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from softsgx.cpu.fault import GP, PF, Fault, Status, refuse
from softsgx.spec.leaves import EDBGRD, ELDU, ENCLS_LEAVES, EWB
from softsgx.spec.registers import RBX
from tests.differential.armed import Armed
from tests.differential.deliberate import OPERANDS, WORD

if TYPE_CHECKING:
    from softsgx.cpu import Processor
    from softsgx.cpu.state import Body

Seen = tuple[Any, ...]
FAULT: Final = "fault"
_RULE: Final = "injected"
_PFEC: Final = 0x8003
# Leaves whose RDX is the slot of a VA page.
_WITH_SLOT: Final = frozenset({ENCLS_LEAVES[EWB][0], ENCLS_LEAVES[ELDU][0]})
_DEBUG_READ: Final = ENCLS_LEAVES[EDBGRD][0]


class Leaves:
    """What was executed since `seen` was emptied, and the failure that is armed.

    Noted: leaf, logical processor, RCX, the VA slot if there is one, and how it ended.
    """

    def __init__(self, processor: Processor) -> None:
        self.seen: list[Seen] = []
        self.armed = Armed()
        for instruction in ("encls_leaves", "enclu_leaves"):
            table = getattr(processor, instruction)
            wrapped = {n: (name, self._wrap(name, body)) for n, (name, body) in table.items()}
            setattr(processor, instruction, wrapped)

    def _wrap(self, name: str, body: Body) -> Body:
        slot = name in _WITH_SLOT

        def watched(lp: Any, rbx: int, rcx: int, rdx: int) -> Status | None:
            operands = (name, lp.id, *OPERANDS.even((rbx, rcx, rdx), slot))
            status: Status | None
            try:
                how = self.armed.due(name)
                status = body(lp, rbx, rcx, rdx) if how is None else _fail(how, rcx)
            except Fault as fault:
                self.seen.append((*operands, FAULT, fault.vector, fault.code, fault.address))
                raise
            if status and name == _DEBUG_READ:
                WORD.even(lp.regs, RBX)
            self.seen.append((*operands, None if status is None else int(status)))
            return status

        return watched


def _fail(how: str, rcx: int) -> Status:
    if how == "#GP":
        raise GP(_RULE)
    if how == "#PF":
        raise PF(rcx, _RULE, _PFEC)
    return refuse(_RULE, int(how))
