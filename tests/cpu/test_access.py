"""Access control at address translation: every check and its error code.

SDM 3D, 38.3 "Access-control Requirements"; SDM 3A, 4.7 "Page-Fault Exceptions".
"""

from typing import Final

import pytest

from softsgx.cpu import SGX1_PART, Bare, Fault, Readings
from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.spec.epcm import (
    MODIFIED,
    PR,
    REG,
    RWX,
    SECS,
    TCS,
    TRIM,
    VA,
    VALID,
    R,
    W,
    X,
    rwx_text,
)
from softsgx.spec.leaves import EBLOCK, ERDINFO
from tests.cpu import edmm
from tests.cpu.accesses import (
    KINDS,
    PFEC,
    PRESENT,
    SGX,
    AccessRow,
    alias,
    denied,
    from_inside,
    from_outside,
    not_executable,
    perform,
    row_name,
    run_access,
    supervisor,
)
from tests.cpu.edmm import BASE, DATA, END, OUTSIDE, Spoil, word
from tests.cpu.table import Attempt, Row, gp, pf, run_row

AT: Final = DATA + 0x123  # an address somewhere in the page: it is reported as it is
NOT_CANONICAL: Final = (1 << 47, (1 << 64) - (1 << 47) - 1)


def operand(leaf: int, *, rbx: int = 0, rcx: int = 0, write: bool | None = None) -> Attempt:
    """An ENCLS leaf with a user address as operand; `write`: it is mapped, writable or not."""
    enclave = edmm.built()
    if write is not None:
        enclave.bare.processor.space.map(OUTSIDE, 0x800, write=write)
    rcx = rcx or enclave.bare.address(enclave.pages[DATA])
    return Attempt(enclave.bare.lp, "encls", leaf, rbx, rcx)


# Requirement of the EPCM, how DATA misses it.
REQUIREMENTS: list[tuple[str, str, Spoil]] = [
    ("ACCESS.05", "VALID", edmm.free),
    ("ACCESS.06", "TCS", word(VALID | TCS)),
    ("ACCESS.06", "TCS with rights", word(VALID | TCS | RWX)),
    ("ACCESS.06", "TRIM", word(VALID | TRIM)),
    ("ACCESS.06", "TRIM not accepted", word(VALID | TRIM | MODIFIED)),
    ("ACCESS.06", "SECS", word(VALID | SECS)),
    ("ACCESS.06", "VA", word(VALID | VA)),
    ("ACCESS.07", "other enclave", edmm.foreign),
    ("ACCESS.08", "other address", edmm.moved),
    ("ACCESS.09", "BLOCKED", edmm.blocked),
    ("ACCESS.10", "PENDING", edmm.pending),
    ("ACCESS.11", "MODIFIED", edmm.modified),
    ("ACCESS.12", "no right", word(VALID | REG)),
    ("ACCESS.12", "no right, PR", word(VALID | REG | PR)),
]
WITHOUT: list[tuple[str, int]] = [
    ("read", X),
    ("write", R),
    ("write", R | X),
    ("fetch", R),
    ("fetch", R | W),
]
FIRST = Readings(fetch_outside_elrange_first=False)
SPLIT = Readings(fetch_split_gp_first=True)
PLAIN = Readings(nonepc_in_elrange_sgx=False)

