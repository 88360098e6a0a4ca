"""TLB shootdown by interprocessor interrupt, with the processors of the model as targets."""

import re

import pytest

from softsgx.cpu import Bare, LogicalProcessor, Processor
from softsgx.cpu.bare import BareEnclave
from softsgx.events.cpu import LeafDone, Left, TlbFlushed
from softsgx.mem.shootdown import ShootdownTarget, shootdown
from softsgx.mem.tlb import WRITE
from softsgx.sim import Execution, Follow, IpiTaken, ScheduleMismatch, Steps
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import REG, R, W
from softsgx.spec.leaves import EMODPE
from softsgx.spec.status import SGX_NOT_TRACKED
from softsgx.spec.tcs import TCS, TCS_ACTIVE, TCS_INACTIVE

OUTSIDE = 0x1000_0000


def machine(*, inside: int = 0) -> tuple[Bare, BareEnclave]:
    """Three processors, the first a kernel's; the last `inside` of them are in the enclave.

    Two pages of RAM are mapped at OUTSIDE.
    """
    bare = Bare(processor=Processor(32, lps=3))
    enclave = bare.enclave(pages=2, threads=2)
    processor = bare.processor
    frame = processor.memory.alloc(2)
    for number in range(2):
        processor.space.map(OUTSIDE + (number << PAGE_SHIFT), frame + number)
    for thread, lp in enumerate(processor.lps[3 - inside :]):
        enclave.enter(lp, thread)
    return bare, enclave


def execution(bare: Bare, schedule: str, *, complete: bool = True) -> Execution:
    """An execution whose events go to the log of the processor."""
    return Execution(Follow(schedule, complete=complete), log=bare.processor.log)


def tcs(bare: Bare, enclave: BareEnclave, thread: int) -> TCS:
    """The TCS of a thread as it lies in the EPC."""
    processor = bare.processor
    physical = processor.epc.physical(enclave.pages[enclave.tcs[thread]])
    return TCS.unpack(processor.memory.read(physical, 4096))


def extends(enclave: BareEnclave, lp: LogicalProcessor) -> Steps[object]:
    """EMODPE from inside, as a task."""
    info = enclave.secinfo(REG | R | W, lp)
    return lp.enclu_steps(EMODPE, info, enclave.data[0])


def bystander() -> Steps[None]:
    """A task beside, so that there is a choice at all."""
    yield ("beside", "beside", False)


def test_no_target_holds_a_translation_afterwards() -> None:
    bare, enclave = machine(inside=1)
    _, outside, inside = bare.processor.lps
    outside.store(OUTSIDE, b"x")
    inside.store(OUTSIDE, b"x")
    inside.store(enclave.data[0], b"x")
    assert outside.tlb.entries
    assert len(inside.tlb.entries) == 2
    run = execution(bare, "1:")
    run.spawn(shootdown([outside, inside]), "kernel", cpu=0)
    run.run()
    assert not outside.tlb.entries
    assert not inside.tlb.entries


def test_a_translation_that_is_not_shot_down_outlives_its_entry() -> None:
    bare, _ = machine()
    _, target, _ = bare.processor.lps
    target.store(OUTSIDE, b"x")
    bare.processor.space.unmap(OUTSIDE)
    target.store(OUTSIDE, b"y")
    assert target.tlb.holds(OUTSIDE) & WRITE


def test_outside_only_the_given_pages_are_dropped() -> None:
    bare, _ = machine()
    _, target, _ = bare.processor.lps
    target.load(OUTSIDE, 1)
    target.load(OUTSIDE + 4096, 1)
    run = execution(bare, "1:")
    run.spawn(shootdown([target], [OUTSIDE + 5]), "kernel", cpu=0)
    run.run()
    assert list(target.tlb.entries) == [(OUTSIDE + 4096) >> PAGE_SHIFT]
    assert target.tlb.flushes == 0


