"""Each refusing layer: the headline, what the layers say, who changed it last, and the advice.

Rows name what refuses. Addresses in the texts are those of page 0 of the data, `PAGE` here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from softsgx.cpu import Readings
from softsgx.cpu.fault import Fault
from softsgx.cpu.tracking import stamp
from softsgx.linux.errno import EACCES, EINVAL, ENOMEM, EPERM
from softsgx.linux.uapi import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MREMAP_FIXED, MREMAP_MAYMOVE
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_NX, PTE_P, PTE_U, PTE_W
from softsgx.mem.tlb import CLEAN
from softsgx.mem.tlb import WRITE as TLB_WRITE
from softsgx.sim import Steps
from softsgx.spec import leaves
from softsgx.spec.attributes import ATTR_MODE64BIT, ATTR_PROVISIONKEY
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PR,
    REG,
    RWX,
    TCS,
    R,
    W,
    X,
)
from softsgx.spec.rules import RULES
from softsgx.spec.status import SGX_PAGE_NOT_TRACKED
from softsgx.system import EnclaveThread, HostThread, Machine, load
from softsgx.system.explain.facts import look
from softsgx.system.explain.history import CALLS_MAX, KEPT
from softsgx.system.explain.leaf_advice import Call, advice_for_leaf
from softsgx.system.explain.leaf_texts import TCS_CONTENTS
from tests.linux.building import Building
from tests.linux.world import World, world


def explained(**layout: int) -> World:
    machine = Machine(cpus=4, epc="1M", explain=True)
    return world(machine, **layout)


# Enclave code


def store(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"x")


def read(t: EnclaveThread) -> Steps[bytes]:
    return (yield from t.load(t.args))


def fetch(t: EnclaveThread) -> Steps[bytes]:
    return (yield from t.fetch(t.args))


def accept(flags: int, then: Callable[..., Steps[Any]] | None = None) -> Callable[..., Steps[Any]]:
    def program(t: EnclaveThread) -> Steps[Any]:
        status = yield from t.eaccept(t.args, flags)
        if then is not None:
            yield from then(t)
        return status

    return program


def leaf(number: int, rbx: int, rcx: int) -> Callable[..., Steps[Any]]:
    def program(t: EnclaveThread) -> Steps[Any]:
        return (yield from t.enclu(number, rbx, rcx))

    return program


# What is done to page 0 of the data before


def restricted(w: World, rights: int = R) -> int:
    page = w.enclave.data[0]
    assert w.do(w.enclave.restrict(w.host, page, PAGE_SIZE, rights))[0] == 0
    return page


def retyped(w: World, kind: str) -> int:
    page = w.enclave.data[0]
    if kind == "TRIM":
        ret, _ = w.do(w.enclave.trim(w.host, page, PAGE_SIZE))
    else:
        ret, _ = w.do(w.enclave.make_tcs(w.host, page))
    assert ret == 0
    return page


def word(w: World, page: int, change: Callable[[int], int]) -> int:
    """Spoil the EPCM entry of a page, which must be mapped."""
    w.call(read, page)
    epcm = w.machine.processor.epcm
    number = w.machine.processor.epc.index(w.mm.space.lookup(page) >> PAGE_SHIFT & 0xFFFFFFFFF)
    epcm.put(number, change(epcm.state[number]))
    return page


def pte_of_the_other_page(w: World) -> int:
    first, second = w.enclave.data[:2]
    w.call(read, second)
    w.call(read, first)
    w.mm.space.set(first, w.mm.space.lookup(second))
    return first


def pte_of_another_enclave(w: World) -> int:
    page = w.enclave.data[0]
    w.call(read, page)
    other = w.do(load(w.host, pages=1))
    theirs = World(w.machine, w.host, other)
    theirs.call(read, other.data[0])
    w.mm.space.set(page, w.mm.space.lookup(other.data[0]))
    return page


def no_area(w: World) -> int:
    page = w.enclave.data[0]
    assert w.do(w.host.munmap(page, PAGE_SIZE)) == 0
    return page


def protected(w: World, prot: int) -> int:
    page = w.enclave.data[0]
    w.call(store, page)
    assert w.protect(page, prot) == 0
    return page


def host_memory(w: World) -> int:
    page = no_area(w)
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    assert w.do(w.host.mmap(page, PAGE_SIZE, R | W, flags)) == page
    w.do(w.host.store(page, b"host"))
    return page


def moved_area(w: World) -> int:
    first, second = w.enclave.data[:2]
    w.call(read, first)
    flags = MREMAP_MAYMOVE | MREMAP_FIXED
    assert w.do(w.host.mremap(first, PAGE_SIZE, PAGE_SIZE, flags, second)) == second
    return second


def above_the_cap(w: World) -> int:
    """An area with more rights than the page's cap can only be older than the page."""
    page = w.enclave.data[0]
    entry = w.encl.page(page)
    assert entry is not None
    entry.vm_max_prot_bits = R
    return page


