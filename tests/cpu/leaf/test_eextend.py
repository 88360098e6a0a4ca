"""EEXTEND: every check in its order, and what success does. SDM 3D, EEXTEND."""

import pytest

from softsgx.cpu import Bare
from softsgx.spec.epcm import BLOCKED, PENDING, REG, TCS, TRIM, VA, VALID, R
from softsgx.spec.leaves import EEXTEND
from softsgx.spec.registers import RAX, RFLAGS
from tests.cpu.cases import ENCLS_PFEC, RAM, Case, assert_first_wins, case, case_id, epc, rows
from tests.cpu.table import Attempt, Row, execute, gp, hold, pf, row_id, run_row

SECS_AT, TCS_AT, DATA_AT, OTHER_SECS, FREE = 0, 1, 5, 6, 14  # EPC pages of the attempt


def attempt(
    *,
    rbx: int = 0,
    rbx_off: int = 0,
    rcx: int = 0,
    rcx_off: int = 0,
    chunk: int = 0,
    busy: dict[str, int] | None = None,
    word: int = 0,
    init: bool = False,
) -> Attempt:
    """EEXTEND of a chunk of the data page of an enclave that is being built."""
    bare = Bare(16)
    enclave = bare.enclave(init=init)
    other = bare.enclave(base=enclave.base + (1 << 30), init=False)
    assert (enclave.secs, other.secs) == (SECS_AT, OTHER_SECS)
    assert enclave.pages[enclave.data[0]] == DATA_AT
    if word:
        bare.processor.epcm.put(DATA_AT, word)
    for name, page in (busy or {}).items():
        hold(bare, page, {"target": 0, "B": 2}[name])
    rbx = (rbx or epc(SECS_AT)) + rbx_off
    return Attempt(bare.lp, "encls", EEXTEND, rbx, (rcx or epc(DATA_AT)) + rcx_off + chunk)


CASES = [
    case("EEXTEND.01", gp(), rbx_off=0x100),
    case("EEXTEND.02", pf("rbx", ENCLS_PFEC), rbx=RAM),
    case("EEXTEND.03", gp(), rcx_off=0x80),
    case("EEXTEND.04", pf("rcx", ENCLS_PFEC), rcx=RAM),
    case("EEXTEND.05", gp(), busy={"target": DATA_AT}),
    case("EEXTEND.06", pf("rcx", ENCLS_PFEC), rcx=epc(FREE)),
    case("EEXTEND.07", pf("rcx", ENCLS_PFEC), "SECS", rcx=epc(SECS_AT)),
    case("EEXTEND.07", pf("rcx", ENCLS_PFEC), "TRIM", word=VALID | TRIM),
    case("EEXTEND.07", pf("rcx", ENCLS_PFEC), "VA", word=VALID | VA),
    case("EEXTEND.08", gp(), "another SECS", rbx=epc(OTHER_SECS)),
    case("EEXTEND.08", gp(), "no SECS", rbx=epc(TCS_AT)),
    case("EEXTEND.08", gp(), "free page", rbx=epc(FREE)),
    case("EEXTEND.09", gp(), busy={"B": SECS_AT}),
    case("EEXTEND.10", gp(), init=True),
]
ROWS = rows(attempt, CASES)
# A leaf that holds the data page does not hold another page given as target.
UNRELATED = [("05", "06"), ("05", "07")]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_eextend_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", CASES, ids=case_id)
def test_eextend_checks_in_order(first: Case) -> None:
    assert_first_wins(attempt, first, CASES, UNRELATED)


@pytest.mark.parametrize("chunk", [0, 0x100, 0xF00])
def test_eextend_measures_offset_and_256_bytes(chunk: int) -> None:
    a = attempt(chunk=chunk)
    processor = a.lp.processor
    secs = processor.secs[SECS_AT]
    content = bytes(range(256))
    processor.memory.write(processor.epc.physical(DATA_AT) + chunk, content)
    assert secs.measurement is not None
    expected, blocks = secs.measurement.copy(), secs.MRENCLAVE_BLOCKS
    # TCS, two SSA pages and the scratch page stand before the data page.
    offset = 0x4000 + chunk
    expected.update(b"EEXTEND\0" + offset.to_bytes(8, "little") + bytes(48))
    expected.update(content)
    assert execute(a) is None
    assert secs.measurement.digest() == expected.digest()
    assert blocks + 5 == secs.MRENCLAVE_BLOCKS


def test_eextend_changes_only_the_measurement() -> None:
    a = attempt()
    lp, processor = a.lp, a.lp.processor
    lp.regs[RFLAGS] |= 0x8D5
    flags = lp.regs[RFLAGS]
    epcm, memory = processor.epcm.snapshot(), processor.memory.snapshot()
    execute(a)
    assert (lp.regs[RAX], lp.regs[RFLAGS]) == (EEXTEND, flags)
    assert (processor.epcm.snapshot(), processor.memory.snapshot()) == (epcm, memory)


@pytest.mark.parametrize("word", [VALID | TCS, VALID | REG, VALID | REG | R | BLOCKED | PENDING])
def test_eextend_asks_for_the_type_only(word: int) -> None:
    a = attempt(word=word)
    before = a.lp.processor.secs[SECS_AT].MRENCLAVE_BLOCKS
    execute(a)
    assert before + 5 == a.lp.processor.secs[SECS_AT].MRENCLAVE_BLOCKS


def test_a_chunk_may_be_measured_twice() -> None:
    seen: list[bytes] = []
    a = attempt()
    secs = a.lp.processor.secs[SECS_AT]
    for _ in range(2):
        execute(a)
        assert secs.measurement is not None
        seen.append(secs.measurement.digest())
    assert seen[0] != seen[1]
