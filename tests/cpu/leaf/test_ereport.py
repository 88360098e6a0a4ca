"""EREPORT: every check and its place, and the report. SDM 3D, EREPORT.

Whether the target can verify it is in tests/cpu/test_attestation.py.
"""

import pytest

from softsgx.cpu import Bare, Fault
from softsgx.spec.attributes import ATTR_DEBUG
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PR
from softsgx.spec.faults import GP, PF
from softsgx.spec.keys import REPORT, TARGETINFO
from softsgx.spec.leaves import EREPORT
from softsgx.spec.msr import RFLAGS_STATUS
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS
from tests.cpu.keyed import (
    ALL_KEYS,
    CONFIGID,
    CONFIGSVN,
    EXTENDED,
    FAMILY,
    ISVPRODID,
    ISVSVN,
    Keyed,
    kept,
    operand_spoils,
)
from tests.cpu.spoil import Spoil, Trials, spoil_id
from tests.cpu.table import Row, execute, gp, row_id, run_row

TRIALS: Trials[Keyed] = Trials(lambda: kept(EREPORT), lambda k: k.attempt())


def target_byte(at: int) -> Spoil[Keyed]:
    """A byte of TARGETINFO set that must be zero."""

    def change(k: Keyed) -> None:
        raw = bytearray(k.read(0, TARGETINFO.SIZE))
        raw[at] = 1
        k.write(0, bytes(raw))

    return Spoil("EREPORT.05", f"target-{at}", change, gp(), f"byte {at}")


TARGET = operand_spoils(
    ("EREPORT.01", "EREPORT.02", "EREPORT.03", "EREPORT.04"), "rbx", 0, write=False
)
# CET_ATTRIBUTES, at 48, is reserved on a part without CET.
RESERVED = [target_byte(at) for at in (48, 49, 56, 63, 128, 511)]
DATA = operand_spoils(
    ("EREPORT.06", "EREPORT.07", "EREPORT.08", "EREPORT.09"), "rcx", 1, write=False
)
OUTPUT = operand_spoils(
    ("EREPORT.10", "EREPORT.11", "EREPORT.12", "EREPORT.13"), "rdx", 2, write=True
)
LISTING = [*TARGET, *RESERVED, *DATA, *OUTPUT]

ROWS = TRIALS.rows(LISTING)


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_ereport_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", LISTING[: -len(OUTPUT) + 4], ids=spoil_id)
def test_ereport_order(first: Spoil[Keyed]) -> None:
    assert TRIALS.verify_order(LISTING, first) > 0


@pytest.mark.parametrize(("number", "pfec"), [(0, 4), (1, 4), (2, 6)])
def test_ereport_operands_are_explicit_accesses(number: int, pfec: int) -> None:
    k = kept(EREPORT)
    k.bare.processor.space.unmap(k.enclave.data[number])
    with pytest.raises(Fault) as refused:
        execute(k.attempt())
    fault = refused.value
    assert (fault.vector, fault.code, fault.address) == (PF, pfec, k.enclave.data[number])


@pytest.mark.parametrize("number", range(3))
def test_ereport_accepts_a_page_under_restriction(number: int) -> None:
    k = kept(EREPORT)
    k.bare.processor.epcm.put(k.page(number), k.bare.word(k.page(number)) | PR)
    assert execute(k.attempt()) is None


@pytest.mark.parametrize(("register", "align"), [("rbx", 512), ("rcx", 128), ("rdx", 512)])
def test_ereport_alignments(register: str, align: int) -> None:
    """Each operand may stand at any multiple of its alignment, and at no other place."""
    k = kept(EREPORT)
    setattr(k, register, getattr(k, register) + align)
    execute(k.attempt())
    for shift in range(align.bit_length() - 1):
        k = kept(EREPORT)
        setattr(k, register, getattr(k, register) + (1 << shift))
        with pytest.raises(Fault) as refused:
            execute(k.attempt())
        assert refused.value.vector == GP


