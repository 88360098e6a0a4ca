"""Operations: areas of enclaves, with odd ranges, and accesses of the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from softsgx.linux.uapi import (
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PROT_EXEC,
    PROT_READ,
    PROT_SEM,
    PROT_WRITE,
)
from softsgx.spec.bits import PAGE_SIZE
from tests.differential.calls import host_of
from tests.differential.operations import BIG_PAGES
from tests.differential.world import ALIAS, DATA, HOLE, READ_ONLY, SIZE

if TYPE_CHECKING:
    from softsgx.sim import Steps
    from tests.differential.stage import Slot, Stage

_RW: Final = PROT_READ | PROT_WRITE
_PROTS: Final = (
    *(_RW, _RW, _RW, _RW | PROT_EXEC, PROT_READ, 0, PROT_READ | PROT_EXEC, PROT_WRITE, PROT_EXEC),
    *(_RW | PROT_SEM, 0x40),
)
_FIXED: Final = MAP_SHARED | MAP_FIXED


def _range(stage: Stage, e: int, page: int, count: int, spoil: int) -> tuple[int, int]:
    """Address and length: some pages of an enclave, or nearly."""
    start, length = stage.places[e].base + page * PAGE_SIZE, count * PAGE_SIZE
    return (
        (start, length),
        (start + 8, length),
        (start, length - 8),
        (start, 0),
        (start, (1 << 64) - PAGE_SIZE),
        (start - SIZE, length + SIZE),
        (start, length + SIZE),
        ((1 << 47) - PAGE_SIZE, length),
        (start + ALIAS, length),
    )[spoil if spoil < 9 else 0]


def map_all(stage: Stage, slot: Slot, e: int, v: int) -> Steps[Any]:
    """Map as a loader does: pages of the image with their rights, the hole with all rights."""
    host, place = host_of(slot), stage.places[e]
    more = PROT_EXEC if v & 1 else 0
    found = []
    for first, end, prot in (
        (0, DATA, _RW),
        (DATA, DATA + 3, _RW | more),
        (DATA + 3, READ_ONLY, _RW),
        (READ_ONLY, HOLE, PROT_READ),
        (HOLE, SIZE // PAGE_SIZE, _RW | PROT_EXEC),
        *((SIZE // PAGE_SIZE, BIG_PAGES, _RW),) * place.big,
    ):
        at, length = place.base + first * PAGE_SIZE, (end - first) * PAGE_SIZE
        fd = stage.fd(host, place)
        found.append((yield from host.mmap(at, length, prot, _FIXED, fd)))
    return found


_FLAGS: Final = {
    9: MAP_SHARED | MAP_FIXED_NOREPLACE,
    10: MAP_PRIVATE | MAP_FIXED,
    11: MAP_SHARED_VALIDATE | MAP_FIXED,
    12: MAP_SHARED,
    13: MAP_FIXED,
    14: _FIXED | MAP_GROWSDOWN,
    15: MAP_SHARED_VALIDATE | MAP_FIXED | 0x80000,
}


def _mmap(
    stage: Stage, slot: Slot, e: int, page: int, count: int, v: int, spoil: int
) -> Steps[Any]:
    host, place = host_of(slot), stage.places[e]
    start, length = _range(stage, e, page, count, spoil)
    prot = _PROTS[v % len(_PROTS)]
    fd = stage.fd(host, place) if v < 62 else 3
    offset = 0 if v < 32 else page * PAGE_SIZE
    return host.mmap(start, length, prot, _FLAGS.get(spoil, _FIXED), fd, offset)


def _munmap(stage: Stage, slot: Slot, e: int, page: int, count: int, spoil: int) -> Steps[Any]:
    return host_of(slot).munmap(*_range(stage, e, page, count, spoil))


def _mprotect(
    stage: Stage, slot: Slot, e: int, page: int, count: int, v: int, spoil: int
) -> Steps[Any]:
    start, length = _range(stage, e, page, count, spoil)
    return host_of(slot).mprotect(start, length, _PROTS[v % len(_PROTS)])


def _mremap(
    stage: Stage, slot: Slot, e: int, page: int, count: int, v: int, spoil: int
) -> Steps[Any]:
    """Move an area to the alias range or back, shrink it, try to grow it."""
    old, length = _range(stage, e, page, count, spoil)
    new = old + ALIAS
    if v & 16:
        old, new = new, old
    new_length, flags = length, MREMAP_MAYMOVE | MREMAP_FIXED
    if v & 32:
        new_length, flags = length // 2 // PAGE_SIZE * PAGE_SIZE, MREMAP_MAYMOVE
    if spoil > 12:
        new_length, flags = (
            length + PAGE_SIZE,
            (MREMAP_MAYMOVE, 5, 1 | MREMAP_DONTUNMAP)[spoil - 13],
        )
    return host_of(slot).mremap(old, length, new_length, flags, new)


def _madvise(
    stage: Stage, slot: Slot, e: int, page: int, count: int, v: int, spoil: int
) -> Steps[Any]:
    start, length = _range(stage, e, page, count, spoil)
    advice = v % 27 if v < 60 else 100
    return host_of(slot).madvise(start, length, advice)


def _touch(stage: Stage, slot: Slot, e: int, page: int, v: int) -> Steps[Any]:
    """The host reads, writes or executes enclave memory: ones, nothing, or a signal."""
    host = host_of(slot)
    at = stage.places[e].base + page * PAGE_SIZE + (ALIAS if v & 48 == 48 else 0)
    if v % 3 == 1:
        return (yield from host.store(at + v, b"host"))
    return (yield from host.load(at + v, 4))


def _age(stage: Stage, _slot: Slot, _e: int) -> Steps[Any]:
    """Time passes: no page was accessed of late, so the reclaimer takes any."""
    for mm in stage.mms:
        for page in list(mm.space.ptes):
            mm.space.test_and_clear_accessed(page * PAGE_SIZE)
    return None
    yield


OPERATIONS: Final[dict[str, Any]] = {
    "map": map_all,
    "mmap": _mmap,
    "munmap": _munmap,
    "mprotect": _mprotect,
    "mremap": _mremap,
    "madvise": _madvise,
    "touch": _touch,
    "age": _age,
}
