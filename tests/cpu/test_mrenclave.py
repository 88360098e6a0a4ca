"""MRENCLAVE and MRSIGNER against a computation of their own.

The records below are written from the manual's description with hashlib and int.to_bytes alone;
`softsgx.cpu.measurement` is not used, and neither are the structures it reads.
"""

import hashlib

import pytest

from softsgx.cpu import Bare
from softsgx.spec.leaves import EEXTEND
from softsgx.spec.secs import SECS
from tests.cpu.launch import SIGSTRUCT_AT, attempt
from tests.cpu.table import execute

BASE, SIZE = 0x7E80_0000_0000, 1 << 24
REG, TCS = 0x200, 0x100
R, W, X = 1, 2, 4

# (offset in the enclave, SECINFO.FLAGS as given, contents, which 256-byte chunks are measured)
Page = tuple[int, int, bytes, list[int]]
ALL = list(range(16))


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def tcs_page(**fields: int) -> bytes:
    """A TCS with everything that EADD forces to zero set to something else."""
    page = bytearray(4096)
    page[0:8] = u64(fields.get("state", 1))
    page[8:16] = u64(fields.get("flags", 1))
    page[16:24] = u64(0x3000)  # OSSA
    page[24:28] = (7).to_bytes(4, "little")  # CSSA
    page[28:32] = (2).to_bytes(4, "little")  # NSSA
    page[32:40] = u64(0x5000)  # OENTRY
    page[40:48] = u64(0xDEAD)  # AEP
    return bytes(page)


CODE = bytes(range(256)) * 16
PAGES: list[Page] = [
    (0x0000, TCS | R | W | X, tcs_page(), ALL),
    (0x1000, REG | R | W, b"data".ljust(4096, b"\x55"), ALL),
    (0x5000, REG | R | X, CODE, ALL),
    (0x3000, REG | R | W, b"unmeasured".ljust(4096, b"\0"), []),
    (0x4000, REG, b"\xaa" * 4096, [15, 0, 7]),  # in the order in which they were measured
    (SIZE - 0x1000, REG | R | W | X, b"\x99" * 4096, [3]),
]


def expected_mrenclave(ssaframesize: int, size: int, pages: list[Page]) -> bytes:
    """The whole sequence of 64-byte blocks, hashed."""
    blocks = [b"ECREATE\0" + ssaframesize.to_bytes(4, "little") + u64(size) + bytes(44)]
    for offset, flags, content, chunks in pages:
        if flags & 0xFF00 == TCS:
            flags = TCS  # R, W, X forced to zero
            forced = bytearray(content)
            forced[0:8] = bytes(8)  # STATE
            forced[8] &= 0xFE  # FLAGS.DBGOPTIN
            forced[24:28] = bytes(4)  # CSSA
            forced[40:48] = bytes(8)  # AEP
            content = bytes(forced)
        blocks.append(b"EADD\0\0\0\0" + u64(offset) + u64(flags) + bytes(40))
        for chunk in chunks:
            at = 256 * chunk
            blocks.append(b"EEXTEND\0" + u64(offset + at) + bytes(48))
            blocks += [content[at + 64 * i : at + 64 * i + 64] for i in range(4)]
    assert all(len(block) == 64 for block in blocks)
    return hashlib.sha256(b"".join(blocks)).digest()


def built(pages: list[Page], *, ssaframesize: int = 1, size: int = SIZE) -> tuple[Bare, int]:
    """An enclave of the pages, not initialised; the processor, and the EPC page of its SECS."""
    bare = Bare(16)
    secs = bare.ecreate(
        SECS(SIZE_=size, BASEADDR=BASE, SSAFRAMESIZE=ssaframesize, ATTRIBUTES=6, XFRM=3)
    )
    for offset, flags, content, chunks in pages:
        page = bare.eadd(secs, BASE + offset, content, flags)
        for chunk in chunks:
            bare.lp.encls(EEXTEND, bare.address(secs), bare.address(page) + 256 * chunk)
    return bare, secs


def initialised(bare: Bare, secs: int, mrenclave: bytes) -> int:
    """EINIT with a SIGSTRUCT that names `mrenclave`; its status."""
    status = bare.einit(secs, bare.sigstruct(secs, ENCLAVEHASH=mrenclave))
    assert status is not None
    return int(status)


@pytest.mark.parametrize("count", range(len(PAGES) + 1))
def test_einit_stores_the_measurement_of_the_first_pages(count: int) -> None:
    bare, secs = built(PAGES[:count])
    expected = expected_mrenclave(1, SIZE, PAGES[:count])
    assert initialised(bare, secs, expected) == 0
    assert expected == bare.processor.secs[secs].MRENCLAVE


