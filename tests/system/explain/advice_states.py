"""States of an enclave page, made as programs make them, and what can be refused there.

A case is a machine, a history of the page, a change of its area, and an operation. The advice that
is printed is followed until the operation succeeds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Final

from softsgx.cpu import Part, Readings
from softsgx.linux.uapi import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MREMAP_FIXED, MREMAP_MAYMOVE
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PR,
    REG,
    RWX,
    TCS,
    TRIM,
    R,
    W,
    X,
)
from softsgx.spec.keys import KEYREQUEST, SEAL_KEY
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.system import EnclaveThread, Machine, load
from softsgx.system.snapshot import Snapshot
from tests.linux.world import World
from tests.system.explain.advised import Attempt, evict, rig, spare

# Machines


def machine(**options: object) -> Callable[[], Machine]:
    return lambda: Machine(cpus=4, epc="1M", explain=True, **options)  # type: ignore[arg-type]


MACHINES: Final = {
    "6.12": machine(),
    "6.1": machine(linux="6.1"),
    "v2": machine(linux="v2"),
    "sgx1": machine(part=Part(sgx2=False)),
    "both need R": machine(readings=Readings(emodpe_needs_read=True, eaccept_needs_read=True)),
    "EACCEPT needs R": machine(readings=Readings(eaccept_needs_read=True)),
}

# Histories: each returns the address of the page


def _on_last(w: World, body: Callable[[EnclaveThread], object]) -> None:
    w.do(w.enclave.call(w.host, body, thread=len(w.enclave.tcs) - 1))  # type: ignore[arg-type]


def accept(w: World, page: int, flags: int) -> None:
    _on_last(w, lambda t: t.eaccept(page, flags))


def added(w: World) -> int:
    return w.enclave.data[0]


def touched(w: World) -> int:
    page = w.enclave.data[0]
    _on_last(w, lambda t: t.load(page))
    return page


def hole(w: World) -> int:
    return w.enclave.heap


def pending(w: World) -> int:
    """Mapped and PENDING: the host has touched it."""
    w.do(w.host.load(w.enclave.heap, 1))
    return w.enclave.heap


def grown(w: World) -> int:
    accept(w, w.enclave.heap, REG | PENDING | R | W)
    return w.enclave.heap


def executable(w: World) -> int:
    page = grown(w)
    _on_last(w, lambda t: t.emodpe(page, X))
    return page


def restricted_to(rights: int, accepted: bool) -> Callable[[World], int]:
    def restricted(w: World) -> int:
        page = w.enclave.data[0]
        assert w.do(w.enclave.restrict(w.host, page, PAGE_SIZE, rights))[0] == 0
        if accepted:
            accept(w, page, REG | PR | rights)
        return page

    return restricted


def retyped(kind: str, accepted: bool) -> Callable[[World], int]:
    def change(w: World) -> int:
        page = touched(w)
        contents = TCS_PAGE(OSSA=a_tcs(w) + PAGE_SIZE - w.enclave.base, NSSA=2).pack()
        _on_last(w, lambda t: t.store(page, contents))
        if kind == "TRIM":
            assert w.do(w.enclave.trim(w.host, page, PAGE_SIZE))[0] == 0
        else:
            assert w.do(w.enclave.make_tcs(w.host, page))[0] == 0
        if accepted:
            accept(w, page, (TRIM if kind == "TRIM" else TCS) | MODIFIED)
        return page

    return change


def removed(w: World) -> int:
    page = retyped("TRIM", True)(w)
    assert w.do(w.enclave.remove(w.host, page, PAGE_SIZE))[0] == 0
    return page


def a_tcs(w: World) -> int:
    return w.enclave.tcs[-2]


def evicted(before: Callable[[World], int]) -> Callable[[World], int]:
    def then(w: World) -> int:
        page = before(w)
        entry = w.encl.page(page)
        assert entry is not None
        assert entry.epc_page is not None
        w.do(evict(w.host, entry.epc_page))
        return page

    return then


def on_its_way_out(before: Callable[[World], int]) -> Callable[[World], int]:
    """BLOCKED while the page table still leads to it: the kernel zaps too late."""

    def then(w: World) -> int:
        page = before(w)
        w.do(w.host.load(page, 1))
        entry = w.encl.page(page)
        assert entry is not None
        assert entry.epc_page is not None
        epcm, number = w.machine.processor.epcm, entry.epc_page.number
        epcm.put(number, epcm.state[number] | BLOCKED)
        return page

    return then


SGX1: Final[dict[str, Callable[[World], int]]] = {
    "added": added,
    "touched": touched,
    "hole": hole,
    "a TCS": a_tcs,
    "evicted": evicted(touched),
    "blocked": on_its_way_out(touched),
}
HISTORIES: Final[dict[str, Callable[[World], int]]] = SGX1 | {
    "pending": pending,
    "grown": grown,
    "executable": executable,
    "restricted to r": restricted_to(R, accepted=False),
    "restricted to r, accepted": restricted_to(R, accepted=True),
    "restricted to nothing": restricted_to(0, accepted=False),
    "restricted to nothing, accepted": restricted_to(0, accepted=True),
    "trimmed": retyped("TRIM", accepted=False),
    "trimmed, accepted": retyped("TRIM", accepted=True),
    "removed": removed,
    "to be a TCS": retyped("TCS", accepted=False),
    "became a TCS": retyped("TCS", accepted=True),
    "pending, evicted": evicted(pending),
    "restricted, evicted": evicted(restricted_to(0, accepted=False)),
    "trimmed, evicted": evicted(retyped("TRIM", accepted=False)),
    "pending, blocked": on_its_way_out(pending),
}

# The area, afterwards


def as_it_was(w: World, page: int) -> None:
    """Nothing."""


def protected(prot: int) -> Callable[[World, int], None]:
    """As far as the kernel permits it."""

    def change(w: World, page: int) -> None:
        w.protect(page, prot)

    return change


def unmapped(w: World, page: int) -> None:
    assert w.do(w.host.munmap(page, PAGE_SIZE)) == 0


def covered(w: World, page: int) -> None:
    """By host memory, which has been touched."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    assert w.do(w.host.mmap(page, PAGE_SIZE, R | W, flags)) == page
    w.do(w.host.store(page, b"host"))


