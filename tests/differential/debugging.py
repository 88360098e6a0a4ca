"""Operations: a debugger's view of another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from softsgx.spec.bits import PAGE_SIZE
from tests.differential.calls import host_of

if TYPE_CHECKING:
    from softsgx.sim import Steps
    from tests.differential.stage import Slot, Stage


def _debug(stage: Stage, slot: Slot, e: int, page: int, v: int) -> Steps[Any]:
    """Peek, poke, /proc/<pid>/mem, process_vm_readv, at any alignment."""
    host = host_of(slot)
    others = [s.host for s in stage.slots if s.host is not None]
    target = others[v % len(others)]
    assert target is not None
    process, at = target.process, stage.places[e].base + page * PAGE_SIZE + v * 61 % PAGE_SIZE
    kind = v % 5
    if kind == 0:
        return host.peek(process, at)
    if kind == 1:
        return host.poke(process, at, 0x1122_3344_5566_7788 + v)
    if kind == 2:
        return host.mem_read(process, at, 1 + v)
    if kind == 3:
        return host.mem_write(process, at, bytes(range(v)))
    return host.process_vm_readv(process, at, 1 + v)


OPERATIONS: Final[dict[str, Any]] = {"debug": _debug}