@pytest.mark.parametrize(
    ("ssaframesize", "size"), [(1, 1 << 24), (3, 1 << 24), (0xFFFF, 1 << 25), (2, 1 << 33)]
)
def test_size_stands_at_the_unaligned_byte_12(ssaframesize: int, size: int) -> None:
    # SSAFRAMESIZE takes 4 bytes from 8 on, SIZE 8 bytes from 12 on; a size above 2^32 shows both.
    bare, secs = built([], ssaframesize=ssaframesize, size=size)
    record = bytearray(64)
    record[0:7] = b"ECREATE"
    record[8:12] = ssaframesize.to_bytes(4, "little")
    record[12:20] = size.to_bytes(8, "little")
    expected = hashlib.sha256(record).digest()
    assert initialised(bare, secs, expected) == 0
    assert expected == bare.processor.secs[secs].MRENCLAVE


@pytest.mark.parametrize("first", [0, 3])
def test_the_order_of_pages_counts(first: int) -> None:
    swapped = [*PAGES]
    swapped[first], swapped[first + 1] = swapped[first + 1], swapped[first]
    bare, secs = built(swapped)
    assert initialised(bare, secs, expected_mrenclave(1, SIZE, PAGES)) == 4
    assert initialised(bare, secs, expected_mrenclave(1, SIZE, swapped)) == 0


def test_contents_count_only_where_measured() -> None:
    other = [*PAGES]
    other[3] = (0x3000, REG | R | W, b"something else".ljust(4096, b"\0"), [])
    bare, secs = built(other)
    assert initialised(bare, secs, expected_mrenclave(1, SIZE, PAGES)) == 0


@pytest.mark.parametrize(
    ("index", "page"),
    [
        (1, (0x2000, REG | R | W, PAGES[1][2], ALL)),  # another offset
        (1, (0x1000, REG | R, PAGES[1][2], ALL)),  # other rights
        (3, (0x3000, REG | R, PAGES[3][2], [])),  # other rights of a page that is not measured
        (4, (0x4000, REG, PAGES[4][2], [0, 15, 7])),  # another order of chunks
        (5, (SIZE - 0x1000, REG | 7, PAGES[5][2], [4])),  # another chunk of the same contents
    ],
)
def test_everything_else_counts(index: int, page: Page) -> None:
    other = [*PAGES]
    other[index] = page
    bare, secs = built(other)
    assert initialised(bare, secs, expected_mrenclave(1, SIZE, PAGES)) == 4
    assert initialised(bare, secs, expected_mrenclave(1, SIZE, other)) == 0


def test_rights_of_a_tcs_do_not_count() -> None:
    other = [*PAGES]
    other[0] = (0, TCS, PAGES[0][2], ALL)
    bare, secs = built(other)
    assert initialised(bare, secs, expected_mrenclave(1, SIZE, PAGES)) == 0


def test_base_address_attributes_and_miscselect_do_not_count() -> None:
    expected = hashlib.sha256(
        b"ECREATE\0" + (1).to_bytes(4, "little") + u64(SIZE) + bytes(44)
    ).digest()
    for fields in ({"BASEADDR": 0}, {"ATTRIBUTES": 4}, {"MISCSELECT": 1}, {"XFRM": 7}):
        bare = Bare(16)
        values = {"SIZE_": SIZE, "BASEADDR": BASE, "SSAFRAMESIZE": 1, "ATTRIBUTES": 6, "XFRM": 3}
        secs = bare.ecreate(SECS(**values | fields))
        assert initialised(bare, secs, expected) == 0


def test_pages_added_later_do_not_count() -> None:
    bare, secs = built(PAGES)
    expected = expected_mrenclave(1, SIZE, PAGES)
    assert initialised(bare, secs, expected) == 0
    page = bare.eaug(secs, BASE + 0x8000)
    assert bare.emodt(page, TCS) == 20  # still PENDING
    assert expected == bare.processor.secs[secs].MRENCLAVE


def test_the_whole_sequence_is_hashed_across_eviction_of_a_page() -> None:
    # The measurement lives in the SECS, not in the pages.
    bare, secs = built(PAGES[:2])
    va, backing = bare.epa(), bare.backing()
    victim = next(page for page in range(16) if bare.processor.epcm.address[page] == BASE + 0x1000)
    bare.eblock(victim)
    bare.etrack(secs)
    assert bare.ewb(victim, va, 0, backing) == 0
    page = bare.eadd(secs, BASE + PAGES[2][0], PAGES[2][2], PAGES[2][1])
    bare.eextend(secs, page)
    assert initialised(bare, secs, expected_mrenclave(1, SIZE, PAGES[:3])) == 0


def test_the_measurement_goes_on_after_eviction_of_the_secs() -> None:
    bare, secs = built([])
    va, backing = bare.epa(), bare.backing()
    assert bare.ewb(secs, va, 0, backing) == 0
    again, status = bare.eld(backing, va, 0, None)
    assert status == 0
    offset, flags, content, _ = PAGES[1]
    bare.eextend(again, bare.eadd(again, BASE + offset, content, flags))
    assert initialised(bare, again, expected_mrenclave(1, SIZE, PAGES[1:2])) == 0


def test_mrsigner_is_the_hash_of_the_modulus_as_stored() -> None:
    a = attempt()
    modulus = a.lp.system_read(SIGSTRUCT_AT + 128, 384)
    assert execute(a) == 0
    secs = a.lp.processor.secs[0]
    assert hashlib.sha256(modulus).digest() == secs.MRSIGNER
