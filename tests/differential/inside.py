"""Operations: stays in an enclave, their resumption, and whole changes of a page by a runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from softsgx.linux import uapi
from softsgx.linux.uapi import SgxEnclaveRun
from softsgx.spec import faults, leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
    PT_TCS,
    PT_TRIM,
    REG,
    RWX,
    TCS,
    TRIM,
    VALID,
    R,
    W,
    X,
)
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.system.host import EnclaveEntry
from tests.differential.calls import host_of, ioctl
from tests.differential.mappings import map_all
from tests.differential.operations import STORES
from tests.differential.world import SCRATCH, TCS_PAGES

if TYPE_CHECKING:
    from softsgx.sim import Steps
    from softsgx.system import EnclaveThread
    from tests.differential.stage import Place, Slot, Stage

_FRAMES: Final = 2  # SSA frames of a TCS
Todo = list[tuple[str, int, int]]
_ACCEPTED: Final = (
    *(REG | PENDING | R | W, REG | PR | R, REG | PR | R | W, TRIM | MODIFIED, TCS | MODIFIED),
    *(REG | PR, REG | PR | R | X, REG | R | W, REG | PR | RWX),
)


def _tcs(place: Place, number: int) -> int:
    """A TCS of the image, or now and then a page that may have become one, or not."""
    page = TCS_PAGES[number % 2] if number < 14 else (12, 7)[number - 14]
    return place.base + page * PAGE_SIZE


def _work(place: Place, todo: tuple[int, ...]) -> Todo:
    return [
        (STORES[todo[n] % len(STORES)], place.base + todo[n + 1] * PAGE_SIZE, todo[n + 2])
        for n in range(0, len(todo) - 2, 3)
    ]


def _enter(stage: Stage, slot: Slot, e: int, tcs: int, *todo: int) -> Steps[Any]:
    """EENTER; mostly ERESUME where no SSA frame is left."""
    place = stage.known(host_of(slot), e)
    at = _tcs(place, tcs)
    entry, value = place.entries.get(at), sum(todo)
    if entry is not None and len(entry.stacks.get(at, ())) == _FRAMES and value % 8:
        return (yield from _resume(stage, slot, e, tcs, *todo))
    if value % 4 and host_of(slot).thread.mm.vma_lookup(at) is None:
        yield from map_all(stage, slot, place.number, tcs)
    return (yield from _stay(stage, slot, place, at, leaves.EENTER, _work(place, todo)))


def _resume(stage: Stage, slot: Slot, e: int, tcs: int, *todo: int) -> Steps[Any]:
    """ERESUME of what an exception has stopped: it is tried again, or its program goes on with
    other work, as after a handler that has moved RIP."""
    place = stage.known(host_of(slot), e)
    at = _tcs(place, tcs)
    entry = place.entries.get(at)
    if at in place.busy or entry is None or not entry.stacks.get(at):
        return "nothing"
    if sum(todo) % 4:
        thread, body = entry.stacks[at].pop()
        body.close()
        thread.args = (stage, place, _work(place, todo), list[Any]())
        entry.stacks[at].append((thread, thread.run(_program)))
    return (yield from _stay(stage, slot, place, at, leaves.ERESUME, []))


def _stay(stage: Stage, slot: Slot, place: Place, tcs: int, leaf: int, todo: Todo) -> Steps[Any]:
    """One call of the vDSO function: the run structure, and what the program found."""
    if tcs in place.busy:  # the program of a TCS belongs to the thread that runs it
        return "busy"
    host = host_of(slot)
    slots = place.base + SCRATCH * PAGE_SIZE
    entry = place.entries.get(tcs)
    if entry is None:
        entry = EnclaveEntry(_program, lambda at: slots + (at >> 12) % 64 * 64)
        place.entries[tcs] = entry
    run, found = SgxEnclaveRun(tcs=tcs), list[Any]()
    busy = place.busy  # which is another one when the place has a new enclave
    busy.add(tcs)
    try:
        ret = yield from host.enter(entry, run, leaf, args=(stage, place, todo, found))
    finally:
        busy.discard(tcs)
    return ret, run.pack()[:24], found


def _program(t: EnclaveThread) -> Steps[Any]:
    stage, place, todo, found = t.args
    for name, address, value in todo:
        found.append((yield from _WORK[name](t, stage, place, address, value)))


Inside = Any


def _load(t: Inside, _s: Stage, _p: Place, at: int, v: int) -> Any:
    return t.load(at + v * 60, 8)


def _store(t: Inside, _s: Stage, _p: Place, at: int, v: int) -> Any:
    return t.store(at + v * 60, bytes([v, 1, 2, v]))


def _fetch(t: Inside, _s: Stage, _p: Place, at: int, _v: int) -> Any:
    return t.fetch(at)


def _accept(t: Inside, _s: Stage, _p: Place, at: int, v: int) -> Steps[Any]:
    return (yield from _code(t.eaccept(at, _ACCEPTED[v % len(_ACCEPTED)])))


def _accept_new(t: Inside, _s: Stage, _p: Place, at: int, _v: int) -> Steps[Any]:
    return (yield from _code(t.accept_new(at)))


def _claim(t: Inside, stage: Stage, _p: Place, at: int, _v: int) -> Steps[Any]:
    """EACCEPT with what the EPCM has, as enclave code that knows what was done."""
    epcm = stage.processor.epcm
    for page, word in enumerate(epcm.state):
        if word & VALID and epcm.address[page] == at:
            kept = RWX | PENDING | MODIFIED | PR | PT_MASK
            return (yield from _code(t.eaccept(at, word & kept)))
    return "absent"


def _emodpe(t: Inside, _s: Stage, _p: Place, at: int, v: int) -> Any:
    return t.emodpe(at, v % 8)


def _copy(t: Inside, _s: Stage, place: Place, at: int, v: int) -> Steps[Any]:
    source = place.base + (7 + v % 5) * PAGE_SIZE
    return (yield from _code(t.eacceptcopy(at, source, R | v % 8)))


def _pause(_t: Inside, _s: Stage, _p: Place, _at: int, v: int) -> Steps[Any]:
    for _ in range(1 + v % 3):
        yield ("pause", "enclave", False)


def _raise(t: Inside, _s: Stage, _p: Place, _at: int, v: int) -> Any:
    return t.exception((faults.UD, faults.DE, faults.BP)[v % 3])


def _fill_tcs(t: Inside, _s: Stage, _p: Place, at: int, _v: int) -> Any:
    return t.store(at, TCS_PAGE(OSSA=PAGE_SIZE, NSSA=2, OENTRY=0).pack())


def _code(steps: Steps[Any]) -> Steps[int]:
    return int((yield from steps))


_WORK: Final[dict[str, Any]] = {
    "load": _load,
    "store": _store,
    "fetch": _fetch,
    "accept": _accept,
    "accept_new": _accept_new,
    "claim": _claim,
    "emodpe": _emodpe,
    "copy": _copy,
    "pause": _pause,
    "raise": _raise,
    "tcs": _fill_tcs,
}


def _cycle(stage: Stage, slot: Slot, e: int, page: int, v: int) -> Steps[Any]:
    """What a runtime does to a page: the ioctl, EACCEPT inside, and what comes after.

    A new page; trim and remove; a new thread; restrict and extend again.
    """
    place, kind = stage.known(host_of(slot), e), v % 4
    at, offset = place.base + page * PAGE_SIZE, page * PAGE_SIZE
    tcs = _tcs(place, v // 4 % 2)
    found: list[Any] = []

    def stay(*todo: str) -> Steps[None]:
        work = [(name, at, v) for name in todo]
        found.append((yield from _stay(stage, slot, place, tcs, leaves.EENTER, work)))

    def change(request: int, argument: Any) -> Steps[None]:
        argument.offset, argument.length = offset, PAGE_SIZE
        found.append((yield from ioctl(stage, slot, place, request, argument)))

    modify = uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES
    if kind == 0:
        yield from stay("accept_new", "store", "load")
    elif kind == 1:
        yield from change(modify, uapi.SgxEnclaveModifyTypes(page_type=PT_TRIM))
        yield from stay("claim")
        yield from change(uapi.SGX_IOC_ENCLAVE_REMOVE_PAGES, uapi.SgxEnclaveRemovePages())
    elif kind == 2:
        yield from stay("tcs")
        yield from change(modify, uapi.SgxEnclaveModifyTypes(page_type=PT_TCS))
        yield from stay("claim")
    else:
        block = uapi.SgxEnclaveRestrictPermissions(permissions=R)
        yield from change(uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, block)
        yield from stay("claim", "emodpe", "load")
    return found


OPERATIONS: Final[dict[str, Any]] = {"enter": _enter, "resume": _resume, "cycle": _cycle}