@pytest.mark.parametrize("pages", [None, (), (OUTSIDE,)])
def test_inside_the_interrupt_is_an_aex_that_drops_all(pages: tuple[int, ...] | None) -> None:
    bare, enclave = machine(inside=1)
    lp = bare.processor.lps[2]
    lp.load(OUTSIDE + 4096, 1)
    lp.load(enclave.data[0], 1)
    assert (tcs(bare, enclave, 0).CSSA, tcs(bare, enclave, 0).STATE) == (0, TCS_ACTIVE)
    run = execution(bare, "1:")
    run.spawn(shootdown([lp], pages), "kernel", cpu=0)
    with bare.processor.log.record() as events:
        run.run()
    assert not lp.tlb.entries
    assert not lp.enclave_mode
    assert (tcs(bare, enclave, 0).CSSA, tcs(bare, enclave, 0).STATE) == (1, TCS_INACTIVE)
    assert [e.cause for e in events if isinstance(e, TlbFlushed)] == ["AEX"]
    assert [e.lp for e in events if isinstance(e, Left)] == [2]


def test_the_bare_interrupt_leaves_processors_outside_alone() -> None:
    bare, _ = machine()
    _, target, _ = bare.processor.lps
    target.load(OUTSIDE, 1)
    run = execution(bare, "1:")
    run.spawn(shootdown([target], ()), "kernel", cpu=0)
    run.run()
    assert target.tlb.holds(OUTSIDE)


def test_the_interrupted_processor_leaves_its_tracking_epoch() -> None:
    bare, enclave = machine(inside=2)
    secs = bare.processor.secs[enclave.secs]
    page = enclave.pages[enclave.data[0]]
    va, backing = bare.epa(), bare.backing()
    assert bare.eblock(page) == 0
    assert bare.etrack(enclave.secs) == 0
    assert (secs.current, secs.previous) == (0, 2)
    assert bare.ewb(page, va, 0, backing) == SGX_NOT_TRACKED
    run = execution(bare, "1:")
    run.spawn(shootdown(bare.processor.lps, ()), "kernel", cpu=0)
    run.run()
    assert (secs.current, secs.previous) == (0, 0)
    assert bare.ewb(page, va, 0, backing) == 0


def test_a_processor_in_the_middle_of_a_leaf_takes_it_afterwards() -> None:
    bare, enclave = machine(inside=1)
    lp = bare.processor.lps[2]
    # Kernel sends; whatever comes next, the leaf ends before the interrupt.
    run = execution(bare, "1:b", complete=False)
    run.spawn(extends(enclave, lp), "enclave", cpu=2)
    run.spawn(shootdown([lp]), "kernel", cpu=0)
    assert not lp.interruptible()
    with bare.processor.log.record() as events:
        run.run()
    kinds = [type(e) for e in events if isinstance(e, LeafDone | IpiTaken | Left)]
    assert kinds == [LeafDone, IpiTaken, Left]


def test_the_interrupt_cannot_be_chosen_before_the_leaf_ends() -> None:
    bare, enclave = machine(inside=1)
    lp = bare.processor.lps[2]
    run = execution(bare, "1:bd")
    run.spawn(extends(enclave, lp), "enclave", cpu=2)
    run.spawn(shootdown([lp]), "kernel", cpu=0)
    run.spawn(bystander(), "bystander")
    with pytest.raises(ScheduleMismatch, match=re.escape("task d is not enabled")):
        run.run()


@pytest.mark.parametrize(("schedule", "order"), [("1:b", [1, 2]), ("1:c", [2, 1])])
def test_targets_acknowledge_in_either_order(schedule: str, order: list[int]) -> None:
    bare, _ = machine(inside=1)
    run = execution(bare, schedule)
    run.spawn(shootdown(bare.processor.lps[1:]), "kernel", cpu=0)
    with bare.processor.log.record() as events:
        run.run()
    assert [e.cpu for e in events if isinstance(e, IpiTaken)] == order


def test_the_sender_waits_for_the_last_acknowledgement() -> None:
    bare, _ = machine()
    run = execution(bare, "1:aca")
    run.spawn(shootdown(bare.processor.lps[1:]), "kernel", cpu=0)
    run.spawn(bystander(), "bystander")
    # Sent, taken by the first; the second is still due.
    with pytest.raises(ScheduleMismatch, match=re.escape("task a is not enabled")):
        run.run()


def test_the_senders_own_processor_drops_at_once() -> None:
    bare, _ = machine()
    own = bare.processor.lps[0]
    own.load(OUTSIDE, 1)
    run = execution(bare, "1:")
    run.spawn(shootdown([own]), "kernel", cpu=0)
    run.run()
    assert run.steps == 1
    assert not own.tlb.entries


def test_a_logical_processor_is_a_target() -> None:
    bare, _ = machine()
    target: ShootdownTarget = bare.lp
    assert target.cpu == 0
    assert target.interruptible()
