"""ECREATE: every check in its order, and what success does. SDM 3D, ECREATE."""

from typing import Any

import pytest

from softsgx.cpu import SGX1_PART, Bare, Fault, Part
from softsgx.mem.pagetable import direct
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import MODIFIED, PENDING, PR, REG, SECS, VALID, R, W, X
from softsgx.spec.leaves import ECREATE
from softsgx.spec.paging import SECINFO
from softsgx.spec.registers import RAX, RFLAGS
from softsgx.spec.secs import SECS as SECS_PAGE
from tests.cpu.cases import ENCLS_PFEC, RAM, Case, assert_first_wins, case, case_id, rows
from tests.cpu.table import Attempt, Row, execute, gp, hold, pf, row_id, run_row

BASE = 0x7F00_0000_0000
DEBUG_64 = 0b110
AVX512 = Part(xfrm=0xE7)
AMX = Part(xfrm=0x602E7)

DEFAULTS: dict[str, int | bytes] = {
    "SIZE_": 1 << 20,
    "BASEADDR": BASE,
    "SSAFRAMESIZE": 1,
    "MISCSELECT": 1,
    "ATTRIBUTES": DEBUG_64,
    "XFRM": 0b11,
}


def attempt(
    *,
    rbx_off: int = 0,
    rcx_off: int = 0,
    rcx: int = 0,
    srcpge_off: int = 0,
    secinfo_off: int = 0,
    linaddr: int = 0,
    secs: int = 0,
    flags: int = SECS,
    tail: int = 0,
    busy: bool = False,
    valid: bool = False,
    part: Part | None = None,
    poke: dict[int, int] | None = None,
    **fields: Any,
) -> Attempt:
    """ECREATE of EPC page 0 from a SECS of DEFAULTS and `fields`.

    `flags` and `tail` (at byte 63) make the SECINFO, `poke` sets bytes of the source page.
    """
    bare = Bare(8, part=part) if part else Bare(8)
    content = bytearray(SECS_PAGE(**DEFAULTS | fields).pack())
    for offset, value in (poke or {}).items():
        content[offset] = value
    secinfo = bare.secinfo(flags)
    bare.lp.system_write(secinfo + 63, bytes([tail]))
    rbx = bare.pageinfo(
        linaddr=linaddr,
        srcpge=bare.source(bytes(content)) + srcpge_off,
        secinfo=secinfo + secinfo_off,
        secs=secs,
    )
    page = bare.epa() if valid else 0
    if busy:
        hold(bare, page, 0)
    rcx = (rcx or bare.address(page)) + rcx_off
    return Attempt(bare.lp, "encls", ECREATE, rbx + rbx_off, rcx)


