"""Page faults before the driver: which signal, which code. Linux 6.12, arch/x86/mm/fault.c.

`answer` asks the handler directly, so that every error code can be tried, also those that only
other software could cause; the tests at the end let the processor make them.
"""

import pytest

from softsgx.linux.fault import do_user_addr_fault
from softsgx.linux.process import (
    BUS_ADRERR,
    SEGV_ACCERR,
    SEGV_MAPERR,
    SEGV_PKUERR,
    SIGBUS,
    SIGSEGV,
)
from softsgx.linux.uapi import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE
from softsgx.mem.pagetable import PTE_P
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W, X
from softsgx.spec.faults import PFEC_I, PFEC_P, PFEC_PK, PFEC_SGX, PFEC_U, PFEC_W
from softsgx.system import EnclaveThread, SignalRaised
from tests.linux.world import World, world

READ = PFEC_U
WRITE = PFEC_U | PFEC_W
FETCH = PFEC_U | PFEC_I

Answer = tuple[int, int] | None
MAPERR: Answer = (SIGSEGV, SEGV_MAPERR)
PKUERR: Answer = (SIGSEGV, SEGV_PKUERR)
ACCERR: Answer = (SIGSEGV, SEGV_ACCERR)
ADRERR: Answer = (SIGBUS, BUS_ADRERR)
REPAIRED: Answer = None


def answer(w: World, code: int, address: int) -> Answer:
    """Signal and si_code; the rest of siginfo must say what was asked."""
    signal = w.do(do_user_addr_fault(w.host.thread, code, address))
    if signal is None:
        return None
    assert signal[2:] == (address, 14, code)
    return signal.number, signal.code


# Kinds of areas, by name: (rights, the enclave's or anonymous). "none" is no area at all.
AREAS = {
    "none": None,
    "PROT_NONE": (0, True),
    "r": (R, True),
    "w": (W, True),
    "x": (X, True),
    "rw": (R | W, True),
    "rx": (R | X, True),
    "rwx": (RWX, True),
    "anonymous PROT_NONE": (0, False),
    "anonymous r": (R, False),
    "anonymous rw": (R | W, False),
}


def area(kind: str) -> tuple[World, int]:
    """An area of this kind, over a hole of the enclave; nothing is mapped in it yet."""
    w = world()
    at = w.enclave.heap
    assert w.do(w.host.munmap(at, PAGE_SIZE)) == 0
    what = AREAS[kind]
    if what is not None:
        rights, enclave = what
        if enclave:
            assert w.map(at, rights) == at
        else:
            flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
            assert w.do(w.host.mmap(at, PAGE_SIZE, rights, flags)) == at
    return w, at


TABLE: list[tuple[str, int, Answer]] = [
    # 1. No area, whatever the code.
    *(("none", code, MAPERR) for code in (READ, WRITE, FETCH, WRITE | PFEC_P)),
    ("none", READ | PFEC_P | PFEC_PK, MAPERR),
    ("none", READ | PFEC_P | PFEC_SGX, MAPERR),
    # 2. Protection keys, before the SGX bit and before the rights.
    ("rwx", READ | PFEC_P | PFEC_PK, PKUERR),
    ("rwx", READ | PFEC_P | PFEC_PK | PFEC_SGX, PKUERR),
    ("PROT_NONE", WRITE | PFEC_P | PFEC_PK, PKUERR),
    # 3. The SGX bit: the driver is not called, and the kind of area does not matter.
    *(
        (kind, code | PFEC_P | PFEC_SGX, ACCERR)
        for kind in ("rwx", "r", "PROT_NONE", "anonymous rw")
        for code in (READ, WRITE, FETCH)
    ),
    # 4. A write, and the area lacks W.
    *(
        (kind, WRITE | p, ACCERR)
        for kind in ("r", "x", "rx", "PROT_NONE", "anonymous r")
        for p in (0, PFEC_P)
    ),
    # 5. Not a write, but present.
    *((kind, READ | PFEC_P, ACCERR) for kind in ("rwx", "r", "x", "anonymous rw")),
    *((kind, FETCH | PFEC_P, ACCERR) for kind in ("rwx", "rw", "r", "anonymous rw")),
    # 6. Not a write, not present, PROT_NONE.
    *((kind, READ, ACCERR) for kind in ("PROT_NONE", "anonymous PROT_NONE")),
    *((kind, FETCH, ACCERR) for kind in ("PROT_NONE", "anonymous PROT_NONE")),
    # 7. Otherwise the area's own handler: here EAUG, or a page of zeros. The kind of access does
    # not matter as long as the area is accessible at all.
    *((kind, READ, REPAIRED) for kind in ("r", "w", "x", "rw", "rx", "rwx", "anonymous r")),
    *((kind, FETCH, REPAIRED) for kind in ("r", "w", "x", "rw", "rx", "rwx", "anonymous rw")),
    *((kind, WRITE, REPAIRED) for kind in ("w", "rw", "rwx", "anonymous rw")),
]


