"""CET while enclaves are built and grow: CET.01 to CET.19. SDM 3D, ECREATE, EADD, EAUG, EACCEPT."""

from typing import Any

import pytest

from softsgx.cpu import Bare, Fault, Part, Readings
from softsgx.spec.attributes import ATTR_CET, ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.cet import ENDBR_EN, SH_STK_EN
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
    REG,
    SS_FIRST,
    SS_REST,
    TCS,
    TRIM,
    VALID,
    R,
    W,
    X,
)
from softsgx.spec.leaves import EINIT
from softsgx.spec.registers import RBX, RDX
from softsgx.spec.sigstruct import EINITTOKEN
from softsgx.spec.status import SGX_INVALID_ATTRIBUTE, SGX_INVALID_SIG_STRUCT
from softsgx.spec.tcs import TCS as TCS_PAGE
from tests.cpu.cet_rig import (
    BASE,
    BOTH,
    CET,
    FIRST_RW,
    HEAP,
    HEAP_OF_PLAIN,
    LAST,
    REST_RW,
    SIZE,
    STACK,
    TOKEN_AT,
    building,
    eaccept,
    eadd,
    eaug,
    ecreate,
    inside,
    machine,
    running,
    token,
)
from tests.cpu.table import Attempt, Row, code, execute, gp, row_id, run_row

NO_CET = Part()
WIDE = ATTR_MODE64BIT | ATTR_CET
LOW: dict[str, Any] = {"BASEADDR": 0x1000_0000, "ATTRIBUTES": ATTR_CET}
TCS_FIELDS = {"OSSA": 0x2000, "NSSA": 2, "FSLIMIT": 0xFFF, "GSLIMIT": 0xFFF}


def einit(part: Part = CET, **fields: int) -> Attempt:
    """EINIT of an enclave with CET_ATTRIBUTES 5, signed with these CET fields."""
    bare = machine(part=part)
    enclave = bare.enclave(cet=BOTH if part.cet else 0, init=False)
    sig = bare.sigstruct(enclave.secs, **fields)
    # Bare.einit writes the operands; a second EINIT of them is the attempt.
    status = bare.einit(enclave.secs, sig)
    assert status is not None
    assert not fields or status != 0, "the signature was to be refused"
    return Attempt(
        bare.lp, "encls", EINIT, bare.lp.regs[RBX], bare.address(enclave.secs), bare.lp.regs[RDX]
    )


def added_tcs(**fields: int) -> Attempt:
    return eadd(TCS, TCS_PAGE(**TCS_FIELDS | fields).pack())


def accepted_tcs(part: Part = CET, **fields: int) -> Attempt:
    """EACCEPT of a page with these contents, after EMODT to PT_TCS."""
    attempt = eaccept(TCS | MODIFIED, 0, part=part)
    lp = attempt.lp
    processor = lp.processor
    page = next(n for n in range(64) if processor.epcm.address[n] == HEAP_OF_PLAIN)
    content = TCS_PAGE(**TCS_FIELDS | fields).pack()
    processor.memory.write_page(processor.epc.pfn(page), content)
    processor.epcm.put(page, VALID | TCS | MODIFIED)
    return attempt


