"""Operations: processes, threads, signals, limits, and the reclaimer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from softsgx.linux import syscalls
from softsgx.system import HostThread
from tests.differential.calls import host_of
from tests.differential.world import furnish

if TYPE_CHECKING:
    from softsgx.sim import Steps
    from tests.differential.stage import Slot, Stage


def _process(stage: Stage, slot: Slot, *_: int) -> Steps[Any]:
    """A new process, if nobody runs there."""
    if slot.host is not None or slot.reserved:
        return "taken"
    host = stage.machine.thread(cpu=slot.cpu, name=f"main {stage.names}")
    stage.appear(slot, host)
    yield from furnish(host)
    for place in stage.places:  # SCM_RIGHTS
        if place.file is not None and place.file.count:
            place.file.get()
            host.process.install_fd(place.file)
    return "begun"


def _free(stage: Stage, v: int) -> Slot | None:
    free = [s for s in stage.slots if s.host is None and s.task is None and not s.reserved]
    return free[v % len(free)] if free else None


def _fork(stage: Stage, slot: Slot, _e: int, v: int) -> Steps[Any]:
    target = _free(stage, v)
    if target is None:
        return "no processor"
    target.reserved = True
    try:
        child = yield from host_of(slot).fork(f"child {stage.names}", target.cpu)
        stage.appear(target, child)
    finally:
        target.reserved = False
    return target.cpu


def _thread(stage: Stage, slot: Slot, _e: int, v: int) -> Steps[Any]:
    target = _free(stage, v)
    if target is None:
        return "no processor"
    name = f"thread {stage.names}"
    stage.appear(target, HostThread(stage.kernel, host_of(slot).process, name, target.cpu))
    return target.cpu
    yield


def _alone(stage: Stage, slot: Slot) -> bool:
    """Whether no other thread of the process is in a call; if none is, they end."""
    mates = stage.mates(host_of(slot))
    if any(mate.task is not None for mate in mates):
        return False
    for mate in mates:
        assert mate.host is not None
        mate.host.thread.switch_out()
        mate.host = None
    return True


def _exit(stage: Stage, slot: Slot, *_: int) -> Steps[Any]:
    if not _alone(stage, slot):
        return "not alone"
    yield from host_of(slot).exit()
    slot.host = None
    return "ended"


def _exec(stage: Stage, slot: Slot, *_: int) -> Steps[Any]:
    if not _alone(stage, slot):
        return "not alone"
    host = host_of(slot)
    ret = yield from syscalls.sys_execve(host.thread)
    stage.appear(slot, host)
    yield from furnish(host)
    return ret


def _signal(stage: Stage, slot: Slot, _e: int, v: int) -> Steps[Any]:
    """A signal for a thread that is in a call, or for the next call of an idle one."""
    others = [s for s in stage.slots if s.host is not None]
    target = others[v % len(others)].host
    assert target is not None
    target.thread.pending_signals = 1
    return v % len(others)
    yield


def _reclaim(stage: Stage, slot: Slot, _e: int) -> Steps[Any]:
    """A pass of the reclaimer, as if the thread were short of EPC."""
    return stage.kernel.driver.reclaim(host_of(slot).thread)


def _limit(_stage: Stage, slot: Slot, _e: int, v: int) -> Steps[Any]:
    """vm.max_map_count: nearly reached, or far away."""
    mm = host_of(slot).thread.mm
    mm.max_map_count = len(mm.vmas) + v % 3 if v & 1 else 65530
    return None
    yield


def _persona(_stage: Stage, slot: Slot, _e: int, v: int) -> Steps[Any]:
    """personality(2): READ_IMPLIES_EXEC, mostly off."""
    host_of(slot).thread.mm.read_implies_exec = v % 4 == 0
    return None
    yield


def _noexec(stage: Stage, _slot: Slot, _e: int, v: int) -> Steps[Any]:
    """/dev is mounted noexec, mostly not."""
    stage.kernel.dev_noexec = v % 4 == 0
    return None
    yield


OPERATIONS: Final[dict[str, Any]] = {
    "process": _process,
    "fork": _fork,
    "thread": _thread,
    "exit": _exit,
    "exec": _exec,
    "signal": _signal,
    "reclaim": _reclaim,
    "limit": _limit,
    "persona": _persona,
    "noexec": _noexec,
}