def moved_here(w: World, page: int) -> None:
    """The area of another page of the enclave."""
    other = w.enclave.data[4]
    _on_last(w, lambda t: t.load(other))
    flags = MREMAP_MAYMOVE | MREMAP_FIXED
    assert w.do(w.host.mremap(other, PAGE_SIZE, PAGE_SIZE, flags, page)) == page


def of_another_enclave(w: World, page: int) -> None:
    """The page table leads to a page of another enclave: a faulty kernel."""
    other = w.do(load(w.host, pages=1))
    theirs = World(w.machine, w.host, other)
    theirs.call(lambda t: t.load(other.data[0]))
    vma = w.mm.vma_lookup(page)
    assert vma is not None
    w.mm.space.set(page, w.mm.space.lookup(other.data[0]))


AREAS: Final[dict[str, Callable[[World, int], None]]] = {
    "as it was": as_it_was,
    "none": protected(0),
    "r": protected(R),
    "rw": protected(R | W),
    "rx": protected(R | X),
    "rwx": protected(RWX),
    "w": protected(W),
    "unmapped": unmapped,
    "host memory": covered,
    "moved": moved_here,
    "another enclave's": of_another_enclave,
}

# Operations


def access(right: int, *, outside: bool = False) -> Callable[[World, int], Attempt]:
    return lambda w, page: Attempt(w, page, right, outside)


def leaf(number: int, secinfo: int) -> Callable[[World, int], Attempt]:
    def made(w: World, page: int) -> Attempt:
        rbx, rdx = spare(w, "rbx"), spare(w, "rcx")
        return Attempt(w, leaf=number, rbx=rbx, rcx=page, rdx=rdx, secinfo=secinfo)

    return made


def eenter(w: World, page: int) -> Attempt:
    return Attempt(w, leaf=leaves.EENTER, rbx=page)


def as_operand(leaf_: int, operand: str) -> Callable[[World, int], Attempt]:
    """The page holds the SECINFO, KEYREQUEST or the like; the other operands are good."""

    def attempt(w: World, page: int) -> Attempt:
        made = Attempt(w, leaf=leaf_)
        for name in ("rbx", "rcx", "rdx"):
            setattr(made, name, page if name == operand else spare(w, name))
        if leaf_ == leaves.EACCEPTCOPY:
            made.rcx = w.enclave.heap + PAGE_SIZE
            made.secinfo = REG | R | W
        if leaf_ == leaves.EGETKEY:
            made.contents = KEYREQUEST(KEYNAME=SEAL_KEY).pack()
        return made

    return attempt