@dataclass(frozen=True)
class Row:
    """`says` are parts of the text, in their order."""

    name: str
    before: Callable[[World], int]
    program: Callable[..., Steps[Any]]
    says: tuple[str, ...]


ACCESSES = [
    Row(
        "EPCM lacks W",
        restricted,
        store,
        (
            "write at PAGE refused by the EPCM (ACCESS.12): #PF 0x8007, event ",
            "  VMA   rw-  /dev/sgx_enclave, mapped by thread main, event ",
            "  PTE   rw-  present since page fault of thread main, event ",
            "  TLB   -    flushed by ERESUME, event ",
            "  EPCM  r--  REG PR since EMODPR by ioctl RESTRICT_PERMISSIONS(offset=",
            "permissions=r--) of thread main, event ",
            "; EACCEPT still due\n",
            "  rule  EPCM: R, W or X does not permit the access\n",
            "  by    thread main in enclave 1 on the TCS 0x",
            "  then  the vDSO function returns #PF 0x8007 to thread main\n",
            "  to write again: EMODPE(W) from inside the enclave; VMA and PTE already allow it\n",
        ),
    ),
    Row(
        "EPCM lacks W, accepted",
        restricted,
        accept(REG | PR | R, store),
        (
            "refused by the EPCM (ACCESS.12)",
            "REG since EMODPR by ioctl RESTRICT_PERMISSIONS(",
            ", accepted by thread main, event ",
            "EMODPE(W) from inside",
        ),
    ),
    Row(
        "EPCM lacks R and W",
        lambda w: restricted(w, 0),
        store,
        ("EPCM  ---  REG PR since EMODPR", "to write again: EMODPE(RW) from inside"),
    ),
    Row(
        "EPCM lacks R",
        lambda w: restricted(w, 0),
        read,
        ("read at PAGE refused by the EPCM (ACCESS.12): #PF 0x8005", "EMODPE(R) from inside"),
    ),
    Row(
        "EPCM and VMA lack X",
        lambda w: w.enclave.data[0],
        fetch,
        (
            "fetch at PAGE refused by the VMA (PAGING.04): #PF 0x15",
            "VMA   rw-",
            "to execute again: MODIFY_TYPES(PT_TRIM) by the host, EACCEPT(TRIM MODIFIED) from",
            " inside the enclave, REMOVE_PAGES by the host, a touch (EAUG adds a fresh page),",
            " EACCEPT(rw- REG PENDING) from inside, mprotect(PAGE, 0x1000, PROT_READ|PROT_WRITE|",
            "PROT_EXEC), then EMODPE(X) from inside (the kernel's cap of the page is rw-, mprotect",
            " refuses PROT_EXEC: -EACCES; the contents of the page are lost)\n",
        ),
    ),
    Row(
        "EPCM lacks X, the area has it",
        lambda w: w.enclave.heap,
        accept(REG | PENDING | R | W, fetch),
        (
            "fetch at HEAP refused by the EPCM (ACCESS.12): #PF 0x8015",
            "VMA   rwx",
            "EPCM  rw-  REG since EAUG by page fault of thread main, event ",
            ", accepted by thread main, event ",
            "to execute again: EMODPE(X) from inside the enclave; VMA and PTE already allow it",
        ),
    ),
    Row(
        "PENDING",
        lambda w: w.enclave.heap,
        store,
        (
            "write at HEAP refused by the EPCM (ACCESS.10): #PF 0x8007",
            "REG PENDING since EAUG by page fault of thread main",
            "EACCEPT still due",
            "to write again: EACCEPT(rw- REG PENDING) from inside the enclave\n",
        ),
    ),
    Row(
        "PENDING, to be executed",
        lambda w: w.enclave.heap,
        fetch,
        ("(ACCESS.10)", "EACCEPT(rw- REG PENDING) from inside the enclave, then EMODPE(X)"),
    ),
    Row(
        "MODIFIED",
        lambda w: word(w, w.enclave.data[0], lambda word: word | MODIFIED),
        read,
        ("refused by the EPCM (ACCESS.11)", "rebuild the enclave: no leaf makes"),
    ),
    Row(
        "TRIM",
        lambda w: retyped(w, "TRIM"),
        read,
        (
            "read at PAGE refused by the EPCM (ACCESS.06)",
            "TRIM MODIFIED since EMODT by ioctl MODIFY_TYPES(",
            "page_type=TRIM)",
            "EACCEPT(TRIM MODIFIED) from inside the enclave, REMOVE_PAGES by the host, a touch",
            " (EAUG adds a fresh page), then EACCEPT(rw- REG PENDING) from inside\n",
        ),
    ),
    Row(
        "TCS",
        lambda w: retyped(w, "TCS"),
        read,
        ("(ACCESS.06)", "TCS MODIFIED", "no access reaches a TCS: EENTER uses it once it is acc"),
    ),
    Row(
        "a TCS of old",
        lambda w: w.enclave.tcs[0],
        read,
        ("(ACCESS.06)", "EPCM  ---  TCS since EADD by ioctl ADD_PAGES(", "EENTER uses it"),
    ),
    Row(
        "BLOCKED",
        lambda w: word(w, w.enclave.data[0], lambda word: word | BLOCKED),
        read,
        ("refused by the EPCM (ACCESS.09)", "REG BLOCKED", "try again: the page is being evicted"),
    ),
    Row(
        "another page",
        pte_of_the_other_page,
        read,
        ("refused by the EPCM (ACCESS.08)", "of enclave 1, for 0x", "over PAGE again with PROT_R"),
    ),
    Row(
        "moved by mremap",
        moved_area,
        read,
        ("(ACCESS.08)", "VMA   rw-", "mremap(", "PTE   rw-  present since mremap("),
    ),
    Row(
        "another enclave",
        pte_of_another_enclave,
        read,
        ("refused by the EPCM (ACCESS.07)", "of enclave 2, for 0x", "over PAGE again with PROT_R"),
    ),
    Row(
        "not EPC",
        host_memory,
        read,
        (
            "read at PAGE refused by the processor (ACCESS.04): #PF 0x8005",
            "VMA   rw-  host memory, mapped by thread main",
            "EPCM  -    none: the page table leads to ordinary memory",
            "mmap /dev/sgx_enclave over PAGE with PROT_READ\n",
        ),
    ),
    Row(
        "no VMA",
        no_area,
        read,
        (
            "read at PAGE refused by the VMA (PAGING.01): #PF 0x4",
            "VMA   -    no area of an enclave there; munmap(PAGE, 0x1000) of thread main, event ",
            "PTE   -    not present",
            "then  the vDSO function returns #PF 0x4",
            "to read again: mmap /dev/sgx_enclave over PAGE with PROT_READ\n",
        ),
    ),
    Row(
        "VMA lacks W",
        lambda w: protected(w, R),
        store,
        (
            "write at PAGE refused by the VMA (PAGING.03): #PF 0x7",
            "VMA   r--  /dev/sgx_enclave",
            "; mprotect(PAGE, 0x1000, r--) of thread main, event ",
            "PTE   r--  present since mprotect(PAGE, 0x1000, r--) of thread main, event ",
            "EPCM  rw-  REG since EADD by ioctl ADD_PAGES(",
            "to write again: mprotect(PAGE, 0x1000, PROT_READ|PROT_WRITE)\n",
        ),
    ),
    Row(
        "VMA has nothing",
        lambda w: protected(w, 0),
        read,
        ("by the VMA (PAGING.01): #PF 0x4", "VMA   ---", "mprotect(PAGE, 0x1000, PROT_READ)\n"),
    ),
    Row(
        "PTE missing: the cap forbids the area",
        above_the_cap,
        store,
        (
            "write at PAGE refused by the driver (PAGING.01): #PF 0x6",
            "PTE   -    not present",
            "to write again: mprotect(PAGE, 0x1000, PROT_READ), MODIFY_TYPES(PT_TRIM) by the host",
            "(the kernel's cap of the page is r--, mprotect refuses PROT_WRITE: -EACCES",
        ),
    ),
    Row(
        "fetch outside",
        lambda w: w.do(w.host.alloc(PAGE_SIZE)),
        fetch,
        ("refused by the processor (ACCESS.01): #GP", "leave by EEXIT first"),
    ),
]