CASES = [
    case("ECREATE.01", gp(), "8", rbx_off=8),
    case("ECREATE.01", gp(), "16", rbx_off=16),
    case("ECREATE.02", gp(), rcx_off=0x800),
    case("ECREATE.03", pf("rcx", ENCLS_PFEC), rcx=RAM),
    case("ECREATE.04", gp(), srcpge_off=0x800),
    case("ECREATE.05", gp(), secinfo_off=32),
    case("ECREATE.06", gp(), "LINADDR", linaddr=BASE),
    case("ECREATE.06", gp(), "SECS", secs=RAM),
    case("ECREATE.07", gp(), "bit 6", flags=1 << 6),
    case("ECREATE.07", gp(), "bit 7", flags=1 << 7),
    case("ECREATE.07", gp(), "bit 16", flags=1 << 16),
    case("ECREATE.07", gp(), "bit 63", flags=1 << 63),
    case("ECREATE.07", gp(), "byte 63", tail=1),
    case("ECREATE.08", gp(), "TCS", flags=0x100),
    case("ECREATE.08", gp(), "REG", flags=REG),
    case("ECREATE.09", gp(), busy=True),
    case("ECREATE.10", pf("rcx", ENCLS_PFEC), valid=True),
    case("ECREATE.11", gp(), "no x87", XFRM=0b10),
    case("ECREATE.11", gp(), "no SSE", XFRM=0b101),
    case("ECREATE.12", gp(), "PKRU not supported", XFRM=0x203),
    case("ECREATE.12", gp(), "bit 63", XFRM=1 << 63 | 3),
    case("ECREATE.12", gp(), "opmask alone", XFRM=0x27, part=AVX512),
    case("ECREATE.12", gp(), "AVX-512 without AVX", XFRM=0xE3, part=AVX512),
    case("ECREATE.12", gp(), "AMX not supported", XFRM=0x602E7, SSAFRAMESIZE=3, part=AVX512),
    case("ECREATE.12", gp(), "XTILECFG alone", XFRM=0x20003, SSAFRAMESIZE=3, part=AMX),
    case("ECREATE.12", gp(), "XTILEDATA alone", XFRM=0x40003, SSAFRAMESIZE=3, part=AMX),
    case("ECREATE.13", gp(), "CPINFO", MISCSELECT=0b10),
    case("ECREATE.13", gp(), "EXINFO not supported", MISCSELECT=1, part=Part(exinfo=False)),
    case("ECREATE.14", gp(), SSAFRAMESIZE=0),
    case("ECREATE.14", gp(), "AMX in two pages", XFRM=0x60003, SSAFRAMESIZE=2, part=AMX),
    case("ECREATE.15", gp(), BASEADDR=1 << 47),
    case("ECREATE.16", gp(), ATTRIBUTES=0b010),
    case("ECREATE.17", gp(), "64-bit", SIZE_=1 << 46, BASEADDR=0),
    case("ECREATE.17", gp(), "32-bit", SIZE_=1 << 31, BASEADDR=0, ATTRIBUTES=0b010),
    case("ECREATE.18", gp(), "one page", SIZE_=PAGE_SIZE),
    case("ECREATE.18", gp(), "nothing", SIZE_=0),
    case("ECREATE.19", gp(), SIZE_=3 * PAGE_SIZE),
    case("ECREATE.20", gp(), BASEADDR=BASE + PAGE_SIZE),
    case("ECREATE.21", gp(), "INIT", ATTRIBUTES=DEBUG_64 | 1),
    case("ECREATE.21", gp(), "bit 3", ATTRIBUTES=DEBUG_64 | 1 << 3),
    case("ECREATE.21", gp(), "CET", ATTRIBUTES=DEBUG_64 | 1 << 6),
    case("ECREATE.21", gp(), "bit 8", ATTRIBUTES=DEBUG_64 | 1 << 8),
    case("ECREATE.21", gp(), "bit 63", ATTRIBUTES=DEBUG_64 | 1 << 63),
    case("ECREATE.21", gp(), "no KSS", ATTRIBUTES=DEBUG_64 | 1 << 7, part=SGX1_PART),
    case("ECREATE.21", gp(), "no AEXNOTIFY", ATTRIBUTES=DEBUG_64 | 1 << 10, part=SGX1_PART),
    *(
        case("ECREATE.22", gp(), f"byte {offset}", poke={offset: 1})
        for offset in (24, 31, 32, 33, 47, 96, 127, 160, 191, 262, 263, 264, 4095)
    ),
    case("ECREATE.23", gp(), "CONFIGID", CONFIGID=bytes(63) + b"\1"),
    case("ECREATE.23", gp(), "CONFIGSVN", CONFIGSVN=1),
]
ROWS = rows(attempt, CASES)


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_ecreate_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", CASES, ids=case_id)
def test_ecreate_checks_in_order(first: Case) -> None:
    # The 32-bit case changes what the BASEADDR cases spoil, and the other way round.
    assert_first_wins(attempt, first, CASES, [("15", "16"), ("16", "17")])


def test_ecreate_makes_a_secs_page_and_nothing_else() -> None:
    a = attempt()
    processor, page = a.lp.processor, 0
    memory = processor.memory.snapshot()
    assert execute(a) is None
    epcm = processor.epcm
    assert epcm.state[page] == VALID | SECS
    assert (epcm.secs[page], epcm.address[page], epcm.stamp[page]) == (0, 0, 0)
    assert [epcm.state[other] for other in range(1, 8)] == [0] * 7
    assert list(processor.secs) == [page]
    assert processor.memory.snapshot() == memory


