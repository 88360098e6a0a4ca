"""Concurrency of leaves: the resources that a leaf in flight holds.

SDM 3D, 41.1.5 "Concurrent Operation Restrictions".

A leaf that runs in a task claims the resources `spec.concurrency` lists for it, yields one point,
runs its body, releases. A body tests `lp.busy` at the place where its operation listing tests for
the conflict, so that the refusal keeps its place in the order of checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from softsgx.cpu.fault import Fault
from softsgx.spec import concurrency
from softsgx.spec.concurrency import CONCURRENCY, EXCLUSIVE, REFUSED
from softsgx.spec.paging import PAGEINFO
from softsgx.spec.registers import RBX, RCX, RDX

if TYPE_CHECKING:
    from softsgx.cpu.memory import LpMemory

_KIND: Final = {
    concurrency.BASE: 0,
    concurrency.M: 1,
    concurrency.B: 2,
    concurrency.T: 3,
}

_SECS_AT: Final = PAGEINFO.offset_of("SECS")

_Resolver = Callable[["LpMemory", bool], int]
# What one operand is claimed for: (kind number, exclusive, refused only, busy bit).
_Part = tuple[int, bool, bool, int]
Held = tuple[tuple[int, bool], ...]


def busy_bits(lp: LpMemory, leaf: str, user: bool) -> int:
    """Which resources of `leaf` other leaves hold now. Operands are in the registers of `lp`."""
    claims = lp.processor.claims
    busy = 0
    for resolve, parts in _COMPILED[leaf]:
        page = _resolved(lp, resolve, user)
        if page >= 0:
            for kind, exclusive, _refused, bit in parts:
                count = claims.get(page << 2 | kind, 0)
                if count < 0 or (exclusive and count):
                    busy |= bit
    return busy


def claim(lp: LpMemory, leaf: str, user: bool) -> tuple[int, Held, int]:
    """Take what `leaf` locks. Returns busy bits, what is held now, and the EPC page that its
    scheduling point names.

    If anything is busy nothing is held. The page is that of the first operand, -1 if there is none.
    """
    claims = lp.processor.claims
    busy, target = 0, None
    # Two operands of a leaf may be one page; it is claimed once, exclusively if either asks for
    # that.
    wanted: dict[int, bool] = {}
    for resolve, parts in _COMPILED[leaf]:
        page = _resolved(lp, resolve, user)
        if target is None:
            target = page
        if page < 0:
            continue
        for kind, exclusive, refused, bit in parts:
            key = page << 2 | kind
            count = claims.get(key, 0)
            if count < 0 or (exclusive and count):
                busy |= bit
            elif not refused:
                wanted[key] = exclusive or wanted.get(key, False)
    target = -1 if target is None else target
    if busy:
        return busy, (), target
    for key, exclusive in wanted.items():
        claims[key] = -1 if exclusive else claims.get(key, 0) + 1
    return 0, tuple(wanted.items()), target


def claim_moved(lp: LpMemory, leaf: str, user: bool, held: Held) -> bool:
    """Whether the operands lead to other pages now than when `held` was claimed."""
    wanted: dict[int, None] = {}
    for resolve, parts in _COMPILED[leaf]:
        page = _resolved(lp, resolve, user)
        if page >= 0:
            wanted.update((page << 2 | kind, None) for kind, _, refused, _ in parts if not refused)
    return list(wanted) != [key for key, _exclusive in held]


def release(lp: LpMemory, held: Held) -> None:
    """Give back what `claim` took."""
    claims = lp.processor.claims
    for key, exclusive in held:
        left = 0 if exclusive else claims[key] - 1
        if left:
            claims[key] = left
        else:
            del claims[key]


def _resolved(lp: LpMemory, resolve: _Resolver, user: bool) -> int:
    """EPC page number of a leaf's operand; -1 if there is none, and the body will refuse that."""
    try:
        return resolve(lp, user)
    except Fault:
        return -1


def _pageinfo_secs(lp: LpMemory, _user: bool) -> int:
    rbx = lp.regs[RBX]
    if rbx % PAGEINFO.ALIGN:
        return -1
    raw = lp.system_read(rbx + _SECS_AT, 8)
    return lp.peek_epc_page(int.from_bytes(raw, "little"), False)


def _parent(lp: LpMemory, user: bool) -> int:
    page = lp.peek_epc_page(lp.regs[RCX], user)
    owner = _owner(lp, user)
    return -1 if owner == page else owner


def _owner(lp: LpMemory, user: bool) -> int:
    page = lp.peek_epc_page(lp.regs[RCX], user)
    secs = None if page < 0 else lp.processor.secs_of(page)
    return -1 if secs is None else secs.page


def _current_tcs(lp: LpMemory, _user: bool) -> int:
    return lp.tcs_page


_RESOLVERS: Final[dict[str, _Resolver]] = {
    concurrency.RBX: lambda lp, user: lp.peek_epc_page(lp.regs[RBX], user),
    concurrency.RCX: lambda lp, user: lp.peek_epc_page(lp.regs[RCX], user),
    concurrency.RDX: lambda lp, user: lp.peek_epc_page(lp.regs[RDX], user),
    concurrency.PAGEINFO_SECS: _pageinfo_secs,
    concurrency.PARENT: _parent,
    concurrency.OWNER: _owner,
    concurrency.CURRENT_TCS: _current_tcs,
}


def _compile(leaf: str) -> tuple[tuple[_Resolver, tuple[_Part, ...]], ...]:
    """The claims of a leaf by operand, so that each operand is resolved once."""
    parts: dict[str, list[_Part]] = {}
    for c in CONCURRENCY[leaf]:
        part = (_KIND[c.kind], c.mode == EXCLUSIVE, c.mode == REFUSED, c.busy)
        parts.setdefault(c.operand, []).append(part)
    return tuple((_RESOLVERS[operand], tuple(found)) for operand, found in parts.items())


_COMPILED: Final = {leaf: _compile(leaf) for leaf in CONCURRENCY}