@pytest.mark.parametrize(("kind", "code", "expected"), TABLE)
def test_table(kind: str, code: int, expected: Answer) -> None:
    w, at = area(kind)
    assert answer(w, code, at + 8) == expected
    what = AREAS[kind]
    asked = expected is REPAIRED and what is not None and what[1]
    assert (w.encl.page(at) is not None) is asked, "only then the driver is asked"
    assert bool(w.mm.space.lookup(at) & PTE_P) is (expected is REPAIRED)


@pytest.mark.parametrize("address", [1 << 47, (1 << 64) - PAGE_SIZE, -1], ids=hex)
def test_kernel_addresses_have_no_area(address: int) -> None:
    w = world()
    signal = w.do(do_user_addr_fault(w.host.thread, READ, address))
    assert signal == (SIGSEGV, SEGV_MAPERR, address, 14, READ | PFEC_P), "not told what is there"


# The result, inside and outside


def load_(t: EnclaveThread) -> Steps[bytes]:
    return (yield from t.load(t.args, 1))


def store(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"x")


def fetch(t: EnclaveThread) -> Steps[bytes]:
    return (yield from t.fetch(t.args))


def outside(w: World, body: Steps[object]) -> tuple[int, int, int, int]:
    """Signal, si_code, address and error code of a host access."""
    with pytest.raises(SignalRaised) as raised:
        w.do(body)
    signal = raised.value.signal
    assert signal.vector == 14
    return signal.number, signal.code, signal.address, signal.error_code


@pytest.mark.parametrize(
    ("kind", "program", "code"),
    [
        ("none", load_, 0x4),
        ("none", store, 0x6),
        ("none", fetch, 0x14),
        ("PROT_NONE", load_, 0x4),
        ("PROT_NONE", store, 0x6),
        ("PROT_NONE", fetch, 0x14),
        ("r", store, 0x6),
    ],
)
def test_refused_inside(kind: str, program: object, code: int) -> None:
    """The vDSO reports vector 14; the low 12 bits of the address are hidden."""
    w, at = area(kind)
    assert callable(program)
    assert w.fault(program, at + 0x123) == (14, code, at)


@pytest.mark.parametrize(("kind", "code"), [("none", SEGV_MAPERR), ("PROT_NONE", SEGV_ACCERR)])
def test_refused_outside(kind: str, code: int) -> None:
    """A signal; the address is exact."""
    w, at = area(kind)
    at += 0x123
    assert outside(w, w.host.load(at, 1)) == (SIGSEGV, code, at, 0x4)
    assert outside(w, w.host.store(at, b"x")) == (SIGSEGV, code, at, 0x6)


def test_write_to_a_present_read_only_page() -> None:
    w = world()
    data = w.enclave.data[0]
    assert w.call(load_, data) == b"\0"
    assert w.protect(data, R) == 0
    assert w.fault(store, data + 5) == (14, 0x7, data)
    assert outside(w, w.host.store(data + 5, b"x")) == (SIGSEGV, SEGV_ACCERR, data + 5, 0x7)


@pytest.mark.parametrize("hole", [False, True], ids=["swapped in or mapped", "added by EAUG"])
def test_fetch_from_an_area_without_x_brings_the_page_first(hole: bool) -> None:
    """The page is mapped or even added; only then the fetch is refused, as present: 0x15."""
    w = world()
    at = w.enclave.heap if hole else w.enclave.data[0]
    assert w.map(at, R | W) == at
    assert w.fault(fetch, at) == (14, 0x15, at)
    assert w.mm.space.lookup(at) & PTE_P
    assert w.encl.page(at) is not None


def test_epcm_refusal_is_only_for_accesses_from_inside() -> None:
    """Outside, enclave memory is the abort page: ones, and writes are dropped."""
    w = world()
    heap = w.enclave.heap
    assert w.fault(store, heap) == (14, 0x8007, heap), "pending"
    assert w.do(w.host.load(heap, 3)) == b"\xff\xff\xff"
    w.do(w.host.store(heap, b"dropped"))
    assert w.do(w.host.load(heap, 3)) == b"\xff\xff\xff"


def test_write_only_area_can_be_read() -> None:
    """x86 page tables cannot express write without read."""
    w = world()
    data = w.enclave.data[0]
    assert w.map(data, W) == data
    w.call(store, data)
    assert w.call(load_, data) == b"x"
    assert w.do(w.host.load(data, 1)) == b"\xff"


def test_execute_only_area_can_be_read() -> None:
    w = world(rights=RWX)
    data = w.enclave.data[0]
    assert w.map(data, X) == data
    assert w.call(fetch, data) == b"\0"
    assert w.call(load_, data) == b"\0"