def said(w: World, row: Row) -> str:
    page = row.before(w)
    w.fault(row.program, page)
    text = w.machine.explain()
    return text.replace(f"{page:#x}", "HEAP" if page == w.enclave.heap else "PAGE")


def assert_in_order(text: str, parts: Iterable[str]) -> None:
    at = 0
    for part in parts:
        found = text.find(part, at)
        assert found >= 0, f"{part!r} is missing, or out of order, in\n{text}"
        at = found + len(part)


@pytest.mark.parametrize("row", ACCESSES, ids=lambda row: row.name)
def test_access_is_explained(row: Row) -> None:
    assert_in_order(said(explained(pages=2), row), row.says)


def test_a_fault_that_the_kernel_repairs_is_no_refusal() -> None:
    w = explained()
    w.call(read, w.enclave.data[0])
    assert w.machine.explain() == ""


def test_v2_the_mirror_of_the_kernel_lacks_w() -> None:
    """In the series of 2022 the kernel withholds rights that its mirror of the EPCM lacks."""
    machine = Machine(cpus=4, epc="1M", explain=True, linux="v2")
    w = world(machine)
    page = w.enclave.data[0]
    entry = w.encl.page(page)
    assert entry is not None
    entry.vm_run_prot_bits = R
    w.fault(store, page)
    assert_in_order(
        machine.explain(),
        (
            "refused by the page table (PAGING.03)",
            "to write again: RELAX_PERMISSIONS(RW) by the host\n",
        ),
    )