EPCM_ROWS = [
    *(
        AccessRow(rule, from_inside(kind, AT, spoil), denied(kind, AT, SGX), f"{note} {name}")
        for rule, note, spoil in REQUIREMENTS
        for name, kind in KINDS.items()
    ),
    *(
        AccessRow(
            "ACCESS.12",
            from_inside(kind, AT, word(VALID | REG | rights)),
            denied(kind, AT, SGX),
            f"{rwx_text(rights)} {name}",
        )
        for name, rights in WITHOUT
        for kind in [KINDS[name]]
    ),
]
PAGING_ROWS = [
    *(
        AccessRow(
            "PAGING.01", build(kind, AT, edmm.unmapped), pf(AT, PFEC[kind]), f"{where} {name}"
        )
        for name, kind in KINDS.items()
        for where, build in (("inside", from_inside), ("outside", from_outside))
    ),
    *(
        AccessRow(
            "PAGING.02", build(kind, AT, supervisor), denied(kind, AT, PRESENT), f"{where} {name}"
        )
        for name, kind in KINDS.items()
        for where, build in (("inside", from_inside), ("outside", from_outside))
    ),
    *(
        AccessRow("PAGING.03", build(WRITE, AT, edmm.read_only), pf(AT, 0x7), where)
        for where, build in (("inside", from_inside), ("outside", from_outside))
    ),
    *(
        AccessRow("PAGING.04", build(FETCH, AT, not_executable), pf(AT, 0x15), where)
        for where, build in (("inside", from_inside), ("outside", from_outside))
    ),
]
# What ENCLS reads and writes at user addresses, at CPL 0: U is clear.
SUPERVISOR_ROWS = [
    Row("PAGING.05", lambda: operand(ERDINFO, rbx=OUTSIDE, rcx=OUTSIDE), pf("rcx", 0), "read"),
    Row("PAGING.05", lambda: operand(ERDINFO, rbx=OUTSIDE), pf("rbx", 2), "write"),
    Row("PAGING.06", lambda: operand(ERDINFO, rbx=OUTSIDE, write=False), pf("rbx", 3)),
    Row("ACCESS.02", lambda: operand(EBLOCK, rcx=1 << 47), gp(), "ENCLS"),
]
ROWS: list[Row | AccessRow] = [
    AccessRow("ACCESS.01", from_inside(FETCH, OUTSIDE, edmm.not_epc), gp(), "RAM"),
    AccessRow("ACCESS.01", from_inside(FETCH, OUTSIDE, alias), gp(), "EPC"),
    AccessRow("ACCESS.01", from_inside(FETCH, OUTSIDE), gp(), "unmapped"),
    AccessRow("ACCESS.01", from_inside(FETCH, END, edmm.not_epc), gp(), "past"),
    AccessRow("ACCESS.01", from_inside(FETCH, BASE - 1, edmm.not_epc), gp(), "before"),
    *(
        AccessRow("ACCESS.02", build(kind, address), gp(), f"{where} {name} {address:#x}")
        for address in NOT_CANONICAL
        for where, build, name in (
            ("outside", from_outside, "fetch"),
            ("outside", from_outside, "read"),
            ("inside", from_inside, "read"),
            ("inside", from_inside, "write"),
        )
        for kind in [KINDS[name]]
    ),
    AccessRow("ACCESS.14", from_inside(FETCH, END - 1, size=2, readings=SPLIT), gp()),
    AccessRow("ACCESS.03", from_inside(FETCH, OUTSIDE, edmm.not_epc, readings=FIRST), gp(), "RAM"),
    AccessRow("ACCESS.03", from_inside(FETCH, OUTSIDE, alias, readings=FIRST), gp(), "EPC"),
    *(
        AccessRow("ACCESS.04", from_inside(kind, AT, edmm.not_epc), denied(kind, AT, SGX), name)
        for name, kind in KINDS.items()
    ),
    *(
        AccessRow(
            "ACCESS.04",
            from_inside(kind, AT, edmm.not_epc, readings=PLAIN),
            denied(kind, AT, PRESENT),
            f"reading {name}",
        )
        for name, kind in KINDS.items()
    ),
    *EPCM_ROWS,
    *PAGING_ROWS,
    *SUPERVISOR_ROWS,
]


@pytest.mark.parametrize("row", ROWS, ids=row_name)
def test_access_is_refused(row: Row | AccessRow) -> None:
    if isinstance(row, Row):
        run_row(row)
    else:
        run_access(row)


@pytest.mark.parametrize(
    ("kind", "spoil", "code"),
    [
        (READ, word(VALID | REG), 0x8005),
        (READ, edmm.pending, 0x8005),
        (WRITE, word(VALID | REG | PR | R), 0x8007),
        (WRITE, edmm.pending, 0x8007),
        (FETCH, word(VALID | REG | R | W), 0x8015),
        (READ, edmm.unmapped, 0x4),
        (WRITE, edmm.unmapped, 0x6),
        (FETCH, edmm.unmapped, 0x14),
        (WRITE, edmm.read_only, 0x7),
        (FETCH, not_executable, 0x15),
    ],
)
def test_the_error_codes_as_the_kernel_sees_them(kind: int, spoil: Spoil, code: int) -> None:
    with pytest.raises(Fault) as caught:
        perform(from_inside(kind, AT, spoil)())
    assert (caught.value.code, caught.value.address) == (code, AT)