def test_ecreate_fills_the_secs() -> None:
    fields: dict[str, Any] = {
        "ATTRIBUTES": DEBUG_64 | 1 << 7,
        "CONFIGID": bytes(range(64)),
        "CONFIGSVN": 9,
    }
    a = attempt(**fields)
    execute(a)
    secs = a.lp.processor.secs[0]
    expected = SECS_PAGE(**DEFAULTS | fields)
    for name in ("BASEADDR", "SSAFRAMESIZE", "MISCSELECT", "ATTRIBUTES", "XFRM"):
        assert getattr(secs, name) == getattr(expected, name)
    assert secs.SIZE == 1 << 20
    assert (bytes(range(64)), 9) == (secs.CONFIGID, secs.CONFIGSVN)
    assert (secs.VIRTCHILDCNT, secs.children, secs.inside) == (0, 0, 0)
    assert secs.MRENCLAVE_BLOCKS == 1
    assert a.lp.processor.epc.physical(0) == secs.ENCLAVECONTEXT
    assert not secs.initialised


def test_ecreate_zeroes_isvprodid_and_isvsvn() -> None:
    a = attempt(ISVPRODID=7, ISVSVN=8)
    execute(a)
    secs = a.lp.processor.secs[0]
    assert (secs.ISVPRODID, secs.ISVSVN) == (0, 0)


def test_ecreate_leaves_rax_and_flags_alone() -> None:
    a = attempt()
    a.lp.regs[RFLAGS] |= 0x8D5
    flags = a.lp.regs[RFLAGS]
    execute(a)
    assert (a.lp.regs[RAX], a.lp.regs[RFLAGS]) == (ECREATE, flags)


def test_ecreate_ignores_state_bits_and_rights_of_the_secinfo() -> None:
    # They are defined bits and not consumed here; the EPCM entry has none of them.
    a = attempt(flags=SECS | PENDING | MODIFIED | PR | R | W | X)
    execute(a)
    assert a.lp.processor.epcm.state[0] == VALID | SECS


def test_ecreate_never_uses_an_eid_twice() -> None:
    bare = Bare(8)
    seen = []
    for _ in range(3):
        page = bare.ecreate(SECS_PAGE(**DEFAULTS))
        seen.append(bare.processor.secs[page].EID)
        assert bare.eremove(page) == 0
    assert seen == [1, 2, 3]


def test_a_refused_ecreate_takes_no_eid() -> None:
    bare = Bare(8)
    with pytest.raises(Fault, match=r"ECREATE\.14"):
        bare.ecreate(SECS_PAGE(**DEFAULTS | {"SSAFRAMESIZE": 0}))
    page = bare.ecreate(SECS_PAGE(**DEFAULTS))
    assert bare.processor.secs[page].EID == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"SIZE_": 1 << 45, "BASEADDR": 0},
        {"SIZE_": 1 << 30, "BASEADDR": 0, "ATTRIBUTES": 0b010},
        {"SIZE_": 2 * PAGE_SIZE, "BASEADDR": (1 << 47) - 2 * PAGE_SIZE},
        {"SIZE_": 2 * PAGE_SIZE, "BASEADDR": (1 << 64) - (1 << 47)},
        {"BASEADDR": (1 << 32) - (1 << 20), "ATTRIBUTES": 0},
        {"ATTRIBUTES": 0b0100_1011_0110},
        {"XFRM": 0xE7, "part": AVX512},
        {"XFRM": 0x602E7, "part": AMX, "SSAFRAMESIZE": 3},
        {"XFRM": 0x60003, "part": AMX, "SSAFRAMESIZE": 3},
        {"XFRM": 0x7},
        {"MISCSELECT": 0, "part": Part(exinfo=False)},
    ],
    ids=str,
)
def test_ecreate_accepts_the_limits(fields: dict[str, Any]) -> None:
    a = attempt(**fields)
    execute(a)
    assert a.lp.processor.epcm.state[0] == VALID | SECS


def test_ecreate_reads_the_secinfo_it_is_pointed_to() -> None:
    # The SECINFO may lie anywhere in ordinary memory, here after the source page.
    a = attempt()
    lp = a.lp
    at = direct(0x100_0000)
    lp.system_write(at, SECINFO(FLAGS=SECS).pack())
    lp.system_write(a.rbx + 16, at.to_bytes(8, "little"))
    execute(a)
    assert lp.processor.epcm.state[0] == VALID | SECS