# Leaves

LEAVES = [
    Row(
        "EACCEPT: mismatch",
        lambda w: w.enclave.heap,
        accept(REG | PENDING | RWX),
        (
            "EACCEPT(RCX=HEAP) refused (EACCEPT.20): SGX_PAGE_ATTRIBUTES_MISMATCH, event ",
            "SECINFO  rwx  FLAGS of the operand: REG PENDING",
            "EPCM     rw-  REG PENDING since EAUG by page fault of thread main",
            "rule     R, W, X, PT, PENDING or MODIFIED differs",
            "then     RAX = 19: the enclave goes on",
            "for EACCEPT to succeed: SECINFO.FLAGS must be rw- REG PENDING: that is what the EPCM",
        ),
    ),
    Row(
        "EACCEPT: nothing is due",
        lambda w: w.enclave.data[0],
        accept(REG | PR | R | W | X),
        ("(EACCEPT.20)", "nothing to accept: the page is rw- REG already"),
    ),
    Row(
        "EACCEPT: malformed",
        lambda w: w.enclave.heap,
        accept(REG | R | W),
        (
            "EACCEPT(RCX=HEAP) refused (EACCEPT.10): #GP",
            "rule     SECINFO: PT_REG with neither PR nor PENDING",
            "then     the vDSO function returns #GP",
            "SECINFO.FLAGS must be rw- REG PENDING: that is what the EPCM has",
        ),
    ),
    Row(
        "EACCEPT: no area",
        no_area,
        accept(REG | PR | R),
        (
            "EACCEPT(RCX=PAGE) refused (PAGING.01): #PF 0x4",
            "VMA",
            "mmap /dev/sgx_enclave over PAGE",
        ),
    ),
    Row(
        "EMODPE: pending",
        lambda w: w.enclave.heap,
        lambda t: t.emodpe(t.args, R | X),
        (
            "EMODPE(RCX=HEAP) refused (EMODPE.10): #PF 0x8005",
            "EPCM     rw-  REG PENDING",
            "for EMODPE to succeed: EACCEPT(rw- REG PENDING) from inside the enclave\n",
        ),
    ),
    Row(
        "EMODPE: W without R",
        lambda w: restricted(w, 0),
        lambda t: t.emodpe(t.args, W),
        ("(EMODPE.16): #GP", "SECINFO.FLAGS must be rw- REG: W without R does not exist"),
    ),
    Row(
        "EMODPE: trimmed",
        lambda w: retyped(w, "TRIM"),
        lambda t: t.emodpe(t.args, R),
        ("EMODPE(RCX=PAGE) refused (EMODPE.10)", "EACCEPT(TRIM MODIFIED)"),
    ),
    Row(
        "EACCEPTCOPY: not pending",
        lambda w: w.enclave.data[0],
        lambda t: t.eacceptcopy(t.args, t.args + PAGE_SIZE, R | W),
        ("EACCEPTCOPY(RCX=PAGE) refused (EACCEPTCOPY.12)", "then a touch (EAUG adds a fresh"),
    ),
    Row(
        "nested EENTER",
        lambda w: w.enclave.tcs[0],
        leaf(leaves.EENTER, 0x1000, 0),
        ("EENTER refused (ENCLU.08): #GP", "EEXIT first: enclaves do not nest"),
    ),
    Row(
        "a leaf that does not exist",
        lambda w: w.enclave.tcs[0],
        leaf(0x77, 0, 0),
        ("ENCLU[0x77] refused (ENCLU.05): #GP", "check CPUID leaf 12H first"),
    ),
]