def test_report_says_what_the_enclave_is() -> None:
    k = kept(EREPORT)
    data = bytes(range(100, 164))
    k.write(1, data)
    execute(k.attempt())
    report = REPORT.unpack(k.read(2, REPORT.SIZE))
    assert report == REPORT(
        CPUSVN=k.bare.processor.part.cpusvn,
        MISCSELECT=1,
        ISVEXTPRODID=EXTENDED,
        ATTRIBUTES=ALL_KEYS | 1,  # and INIT
        XFRM=7,
        MRENCLAVE=k.secs.MRENCLAVE,
        MRSIGNER=k.secs.MRSIGNER,
        CONFIGID=CONFIGID,
        ISVPRODID=ISVPRODID,
        ISVSVN=ISVSVN,
        CONFIGSVN=CONFIGSVN,
        ISVFAMILYID=FAMILY,
        REPORTDATA=data,
        KEYID=k.bare.processor.keys.report_keyid,
        MAC=report.MAC,
    )
    assert any(k.secs.MRENCLAVE)
    assert any(k.secs.MRSIGNER)
    assert any(report.MAC)


def test_report_overwrites_432_bytes() -> None:
    """Reserved bytes become zero, the bytes after the report stay."""
    k = kept(EREPORT)
    k.write(2, b"\xa5" * 1024)
    execute(k.attempt())
    raw = k.read(2, 1024)
    assert REPORT.reserved_clear(raw[: REPORT.SIZE])
    assert raw[REPORT.SIZE :] == b"\xa5" * (1024 - REPORT.SIZE)


def test_ereport_has_no_rax_and_no_flags() -> None:
    k = kept(EREPORT)
    k.lp.regs[RFLAGS] |= RFLAGS_STATUS
    expected = k.lp.regs[:]
    data = k.enclave.data
    expected[RAX], expected[RBX], expected[RCX], expected[RDX] = EREPORT, *data
    assert execute(k.attempt()) is None
    assert k.lp.regs == expected


def test_ereport_changes_only_the_output() -> None:
    k = kept(EREPORT)
    before = k.read(0, 4096), k.read(1, 4096), k.bare.processor.epcm.digest_bytes()
    execute(k.attempt())
    assert (k.read(0, 4096), k.read(1, 4096), k.bare.processor.epcm.digest_bytes()) == before


def test_operands_may_share_a_page() -> None:
    k = kept(EREPORT)
    k.rcx, k.rdx = k.rbx + 512, k.rbx + 1024
    execute(k.attempt())
    report = REPORT.unpack(k.read(0, 2048)[1024 : 1024 + REPORT.SIZE])
    assert bytes(64) == report.REPORTDATA
    assert report.MRENCLAVE == k.secs.MRENCLAVE


def test_operands_lie_anywhere_in_their_pages() -> None:
    """At every place that their alignment permits, whatever else is in the page."""
    enclave = Bare().enclave(pages=4)
    lp, (first, second, third, _) = enclave.bare.lp, enclave.data
    enclave.enter(lp)
    target = TARGETINFO(ATTRIBUTES=ATTR_DEBUG, CONFIGSVN=7).pack()
    data = bytes(range(64))

    def report(at: int, data_at: int, out_at: int) -> bytes:
        for page in (first, second, third):
            lp.store(page, b"\x5a" * PAGE_SIZE)
        lp.store(first + at, target)
        lp.store(second + data_at, data)
        assert not lp.enclu(EREPORT, first + at, second + data_at, third + out_at)
        found: bytes = lp.load(third, PAGE_SIZE)
        assert found[:out_at] == b"\x5a" * out_at
        assert found[out_at + 432 :] == b"\x5a" * (PAGE_SIZE - out_at - 432)
        return found[out_at : out_at + 432]

    usual = report(0, 0, 0)
    assert data in usual
    for place in ((512, 0, 0), (0, 128, 0), (0, 0, 512), (3584, 3968, 3584)):
        assert report(*place) == usual