def test_the_trimmed_page_gives_the_same_code_before_and_after_acceptance() -> None:
    enclave = edmm.running()
    lp = edmm.inside(enclave)
    enclave.bare.emodt(enclave.pages[DATA], TRIM)
    codes = []
    for step in ("before", "after"):
        with pytest.raises(Fault) as caught:
            lp.load(DATA, 1)
        codes.append((step, caught.value.code))
        if step == "before":
            edmm.etrack(enclave)
            assert edmm.eaccept(enclave, DATA, TRIM | MODIFIED) == 0
    assert codes == [("before", 0x8005), ("after", 0x8005)]


@pytest.mark.parametrize(("rule", "note", "spoil"), REQUIREMENTS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_first_generation_part_gives_gp_for_what_the_epcm_refuses(
    kind: int, rule: str, note: str, spoil: Spoil
) -> None:
    run_access(AccessRow(rule, from_inside(kind, AT, spoil, part=SGX1_PART), gp(), note))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_first_generation_part_gives_gp_for_memory_that_is_not_epc(kind: int) -> None:
    run_access(AccessRow("ACCESS.04", from_inside(kind, AT, edmm.not_epc, part=SGX1_PART), gp()))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_first_generation_part_gives_page_faults_for_the_page_tables(kind: int) -> None:
    build = from_inside(kind, AT, edmm.unmapped, part=SGX1_PART)
    run_access(AccessRow("PAGING.01", build, pf(AT, PFEC[kind])))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_reading_sgx1_violation_is_gp(kind: int) -> None:
    """The other reading gives the page fault of later parts."""
    readings = Readings(sgx1_violation_is_gp=False)
    build = from_inside(kind, AT, edmm.blocked, part=SGX1_PART, readings=readings)
    run_access(AccessRow("ACCESS.09", build, denied(kind, AT, SGX)))
    # It concerns first-generation parts alone.
    later = from_inside(kind, AT, edmm.blocked, readings=readings)
    run_access(AccessRow("ACCESS.09", later, denied(kind, AT, SGX)))


def test_reading_fetch_outside_elrange_first() -> None:
    """Whether the #GP comes before the page tables are asked."""
    run_access(AccessRow("ACCESS.01", from_inside(FETCH, OUTSIDE), gp()))
    run_access(
        AccessRow("PAGING.01", from_inside(FETCH, OUTSIDE, readings=FIRST), pf(OUTSIDE, 0x14))
    )


@pytest.mark.parametrize("exinfo", [True, False])
def test_the_handler_sees_the_page_and_the_enclave_the_address(exinfo: bool) -> None:
    """CR2 has its low 12 bits clear; MADDR is whole, if MISCSELECT.EXINFO asks for it."""
    bare = Bare(16)
    enclave = bare.enclave(pages=2, miscselect=int(exinfo))
    lp = edmm.inside(enclave)
    enclave.enter(lp)
    edmm.blocked(enclave, DATA)
    with pytest.raises(Fault) as caught:
        lp.store(AT, b"\1")
    assert (caught.value.address, caught.value.code) == (AT, 0x8007)
    seen = lp.deliver_fault(caught.value)
    assert (seen.vector, seen.code, seen.cr2, seen.from_enclave) == (14, 0x8007, DATA, True)
    frame = bare.processor.epc.physical(enclave.pages[edmm.SSA])
    info = bare.processor.memory.read(frame + 4096 - 184 - 16, 16)
    expected = AT.to_bytes(8, "little") + (0x8007).to_bytes(8, "little")
    assert info == (expected if exinfo else bytes(16))


def test_bad_addresses_are_mistakes_of_the_caller() -> None:
    lp = edmm.inside(edmm.built())
    with pytest.raises(ValueError, match="not a 64-bit linear address"):
        lp.load(1 << 64, 1)