def run(w: World, row: Row) -> str:
    """A row may end in a status or in a fault."""
    page = row.before(w)
    entry, state = w.enclave.entry(row.program), w.enclave.run()
    w.do(w.host.enter(entry, state, args=page))
    text = w.machine.explain()
    return text.replace(f"{page:#x}", "HEAP" if page == w.enclave.heap else "PAGE")


@pytest.mark.parametrize("row", LEAVES, ids=lambda row: row.name)
def test_leaf_is_explained(row: Row) -> None:
    assert_in_order(run(explained(pages=2), row), row.says)


def test_eaccept_before_tracking_is_complete_names_who_is_inside() -> None:
    """EMODPR without ETRACK, as a faulty driver would do."""
    w = explained(pages=1, threads=2)
    page = w.enclave.data[0]
    host = HostThread(w.kernel, w.host.process, "other", 1)

    def waits(t: EnclaveThread) -> Steps[None]:
        yield from t.load(page)
        stamp(w.machine.processor, w.machine.processor.parent(number()), number())
        epcm = w.machine.processor.epcm
        epcm.put(number(), epcm.state[number()] & ~W | PR)
        assert (yield from t.eaccept(page, REG | PR | R)) == SGX_PAGE_NOT_TRACKED

    def number() -> int:
        entry = w.encl.page(page)
        assert entry is not None
        assert entry.epc_page is not None
        return entry.epc_page.number

    w.do(w.enclave.call(host, waits, thread=1))
    text = w.machine.explain()
    assert_in_order(
        text,
        (
            "refused (EACCEPT.21): SGX_NOT_TRACKED",
            "r--  REG PR since",
            "ETRACK is still due, then thread other (inside since event ",
            ") must leave: accept when the ioctl has returned",
        ),
    )


def test_eenter_of_a_busy_tcs_names_who_is_on_it() -> None:
    w = explained()
    other = HostThread(w.kernel, w.host.process, "other", 1)
    run_ = w.enclave.run()
    tcs = w.enclave.tcs[0]

    def inside(t: EnclaveThread) -> Steps[None]:
        yield from other.enter(w.enclave.entry(store), w.enclave.run(), args=0)

    w.do(w.host.enter(w.enclave.entry(inside), run_))
    assert_in_order(
        w.machine.explain(),
        (
            f"EENTER(RBX={tcs:#x}) refused (ENTRY.14): #GP",
            "TCS        active, CSSA 0 of 2",
            "EPCM  ---  TCS since EADD",
            "by    thread other, outside enclaves",
            "another TCS; or wait: thread main is inside on this one since event ",
        ),
    )