ROWS = [
    Row("CET.01", lambda: ecreate(ATTRIBUTES=ATTR_MODE64BIT), gp()),
    Row(
        "CET.02",
        lambda: ecreate(
            ATTRIBUTES=ATTR_MODE64BIT, CET_ATTRIBUTES=0, CET_LEG_BITMAP_OFFSET=PAGE_SIZE
        ),
        gp(),
    ),
    Row("CET.03", lambda: ecreate(CET_LEG_BITMAP_OFFSET=1 << 46), gp()),
    Row("CET.04", lambda: ecreate(**LOW, CET_LEG_BITMAP_OFFSET=0xF000_0000), gp()),
    *(
        Row("CET.05", lambda bit=bit: ecreate(CET_ATTRIBUTES=1 << bit), gp(), f"bit {bit}")  # type: ignore[misc]
        for bit in (6, 7)
    ),
    Row("CET.06", lambda: ecreate(CET_LEG_BITMAP_OFFSET=0x800), gp()),
    Row(
        "CET.07",
        lambda: einit(CET_ATTRIBUTES=SH_STK_EN, CET_ATTRIBUTES_MASK=0xFF),
        code(SGX_INVALID_ATTRIBUTE),
        "less is signed",
    ),
    Row(
        "CET.07",
        lambda: einit(CET_ATTRIBUTES=0x3F, CET_ATTRIBUTES_MASK=0x10),
        code(SGX_INVALID_ATTRIBUTE),
        "one masked bit",
    ),
    *(
        Row("CET.08", lambda f=flags: eadd(f, cr4=False), gp(), f"{flags:#x}")  # type: ignore[misc]
        for flags in (FIRST_RW, REST_RW)
    ),
    Row("CET.09", lambda: added_tcs(PREVSSP=8), gp()),
    *(
        Row("CET.10", lambda f=flags, a=at: eadd(f, linaddr=a), gp(), f"{note} {flags:#x}")  # type: ignore[misc]
        for flags in (FIRST_RW, REST_RW)
        for note, at in (("first", BASE), ("last", LAST))
    ),
    *(
        Row("CET.11", lambda f=flags, b=byte: eadd(f, spoilt(f, b)), gp(), f"{byte} {flags:#x}")  # type: ignore[misc]
        for flags in (FIRST_RW, REST_RW)
        for byte in (0, TOKEN_AT - 1)
    ),
    Row("CET.12", lambda: eadd(content=b""), gp(), "no token"),
    Row("CET.12", lambda: eadd(content=token(HEAP, wide=False)), gp(), "of a 32-bit enclave"),
    Row("CET.12", lambda: eadd(content=token(STACK)), gp(), "of another page"),
    Row(
        "CET.12", lambda: eadd(content=token(HEAP, wide=True), wide=False), gp(), "of a 64-bit one"
    ),
    Row("CET.13", lambda: eadd(REST_RW, token(HEAP)), gp()),
    *(
        Row("CET.14", lambda f=pt | r: eadd(f), gp(), f"{pt | r:#x}")  # type: ignore[misc]
        for pt in (SS_FIRST, SS_REST)
        for r in (0, R, W, X, R | X, W | X, R | W | X)
    ),
    *(
        Row("CET.15", lambda f=pt | r: eaug(f), gp(), f"{pt | r:#x}")  # type: ignore[misc]
        for pt in (SS_FIRST, SS_REST)
        for r in (0, R, W, X, R | X, W | X, R | W | X)
    ),
    *(
        Row("CET.16", lambda f=flags: eaug(f, cr4=False), gp(), f"{flags:#x}")  # type: ignore[misc]
        for flags in (FIRST_RW, REST_RW)
    ),
    *(
        Row("CET.17", lambda f=flags, a=at: eaug(f, a), gp(), f"{note} {flags:#x}")  # type: ignore[misc]
        for flags in (FIRST_RW, REST_RW)
        for note, at in (("first", BASE), ("last", LAST))
    ),
    *(
        Row("CET.18", lambda f=FIRST_RW | s: eaccept(f), gp(), f"{FIRST_RW | s:#x}")  # type: ignore[misc]
        for s in (0, MODIFIED, PR, PENDING | MODIFIED, PENDING | PR, MODIFIED | PR)
    ),
    Row("CET.18", lambda: eaccept(REST_RW, REST_RW), gp(), "PT_SS_REST"),
    Row("CET.19", lambda: accepted_tcs(PREVSSP=1), gp()),
]


def spoilt(flags: int, byte: int) -> bytes:
    """The page as it must be but for one byte."""
    content = bytearray(token(HEAP) if flags & PT_MASK == SS_FIRST else bytes(PAGE_SIZE))
    content[byte] = 1
    return bytes(content)


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_cet_part_refuses(row: Row) -> None:
    run_row(row)


# Two conditions spoilt at once: the one that the listing names first is reported.
@pytest.mark.parametrize(
    ("first", "attempt"),
    [
        ("ECREATE.12", lambda: ecreate(XFRM=1 << 11 | 3, CET_LEG_BITMAP_OFFSET=1)),
        ("CET.06", lambda: ecreate(CET_LEG_BITMAP_OFFSET=1, MISCSELECT=1 << 7)),
        ("CET.05", lambda: ecreate(CET_ATTRIBUTES=1 << 7, CET_LEG_BITMAP_OFFSET=1)),
        ("CET.01", lambda: ecreate(ATTRIBUTES=ATTR_MODE64BIT, CET_ATTRIBUTES=1 << 7)),
        ("EADD.10", lambda: eadd(7 << 8 | R | W, cr4=False)),
        ("CET.10", lambda: eadd(REST_RW, token(HEAP), BASE)),
        ("CET.11", lambda: eadd(SS_FIRST | R, spoilt(FIRST_RW, 0))),
        ("CET.12", lambda: eadd(SS_FIRST | R, b"")),
        ("CET.14", lambda: eadd(SS_REST | R, linaddr=BASE + SIZE)),
        ("CET.10", lambda: eadd(FIRST_RW, linaddr=BASE, init=True)),
        ("EADD.21", lambda: eadd(FIRST_RW, init=True)),
        ("CET.15", lambda: eaug(SS_FIRST | R, cr4=False)),
        ("CET.16", lambda: eaug(FIRST_RW, BASE, cr4=False)),
        ("EAUG.16", lambda: eaug(FIRST_RW, BASE + SIZE)),
    ],
)
def test_checks_stand_where_the_listing_has_them(first: str, attempt: Any) -> None:
    made = attempt()
    with pytest.raises(Fault) as caught:
        execute(made)
    assert caught.value.rule == first


