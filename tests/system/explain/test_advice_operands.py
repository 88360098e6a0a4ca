"""Advice about operands and other threads: alignment, ELRANGE, a TCS in use, tracking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from softsgx.cpu import Readings
from softsgx.cpu.fault import Fault
from softsgx.cpu.tracking import stamp, track
from softsgx.linux.vdso import VDSO_ENCLU
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_P, PTE_U
from softsgx.report import steps as s
from softsgx.report.steps import Advice
from softsgx.sim import Steps
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PENDING, PR, REG, R, W, X
from softsgx.spec.keys import KEYREQUEST, SEAL_KEY
from softsgx.system import Enclave, EnclaveThread, HostThread, Machine
from tests.linux.building import Building
from tests.linux.world import World
from tests.system.explain.advised import Attempt, follow, rig, spare, take

NON_CANONICAL: Final = 1 << 47


def attempt_of(w: World, leaf: int) -> Attempt:
    """A leaf that succeeds."""
    made = Attempt(w, leaf=leaf)
    for name in ("rbx", "rcx", "rdx"):
        setattr(made, name, spare(w, name))
    if leaf == leaves.EACCEPT:
        made.rcx, made.secinfo = w.enclave.heap, REG | PENDING | R | W
    elif leaf == leaves.EACCEPTCOPY:
        made.rcx, made.secinfo = w.enclave.heap, REG | R
    elif leaf == leaves.EMODPE:
        made.secinfo = REG | R
    elif leaf == leaves.EGETKEY:
        made.contents = KEYREQUEST(KEYNAME=SEAL_KEY).pack()
    elif leaf in (leaves.EENTER, leaves.ERESUME):
        made.rbx = w.enclave.tcs[0]
    return made


def already_there(made: Attempt) -> None:
    """What RBX must point to is there before RBX is spoiled."""
    w, raw = made.w, made.contents
    if made.secinfo is not None:
        raw = made.secinfo.to_bytes(64, "little")
    if raw is not None:
        at, data = made.rbx, raw

        def write(t: EnclaveThread) -> Steps[None]:
            yield from t.store(at, data)

        w.do(w.enclave.call(w.host, write, thread=len(w.enclave.tcs) - 1))
    made.secinfo = made.contents = None


OPERANDS: Final = {
    leaves.EACCEPT: ("rbx", "rcx"),
    leaves.EMODPE: ("rbx", "rcx"),
    leaves.EACCEPTCOPY: ("rbx", "rcx", "rdx"),
    leaves.EGETKEY: ("rbx", "rcx"),
    leaves.EREPORT: ("rbx", "rcx", "rdx"),
    leaves.EENTER: ("rbx",),
}
EACH: Final = [(leaf, name) for leaf, names in OPERANDS.items() for name in names]


@pytest.mark.parametrize(("leaf", "operand"), EACH)
def test_an_operand_that_is_not_aligned(leaf: int, operand: str) -> None:
    made = attempt_of(rig(), leaf)
    already_there(made)
    setattr(made, operand, getattr(made, operand) + 8)
    follow(made)
    (found,) = made.refusals
    assert f"{operand.upper()}, the " in found.text
    assert "must be a multiple of " in found.text


@pytest.mark.parametrize(("leaf", "operand"), EACH[:-1])
@pytest.mark.parametrize("host", [True, False])
def test_an_operand_outside_elrange(leaf: int, operand: str, host: bool) -> None:
    """Host memory is refused for its address, mapped or not."""
    w = rig()
    made = attempt_of(w, leaf)
    already_there(made)
    outside = w.do(w.host.alloc(PAGE_SIZE)) if host else w.enclave.base + w.enclave.size
    right = getattr(made, operand)
    setattr(made, operand, outside)
    found = made.refused()
    assert found is not None
    assert isinstance(found.advice, Advice)
    (step,) = found.advice.steps
    assert isinstance(step, s.Within)
    assert step.operand == operand.upper()
    assert step.start <= right < step.end
    setattr(made, operand, right)
    assert made.refused() is None


def test_all_operands_at_once() -> None:
    """The advice names them all."""
    w = rig()
    made = attempt_of(w, leaves.EACCEPTCOPY)
    already_there(made)
    made.rcx += 8
    made.rdx += 16
    follow(made)
    assert len(made.refusals) == 1


@pytest.mark.parametrize("before", [True, False])
def test_an_aep_that_is_not_canonical(before: bool) -> None:
    w = rig(Machine(cpus=4, epc="1M", explain=True, readings=Readings(aep_before_tcs=before)))
    w.do(w.enclave.call(w.host, _nothing))
    lp, tcs = w.kernel.lp(w.host.thread), w.enclave.tcs[0]
    with pytest.raises(Fault) as caught:
        lp.enclu(leaves.EENTER, tcs, NON_CANONICAL)
    assert "RCX, the AEP, must be canonical" in w.machine.explain(caught.value)
    lp.enclu(leaves.EENTER, tcs, NON_CANONICAL - 1)
    with pytest.raises(Fault) as caught:
        lp.enclu(leaves.EEXIT, NON_CANONICAL)
    assert "RBX, the target, must be canonical" in w.machine.explain(caught.value)
    lp.enclu(leaves.EEXIT, NON_CANONICAL - 1)
    assert not lp.enclave_mode


@pytest.mark.parametrize("access", [R, W])
@pytest.mark.parametrize("outside", [True, False])
def test_an_address_that_is_not_canonical(access: int, outside: bool) -> None:
    follow(Attempt(rig(), NON_CANONICAL, access, outside))


@pytest.mark.parametrize("access", [R, W])
def test_the_host_touches_what_is_not_mapped(access: int) -> None:
    """The advice used to be a mapping of the enclave."""
    made = Attempt(rig(), 0x10_0000, access, outside=True)
    follow(made)
    assert "map host memory at 0x100000" in made.refusals[0].text


@pytest.mark.parametrize("outside", [True, False])
def test_a_pointer_near_null(outside: bool) -> None:
    """The advice used to be to map memory at 0, which no program can."""
    found = Attempt(rig(), 16, R, outside).refused()
    assert found is not None
    assert "to read again: the pointer is near NULL" in found.text


def test_mapped_memory_of_a_real_process_needs_only_other_rights() -> None:
    """The model has no area for it; only its page-table entry is known."""
    w = rig()
    w.mm.space.host_pte = lambda _address: PTE_P | PTE_U | PTE_A | PTE_D
    found = Attempt(w, 0x1000_0000, W, outside=True).refused()
    assert found is not None
    assert isinstance(found.advice, Advice)
    assert found.advice.steps == (s.Protect(0x1000_0000, R | W | X),)


def test_an_ordinary_page_as_a_tcs() -> None:
    """Read-only, so that paging refuses first: the advice was to replace it by a writable page.

    And its bytes were shown as fields of a TCS.
    """
    w = rig()
    made = Attempt(w, leaf=leaves.EENTER, rbx=w.enclave.data[0])
    assert w.protect(made.rbx, R) == 0
    follow(made)
    (found,) = made.refusals
    assert "RBX must be the ENCLAVEADDRESS of a TCS page" in found.text
    assert "CSSA" not in found.text


def test_the_host_touches_a_hole_before_init() -> None:
    b = Building(Machine(cpus=4, epc="1M", explain=True))
    assert b.create() == 0
    b.fill()
    hole = b.base + b.image.size - PAGE_SIZE
    made = _mapped_hole(b, hole)
    found = made.refused()
    assert found is not None
    assert isinstance(found.advice, Advice)
    assert found.advice.steps == (s.Init(),)
    assert b.init() == 0
    assert made.refused() is None


def _mapped_hole(b: Building, hole: int) -> Attempt:
    w = World(b.machine, b.host, Enclave(b.fd, b.base, b.image.size, b.image))
    assert w.map(hole, R) == hole
    return Attempt(w, hole, R, outside=True)


# A TCS in use


def _nothing(t: EnclaveThread) -> Steps[None]:
    yield from t.load(t.secinfo)


def busy(alternative: int) -> Attempt:
    """Another thread is inside on the TCS until the attempt has been explained."""
    w = rig()
    made = attempt_of(w, leaves.EENTER)
    other = HostThread(w.kernel, w.host.process, "other", 1)
    lp = w.kernel.lp(other.thread)
    w.do(w.enclave.call(w.host, _nothing))
    lp.enclu(leaves.EENTER, made.rbx, VDSO_ENCLU)
    found = made.refused()
    assert found is not None
    assert found.rule == "ENTRY.14"
    assert isinstance(found.advice, Advice)
    (step,) = found.advice.alternatives[alternative]
    if isinstance(step, s.Wait):
        assert step.lps == (lp.id,)
        lp.enclu(leaves.EEXIT, VDSO_ENCLU)
    else:
        take(made, step)
    return made


@pytest.mark.parametrize("alternative", [0, 1])
def test_a_tcs_that_another_thread_is_on(alternative: int) -> None:
    assert busy(alternative).refused() is None


@pytest.mark.parametrize("alternative", [0, 1])
def test_a_tcs_without_a_free_frame(alternative: int) -> None:
    """ERESUME and end what was interrupted, or take another TCS. (The third way is to rebuild.)"""
    w = rig()
    w.do(w.enclave.call(w.host, _nothing))
    made = attempt_of(w, leaves.EENTER)
    lp = w.kernel.lp(w.host.thread)
    for frame in (1, 2):
        w.do(w.host.load(made.rbx + frame * PAGE_SIZE, 1))  # maps it
    for _ in range(2):
        lp.enclu(leaves.EENTER, made.rbx, VDSO_ENCLU)
        assert lp.interrupt().from_enclave
    found = made.refused()
    assert found is not None
    assert found.rule == "EENTER.09"
    assert isinstance(found.advice, Advice)
    (step,) = found.advice.alternatives[alternative]
    if alternative:
        take(made, step)
    else:
        assert "ERESUME" in step.text
        lp.enclu(leaves.ERESUME, made.rbx, VDSO_ENCLU)
        lp.enclu(leaves.EEXIT, VDSO_ENCLU)
    assert made.refused() is None


# Tracking


@pytest.mark.parametrize("tracked", [False, True])
def test_who_has_to_leave_before_a_change_can_be_accepted(tracked: bool) -> None:
    """EMODPR without ETRACK, or without IPIs, as a faulty driver would do."""
    w = rig()
    page = w.enclave.data[0]
    processor = w.machine.processor
    w.do(w.enclave.call(w.host, _touch(page)))
    other = HostThread(w.kernel, w.host.process, "other", 1)
    lp = w.kernel.lp(other.thread)
    lp.enclu(leaves.EENTER, w.enclave.tcs[0], VDSO_ENCLU)
    entry = w.encl.page(page)
    assert entry is not None
    assert entry.epc_page is not None
    number = entry.epc_page.number
    secs = processor.parent(number)
    stamp(processor, secs, number)
    processor.epcm.put(number, processor.epcm.state[number] & ~W | PR)
    if tracked:
        assert track(secs)
    made = Attempt(w, leaf=leaves.EACCEPT, rbx=spare(w, "rbx"), rcx=page, secinfo=REG | PR | R)
    made.thread = 1
    found = made.refused()
    assert found is not None
    assert found.rule == "EACCEPT.21"
    assert isinstance(found.advice, Advice)
    (step,) = found.advice.steps
    assert isinstance(step, s.Leave)
    assert step.track == (not tracked)
    assert lp.id in step.lps
    if step.track:
        assert track(secs)
    lp.enclu(leaves.EEXIT, VDSO_ENCLU)
    assert made.refused() is None


def _touch(page: int) -> Callable[[EnclaveThread], Steps[None]]:
    def program(t: EnclaveThread) -> Steps[None]:
        yield from t.load(page)

    return program