def test_eenter_without_a_free_frame() -> None:
    w = explained()
    state = w.enclave.run()
    for _ in range(3):
        w.do(w.host.enter(w.enclave.entry(store), state, args=8))
    assert_in_order(
        w.machine.explain(),
        (
            "(EENTER.09): #GP",
            "CSSA 2 of 2",
            "ERESUME what was interrupted; or another TCS; or build with more NSSA\n",
        ),
    )


def test_eresume_of_nothing() -> None:
    w = explained()
    w.do(w.host.enter(w.enclave.entry(store), w.enclave.run(), leaves.ERESUME))
    assert_in_order(
        w.machine.explain(), ("ERESUME(RBX=", "(ERESUME.09): #GP", "CSSA 0 of 2", "EENTER")
    )


def test_only_a_stale_translation_refuses() -> None:
    """The area was read-only when the translation was loaded, and it was not flushed."""
    machine = Machine(cpus=4, epc="1M", explain=True, readings=Readings(stale_narrow_rewalks=False))
    w = world(machine)
    page = w.enclave.data[0]

    def program(t: EnclaveThread) -> Steps[None]:
        yield from t.load(page)
        pte = w.mm.space.lookup(page)
        lp = t.lp
        entry = lp.tlb.entries[page >> PAGE_SHIFT]
        lp.tlb.entries[page >> PAGE_SHIFT] = entry & ~(TLB_WRITE | CLEAN)
        w.mm.space.set(page, pte)
        with pytest.raises(Fault) as raised:
            lp.store(page, b"x")
        assert_in_order(
            w.machine.explain(raised.value),
            (f"write at {page:#x} refused by the TLB (ACCESS.13)", "EPCM  rw-", "try again: only"),
        )

    w.call(program)


# The TCS as an operand


def test_a_tcs_mapped_read_only() -> None:
    """The leaf writes its operand: the area lacks W, the EPCM lacks nothing."""
    w = explained()
    (tcs, *_) = w.enclave.tcs
    w.call(read, w.enclave.data[0])
    assert w.protect(tcs, R) == 0
    w.do(w.host.enter(w.enclave.entry(store), w.enclave.run(), args=8))
    assert_in_order(
        w.machine.explain(),
        (
            f"EENTER(RBX={tcs:#x}) refused (PAGING.03): #PF 0x7",
            "VMA   r--",
            "EPCM  ---  TCS since EADD",
            f"mprotect({tcs:#x}, 0x1000, PROT_READ|PROT_WRITE)\n",
        ),
    )
    assert "EMODPE" not in w.machine.explain()


@pytest.mark.parametrize(
    ("tcs", "parts"),
    [
        (
            0x1000_0008,
            (
                "EENTER(RBX=0x10000008) refused (EENTER.01)",
                "the TCS, must be a multiple of 4096",
            ),
        ),
        (
            -1 << 47 & (1 << 64) - 1,
            ("(PAGING.01): #PF 0x6", "RBX must be the address of a"),
        ),
        (0, ("(PAGING.01): #PF 0x6", "RBX must be the address of a TCS page of an enclave\n")),
    ],
)
def test_a_tcs_that_cannot_be_one(tcs: int, parts: tuple[str, ...]) -> None:
    w = explained()
    run = w.enclave.run()
    run.tcs = tcs
    w.do(w.host.enter(w.enclave.entry(store), run, args=8))
    assert_in_order(w.machine.explain(), parts)