@pytest.mark.parametrize("flags", [FIRST_RW, REST_RW])
def test_eadd_of_a_shadow_stack_page_keeps_type_rights_and_contents(flags: int) -> None:
    attempt = eadd(flags)
    processor = attempt.lp.processor
    page = next(n for n in range(64) if not processor.epcm.state[n])
    assert execute(attempt) is None
    assert (processor.epcm.state[page], processor.epcm.address[page]) == (VALID | flags, HEAP)
    content = processor.memory.read_page(processor.epc.pfn(page))
    assert content == (token(HEAP) if flags == FIRST_RW else bytes(PAGE_SIZE))


def test_the_token_of_a_32_bit_enclave_has_bit_0_clear() -> None:
    assert execute(eadd(wide=False)) is None


def test_eadd_measures_the_page_type() -> None:
    def mrenclave(flags: int, content: bytes) -> bytes:
        bare = machine()
        enclave = bare.enclave(init=False)
        bare.eadd(enclave.secs, HEAP, content, flags)
        hash_ = bare.processor.secs[enclave.secs].measurement
        assert hash_ is not None
        return hash_.digest()

    seen = {
        mrenclave(FIRST_RW, token(HEAP)),
        mrenclave(REST_RW, b""),
        mrenclave(REG | R | W, b""),
    }
    assert len(seen) == 3


@pytest.mark.parametrize("flags", [FIRST_RW, REST_RW])
def test_eaug_and_eaccept_give_a_shadow_stack_page(flags: int) -> None:
    enclave = running()
    bare = enclave.bare
    page = enclave.eaug(HEAP, flags)
    assert bare.word(page) == VALID | PENDING | flags
    content = bare.processor.memory.read_page(bare.processor.epc.pfn(page))
    assert content == (token(HEAP) if flags == FIRST_RW else bytes(PAGE_SIZE))
    assert enclave.eaccept(HEAP, flags | PENDING, inside(enclave)) == 0
    assert bare.word(page) == VALID | flags


@pytest.mark.parametrize("flags", [FIRST_RW, REST_RW])
def test_eaccept_tells_the_two_types_apart(flags: int) -> None:
    other = FIRST_RW if flags == REST_RW else REST_RW
    status = execute(eaccept(other | PENDING, flags))
    assert status is not None
    assert status.rule == "EACCEPT.20"


def test_a_shadow_stack_is_removed_by_way_of_trim() -> None:
    enclave = running()
    bare = enclave.bare
    page = enclave.eaug(HEAP, FIRST_RW)
    assert enclave.eaccept(HEAP, FIRST_RW | PENDING, inside(enclave)) == 0
    assert bare.processor.secs[enclave.secs].inside == 1
    enclave.exit(inside(enclave))
    assert bare.emodt(page, TRIM) == 0
    assert bare.word(page) == VALID | TRIM | MODIFIED
    assert bare.etrack(enclave.secs) == 0
    enclave.enter(inside(enclave))
    assert enclave.eaccept(HEAP, TRIM | MODIFIED, inside(enclave)) == 0
    assert bare.eremove(page) == 0
    assert bare.word(page) == 0


# A part without CET knows none of this: reserved fields, unknown page types.