OUTSIDE: Final[dict[str, Callable[[World, int], Attempt]]] = {
    "host reads": access(R, outside=True),
    "host writes": access(W, outside=True),
}
ACCESSES: Final[dict[str, Callable[[World, int], Attempt]]] = {
    "read": access(R),
    "write": access(W),
    "fetch": access(X),
    "EENTER": eenter,
    "EGETKEY to it": as_operand(leaves.EGETKEY, "rcx"),
    "EREPORT to it": as_operand(leaves.EREPORT, "rdx"),
    "EREPORT from it": as_operand(leaves.EREPORT, "rcx"),
    **OUTSIDE,
}
OPERATIONS: Final[dict[str, Callable[[World, int], Attempt]]] = ACCESSES | {
    "EACCEPT new": leaf(leaves.EACCEPT, REG | PENDING | R | W),
    "EACCEPT r": leaf(leaves.EACCEPT, REG | PR | R),
    "EACCEPT none": leaf(leaves.EACCEPT, REG | PR),
    "EACCEPT TRIM": leaf(leaves.EACCEPT, TRIM | MODIFIED),
    "EACCEPT TCS": leaf(leaves.EACCEPT, TCS | MODIFIED),
    "EACCEPT malformed": leaf(leaves.EACCEPT, REG | R),
    "EACCEPT of no type": leaf(leaves.EACCEPT, REG + TRIM | PENDING),
    "EACCEPT MODIFIED": leaf(leaves.EACCEPT, REG | MODIFIED | R),
    "EMODPE r": leaf(leaves.EMODPE, REG | R),
    "EMODPE w": leaf(leaves.EMODPE, REG | W),
    "EMODPE rwx": leaf(leaves.EMODPE, REG | RWX),
    "EACCEPTCOPY": leaf(leaves.EACCEPTCOPY, REG | R | W),
    "EACCEPTCOPY w": leaf(leaves.EACCEPTCOPY, REG | W),
    "EACCEPTCOPY TRIM": leaf(leaves.EACCEPTCOPY, TRIM | R),
    "EACCEPTCOPY from it": as_operand(leaves.EACCEPTCOPY, "rdx"),
}


_RIGS: Final[dict[str, tuple[World, Snapshot]]] = {}


def fresh(name: str) -> World:
    """A machine with an enclave; building one takes ten times as long as a case."""
    if name in _RIGS:
        w, snapshot = _RIGS.pop(name)
        w.machine.settle()
        snapshot.restore()
    else:
        w = rig(MACHINES[name]())
        w.machine.settle()
        snapshot = Snapshot(w.machine.processor, w)
    _RIGS[name] = w, snapshot
    return w


@dataclass(frozen=True)
class Case:
    """Names of the four tables."""

    machine: str
    history: str
    area: str
    operation: str

    def attempt(self) -> Attempt:
        """The machine in that state, and the attempt to make."""
        w = fresh(self.machine)
        page = HISTORIES[self.history](w)
        AREAS[self.area](w, page)
        return OPERATIONS[self.operation](w, page)


def possible(case: Case) -> bool:
    """Whether a machine can get into that state."""
    if case.machine == "sgx1":
        return case.history in SGX1 and case.operation in ACCESSES
    if case.machine == "v2" and "nothing" in case.history and case.area != "as it was":
        return False  # the kernel's mirror has no rights, but the area has some: not modelled
    if "need" in case.machine and case.history == "restricted to nothing, accepted":
        return False
    if case.area == "another enclave's" and "hole" in case.history:
        return case.operation not in OUTSIDE
    return True


def cases() -> list[Case]:
    """All cases."""
    every = product(MACHINES, HISTORIES, AREAS, OPERATIONS)
    return [case for case in (Case(*names) for names in every) if possible(case)]


def sample(count: int, seed: int) -> list[Case]:
    """Some cases, the same for the same seed."""
    return random.Random(seed).sample(cases(), count)