def test_a_tcs_in_memory_that_a_real_process_has() -> None:
    """It is not in the model's page tables; `runner` has the entry."""
    w = explained()
    w.mm.space.host_pte = lambda _address: PTE_P | PTE_U | PTE_W | PTE_NX | PTE_A | PTE_D
    run = w.enclave.run()
    run.tcs = 0x1000_0000
    w.do(w.host.enter(w.enclave.entry(store), run, args=8))
    assert_in_order(
        w.machine.explain(),
        (
            "EENTER(RBX=0x10000000) refused (EENTER.03): #PF 0x8007",
            "VMA   -    no area of an enclave there",
            "EPCM  -    none: the page table leads to ordinary memory",
            "for EENTER to succeed: RBX must be the address of a TCS page of an enclave\n",
        ),
    )


def test_an_ssa_frame_mapped_read_only_is_no_operand() -> None:
    w = explained()
    frame = w.enclave.tcs[0] + PAGE_SIZE
    assert w.protect(frame, R) == 0
    w.do(w.host.enter(w.enclave.entry(store), w.enclave.run(), args=8))
    assert_in_order(
        w.machine.explain(),
        (f"EENTER(SSA={frame:#x}) refused (PAGING.03): #PF 0x7", "PROT_READ|PROT_WRITE)"),
    )


def test_a_target_without_rights_needs_none_to_be_accepted() -> None:
    """EMODPE(R) was advised as well: if done, EACCEPT failed with a mismatch."""
    w = explained()
    page = restricted(w, 0)
    assert w.protect(page, 0) == 0
    w.fault(accept(REG | PR), page)
    text = w.machine.explain()
    assert_in_order(text, ("EACCEPT(RCX=", "(PAGING.01): #PF 0x4", f"mprotect({page:#x}, 0x1000, "))
    assert "EMODPE" not in text


def test_accepting_a_tcs_that_has_no_frames() -> None:
    """The advice used to be the very call that was refused."""
    readings = Readings(eaccept_needs_nssa=True)
    w = world(Machine(cpus=4, epc="1M", explain=True, readings=readings))
    page = w.enclave.data[0]
    retyped(w, "TCS")
    w.fault(accept(TCS | MODIFIED), page)
    assert_in_order(
        w.machine.explain(),
        (
            f"EACCEPT(RCX={page:#x}) refused (EACCEPT.24): #GP",
            "for EACCEPT to succeed: set NSSA of the TCS above CSSA while the page is PT_REG: this",
            " one can no longer be changed",
        ),
    )


@pytest.mark.parametrize("rule", TCS_CONTENTS)
def test_the_contents_asked_for_are_those_of_the_rule(rule: str) -> None:
    """Rules may be renumbered: advice names a field that its rule names."""
    named = re.findall(r"\b[A-Z]{3,}\b", TCS_CONTENTS[rule].replace("TCS", ""))
    assert any(field in RULES[rule] for field in named or ["reserved area"])


ABOUT_THE_TARGET = [
    rule
    for rule in RULES
    if rule.startswith("EACCEPT.") and not rule.endswith(("01", "02", "03", "04", "05"))
]


@pytest.mark.parametrize("rule", ABOUT_THE_TARGET)
@pytest.mark.parametrize("kind", ["TCS", "TRIM"])
def test_no_refused_eaccept_is_advised_again(rule: str, kind: str) -> None:
    """Whatever refused: a MODIFIED target waits for this very leaf."""
    w = explained()
    page = retyped(w, kind)
    assert w.machine.explainer is not None
    facts = look(w.machine.explainer.history, w.machine.kernel.lp(w.host.thread), page)
    facts.secs = next(iter(w.machine.processor.secs.values()))
    call = Call("EACCEPT", 1, 1, 0, None)
    assert "EACCEPT(" not in advice_for_leaf(facts, call, rule, "RCX").text


# Calls


def test_mprotect_above_the_cap() -> None:
    w = explained()
    page = w.enclave.data[0]
    assert w.protect(page, RWX) == -EACCES
    assert_in_order(
        w.machine.explain(),
        (
            f"mprotect({page:#x}, 0x1000, rwx) of thread main refused by the driver: -EACCES",
            "want  rwx",
            f"cap   rw-  of the page at {page:#x} since it was added",
            "rule  an area gets no right that the cap of one of its pages lacks",
            "ADD_PAGES with a SECINFO that has them, or EAUG",
        ),
    )