@pytest.mark.parametrize(
    ("rule", "attempt"),
    [
        ("ECREATE.22", lambda: ecreate(part=NO_CET, ATTRIBUTES=ATTR_MODE64BIT)),
        (
            "ECREATE.22",
            lambda: ecreate(
                part=NO_CET,
                ATTRIBUTES=ATTR_MODE64BIT,
                CET_ATTRIBUTES=0,
                CET_LEG_BITMAP_OFFSET=PAGE_SIZE,
            ),
        ),
        ("ECREATE.21", lambda: ecreate(part=NO_CET)),
        ("EADD.10", lambda: eadd(FIRST_RW, part=NO_CET)),
        ("EADD.10", lambda: eadd(REST_RW, part=NO_CET)),
        ("EADD.15", lambda: eadd(TCS, TCS_PAGE(OCETSSA=16).pack(), part=NO_CET)),
        ("EADD.15", lambda: eadd(TCS, TCS_PAGE(PREVSSP=1).pack(), part=NO_CET)),
        ("EAUG.12", lambda: eaug(FIRST_RW, part=NO_CET)),
        ("EAUG.12", lambda: eaug(REST_RW, part=NO_CET)),
        ("EACCEPT.12", lambda: eaccept(FIRST_RW | PENDING, 0, part=NO_CET)),
        ("EACCEPT.12", lambda: eaccept(REST_RW | PENDING, 0, part=NO_CET)),
        ("EACCEPT.22", lambda: accepted_tcs(NO_CET, OCETSSA=16)),
    ],
)
def test_a_part_without_cet_refuses_what_it_does_not_know(rule: str, attempt: Any) -> None:
    made = attempt()
    with pytest.raises(Fault) as caught:
        execute(made)
    assert caught.value.rule == rule


def test_a_tcs_with_a_save_area_is_added_and_accepted_on_a_part_with_cet() -> None:
    assert execute(added_tcs(OCETSSA=0x3000)) is None
    assert execute(accepted_tcs(OCETSSA=0x3000)) == 0


@pytest.mark.parametrize(
    "fields", [{"CET_ATTRIBUTES": 1}, {"CET_ATTRIBUTES_MASK": 1}], ids=lambda f: next(iter(f))
)
def test_without_cet_the_signed_fields_are_reserved(fields: dict[str, int]) -> None:
    status = execute(einit(NO_CET, **fields))
    assert status == SGX_INVALID_SIG_STRUCT
    assert status is not None
    assert status.rule == "EINIT.05"


@pytest.mark.parametrize(("attributes", "mask"), [(BOTH, 0xFF), (0x3F, 0x05), (0x00, 0x00)])
def test_einit_compares_cet_attributes_under_the_mask(attributes: int, mask: int) -> None:
    enclave = building()
    bare = enclave.bare
    sig = bare.sigstruct(enclave.secs, CET_ATTRIBUTES=attributes, CET_ATTRIBUTES_MASK=mask)
    assert bare.einit(enclave.secs, sig) == 0


def test_the_token_field_of_cet_is_reserved_without_cet() -> None:
    def rule(part: Part) -> str:
        bare = Bare(32, part=part)
        enclave = bare.enclave(init=False)
        launch = EINITTOKEN(VALID=1, CET_MASKED_ATTRIBUTES_LE=1)
        status = bare.einit(enclave.secs, bare.sigstruct(enclave.secs), launch)
        assert status is not None
        return status.rule

    assert rule(NO_CET) == "EINIT.19"
    assert rule(CET) == "EINIT.21"  # it goes into the key, which is another one then


@pytest.mark.parametrize("measured", [True, False])
def test_the_bitmap_is_measured(measured: bool) -> None:
    def mrenclave(offset: int) -> bytes:
        bare = machine(Readings(ecreate_measures_bitmap=measured))
        attributes = BOTH if offset == 0 else ENDBR_EN
        enclave = bare.enclave(cet=attributes, init=False, secs={"CET_LEG_BITMAP_OFFSET": offset})
        hash_ = bare.processor.secs[enclave.secs].measurement
        assert hash_ is not None
        return hash_.digest()

    assert (mrenclave(0) != mrenclave(0x8000)) is measured


def test_the_ecreate_record_holds_the_bitmap_at_byte_20() -> None:
    from hashlib import sha256

    bare = machine()
    attempt = ecreate(CET_LEG_BITMAP_OFFSET=0x5000)
    assert execute(attempt) is None
    (secs,) = attempt.lp.processor.secs.values()
    block = b"ECREATE\0" + (1).to_bytes(4, "little") + SIZE.to_bytes(8, "little")
    block += (0x5000).to_bytes(8, "little") + bytes(36)
    assert secs.measurement is not None
    assert secs.measurement.digest() == sha256(block).digest()
    assert bare.processor.secs == {}
