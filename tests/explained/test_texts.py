"""Texts that the judge once found wrong; each says what was printed before."""

from __future__ import annotations

import pytest

from softsgx.linux.errno import EFAULT, EINTR
from softsgx.spec import faults, leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system import Machine
from tests.linux.building import created
from tests.linux.world import World, signalled, world


def explained() -> World:
    return world(Machine(cpus=2, epc="1M", explain=True), pages=1)


@pytest.mark.parametrize(
    ("leaf", "rbx", "says"),
    [
        (leaves.EMODPE, 8, "EMODPE(RBX={rbx:#x}) refused (EMODPE.01): #GP"),
        (leaves.EGETKEY, 64, "EGETKEY(RBX={rbx:#x}) refused (EGETKEY.01): #GP"),
        (leaves.EREPORT, 64, "EREPORT(RBX={rbx:#x}) refused (EREPORT.01): #GP"),
        (leaves.EACCEPT, -PAGE_SIZE, "EACCEPT(RBX={rbx:#x}) refused (EACCEPT.02): #GP"),
    ],
)
def test_a_refused_operand_is_the_one_that_is_shown(leaf: int, rbx: int, says: str) -> None:
    """RCX and the layers of its page were shown, whatever operand the rule is about."""
    w = explained()
    rbx += w.enclave.data[0] if rbx > 0 else w.enclave.base
    w.fault(lambda t: t.enclu(leaf, rbx, w.enclave.data[0]))
    assert says.format(rbx=rbx) in w.machine.explain()


@pytest.mark.parametrize(("rcx", "rdx", "at"), [(64, 0, "RCX"), (0, 64, "RDX")])
def test_of_two_operands_the_bad_one_is_shown(rcx: int, rdx: int, at: str) -> None:
    w = explained()
    page = w.enclave.data[0]
    w.fault(lambda t: t.enclu(leaves.EACCEPTCOPY, page + 64, page + rcx, page + rdx))
    assert f"EACCEPTCOPY({at}={page + 64:#x}) refused (EACCEPTCOPY.02)" in w.machine.explain()


def test_edeccssa_has_no_operand() -> None:
    """RCX was shown, which EDECCSSA does not read; now it is the TCS of the thread."""
    w = explained()
    w.fault(lambda t: t.enclu(leaves.EDECCSSA, 0, w.enclave.data[0]))
    text = w.machine.explain()
    assert text.startswith("EDECCSSA refused (EDECCSSA.02): #GP")
    assert "  TCS        active, CSSA 0 of" in text


def test_an_exception_of_a_program_in_python_is_explained() -> None:
    """The vDSO function returned #DE, and nothing was printed."""
    w = explained()
    w.fault(lambda t: t.exception(faults.DE))
    text = w.machine.explain()
    assert text.startswith("an instruction raised (CODE.04): #DE")
    assert "the vDSO function returns #DE to thread main" in text


def test_a_signal_is_eintr() -> None:
    """-512 was printed, -ERESTARTSYS, which no program sees."""
    b = created(Machine(cpus=2, epc="1M", explain=True))
    signalled(b.host)
    assert b.add(0)[0] == -EINTR
    assert "refused by the driver: -EINTR, event" in b.machine.explain()


def test_an_offset_that_wraps_names_an_address() -> None:
    """The address of the page had 65 bits."""
    races = {"range_overflow": True}
    w = world(Machine(cpus=2, epc="1M", explain=True, races=races), pages=1)
    at = w.enclave.base - PAGE_SIZE + (1 << 64)
    ret, _ = w.do(w.enclave.restrict(w.host, at, 2 * PAGE_SIZE, 0))
    assert ret == -EFAULT
    assert f"page  {w.enclave.base - PAGE_SIZE:#x}\n" in w.machine.explain()