def test_restrict_to_w_without_r() -> None:
    w = explained()
    assert w.do(w.enclave.restrict(w.host, w.enclave.data[0], PAGE_SIZE, W))[0] == -EINVAL
    assert_in_order(
        w.machine.explain(),
        (
            "ioctl RESTRICT_PERMISSIONS(offset=0x",
            "permissions=-w-) of thread main refused by the driver: -EINVAL",
            "no W without R: no page can have that (sgx_ioc_enclave_restrict_permissions)",
            "for the ioctl to succeed: permissions with R: 3",
        ),
    )


def test_remove_of_a_page_in_each_state() -> None:
    w = explained()
    page = w.enclave.data[0]
    assert w.do(w.enclave.remove(w.host, page, PAGE_SIZE))[0] == -EPERM
    assert "only a trimmed page is removed (sgx_encl_remove_pages)" in w.machine.explain()
    retyped(w, "TRIM")
    assert w.do(w.enclave.remove(w.host, page, PAGE_SIZE))[0] == -EPERM
    assert_in_order(
        w.machine.explain(),
        (
            "ioctl REMOVE_PAGES(offset=",
            "refused: -EPERM; EMODPR: SGX_PAGE_NOT_MODIFIABLE (EMODPR.09)",
            "EPCM  ---  TRIM MODIFIED since EMODT by ioctl MODIFY_TYPES(",
            "EACCEPT the pending change from inside the enclave",
        ),
    )


def test_create_when_epc_is_full() -> None:
    """16 pages; each enclave that was created has two that cannot be evicted."""
    machine = Machine(cpus=1, epc="64K", explain=True)
    b = Building(machine)
    for _ in range(8):
        assert b.create() == 0
        b.fd = b.do(b.host.open())
    assert b.create() == -ENOMEM
    assert_in_order(
        machine.explain(),
        (
            *("ioctl CREATE(", "refused by the driver: -ENOMEM", "asked  free=0, pages=16"),
            *("EPC is full, and no page in it can be evicted (sgx_alloc_epc_page)", "--epc"),
        ),
    )


def test_init_of_a_provisioning_enclave_without_the_token() -> None:
    machine = Machine(cpus=1, explain=True)
    b = Building(machine, attributes=ATTR_MODE64BIT | ATTR_PROVISIONKEY)
    assert b.create() == 0
    b.fill()
    assert b.init() == -EACCES
    assert_in_order(
        machine.explain(),
        (
            "ioctl INIT() of thread main refused by the driver: -EACCES",
            "attributes=0x10",
            "SECS.ATTRIBUTES has only bits that this enclave may have (sgx_encl_init)",
            "open /dev/sgx_provision, and SGX_IOC_ENCLAVE_PROVISION before INIT",
        ),
    )


# On request


def test_explain_needs_a_machine_that_remembers() -> None:
    with pytest.raises(ValueError, match="explain=True"):
        Machine().explain()


def test_a_fault_is_explained_before_its_outcome_is_known() -> None:
    """As in a debugger, or in a test that catches the fault of the processor."""
    w = explained()
    page = restricted(w)

    def program(t: EnclaveThread) -> Steps[None]:
        yield from t.load(page)
        with pytest.raises(Fault) as raised:
            t.lp.store(page, b"x")
        text = w.machine.explain(raised.value)
        assert_in_order(text, ("(ACCESS.12)", "TLB   r--  loaded after ", "EMODPE(W)"))
        assert "then" not in text

    w.call(program)


def test_memory_of_the_history_is_bounded() -> None:
    w = explained()
    assert w.machine.explainer is not None
    history = w.machine.explainer.history
    page = w.enclave.data[0]
    for _ in range(3):
        for prot in (R, R | W):
            assert w.protect(page, prot) == 0
            w.call(read, page)
    assert all(len(changes) <= KEPT for changes in history.ptes.values())
    assert all(len(changes) <= KEPT for changes in history.epcm.values())
    assert all(len(calls) <= CALLS_MAX for calls in history.calls.values())
    changes = history.ptes[w.mm.space.name, page >> PAGE_SHIFT]
    assert len(changes) == KEPT
    assert changes[-1].seq > changes[0].seq
