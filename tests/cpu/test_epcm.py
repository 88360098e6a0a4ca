"""The EPCM: packed columns, events, snapshots by block, and 512 GiB of EPC that cost nothing."""

from pathlib import Path
from resource import getpagesize

import pytest

from softsgx.cpu import Bare, Processor
from softsgx.cpu.epcm import Epcm
from softsgx.events.cpu import EpcmChanged
from softsgx.sim import Log
from softsgx.spec.bits import MASK64
from softsgx.spec.epcm import BLOCKED, PR, PT_VA, REG, VALID, R, W
from softsgx.spec.leaves import EPA, EREMOVE

SMALL, LARGE = 4096, 4097
WORD = VALID | REG | R | W
SIZES = pytest.mark.parametrize("pages", [1, 7, SMALL, LARGE, 10_000])

Entry = tuple[int, int, int, int]
FREE: Entry = (0, 0, 0, 0)


def entry(epcm: Epcm, page: int) -> Entry:
    return epcm.state[page], epcm.secs[page], epcm.address[page], epcm.stamp[page]


@SIZES
def test_a_new_epcm_is_free(pages: int) -> None:
    epcm = Epcm(pages, Log())
    assert [len(c) for c in (epcm.state, epcm.secs, epcm.address, epcm.stamp)] == [pages] * 4
    assert {entry(epcm, page) for page in (0, pages // 2, pages - 1)} == {FREE}
    assert epcm.touched_pages() == []


@SIZES
def test_entries_are_apart(pages: int) -> None:
    """First and last entry hold the widest values; what lies between stays free."""
    epcm = Epcm(pages, Log())
    wide: Entry = (0xFFFF_FFFF, 0xFFFF_FFFE, MASK64, 0xFFFF_FFFD)
    for page in {0, pages - 1}:
        epcm.install(page, wide[0], wide[1], wide[2])
        epcm.stamp[page] = wide[3]
    assert entry(epcm, 0) == entry(epcm, pages - 1) == wide
    assert all(entry(epcm, page) == FREE for page in range(1, pages - 1))
    assert epcm.touched_pages() == sorted({0, pages - 1})


@SIZES
def test_put_changes_the_word_and_free_everything(pages: int) -> None:
    epcm = Epcm(pages, Log())
    page = pages - 1
    epcm.install(page, WORD, 3, 0x7000)
    epcm.stamp[page] = 5
    epcm.put(page, WORD | PR)
    assert entry(epcm, page) == (WORD | PR, 3, 0x7000, 5)
    epcm.free(page)
    assert entry(epcm, page) == FREE
    assert epcm.touched_pages() == []


def test_changes_are_logged_with_their_cause() -> None:
    log = Log()
    epcm = Epcm(8, log)
    epcm.cause = (1, "EAUG")
    with log.record() as events:
        epcm.install(2, WORD, 3, 0x7000)
        epcm.cause = (0, "EBLOCK")
        epcm.put(2, WORD | BLOCKED)
        epcm.put(2, WORD | BLOCKED)  # no change, no event
        epcm.free(2)
    assert events == [
        EpcmChanged(1, 2, 3, 0x7000, 0, WORD, "EAUG"),
        EpcmChanged(0, 2, 3, 0x7000, WORD, WORD | BLOCKED, "EBLOCK"),
        EpcmChanged(0, 2, 3, 0x7000, WORD | BLOCKED, 0, "EBLOCK"),
    ]


@SIZES
def test_a_snapshot_can_be_restored_again_and_again(pages: int) -> None:
    epcm = Epcm(pages, Log())
    last = pages - 1
    epcm.install(last, WORD, 3, 0x7000)
    epcm.stamp[last] = 9
    image, digest = epcm.snapshot(), epcm.digest_bytes()
    for _ in range(2):
        epcm.put(last, WORD | BLOCKED)
        epcm.stamp[last] = 10
        if last:
            epcm.install(0, WORD, 1, 0x1000)
        assert epcm.digest_bytes() != digest
        epcm.restore(image)
        assert entry(epcm, last) == (WORD, 3, 0x7000, 9)
        assert epcm.touched_pages() == [last]
        assert epcm.digest_bytes() == digest
    epcm.free(last)
    epcm.restore(image)
    assert entry(epcm, last) == (WORD, 3, 0x7000, 9)


def test_a_snapshot_of_a_large_epcm_has_only_the_blocks_in_use() -> None:
    epcm = Epcm(1 << 20, Log())
    for page in (5, 1023, 1024, 700_000):
        epcm.install(page, WORD, 0, page << 12)
    image = epcm.snapshot()
    assert isinstance(image, dict)
    assert sorted(image) == [0, 1, 700_000 // 1024]


def test_blocks_touched_later_are_restored_to_zero() -> None:
    epcm = Epcm(1 << 20, Log())
    epcm.install(5, WORD, 1, 0x5000)
    image = epcm.snapshot()
    for page in (6, 1024, 700_000, (1 << 20) - 1):
        epcm.install(page, WORD, 1, page << 12)
        epcm.stamp[page] = 4
    epcm.restore(image)
    assert epcm.touched_pages() == [5]
    for page in (6, 1024, 700_000, (1 << 20) - 1):
        assert entry(epcm, page) == FREE
    # And a second time, in a block that was zeroed meanwhile.
    epcm.install(700_000, WORD, 1, 0x1000)
    epcm.restore(image)
    assert entry(epcm, 700_000) == FREE


def test_images_before_and_after_a_block_came_into_use() -> None:
    epcm = Epcm(LARGE, Log())
    before = epcm.snapshot()
    epcm.install(LARGE - 1, WORD, 1, 0x1000)
    after = epcm.snapshot()
    epcm.restore(before)
    assert epcm.touched_pages() == []
    epcm.restore(after)
    assert entry(epcm, LARGE - 1) == (WORD, 1, 0x1000, 0)


@pytest.mark.parametrize("pages", [SMALL, LARGE])
def test_the_digest_sees_every_column_and_no_history(pages: int) -> None:
    epcm, other = Epcm(pages, Log()), Epcm(pages, Log())
    epcm.install(1, WORD, 3, 0x7000)
    other.install(pages - 1, WORD, 3, 0x7000)
    seen = {epcm.digest_bytes(), other.digest_bytes()}
    other.free(pages - 1)
    other.install(1, WORD, 3, 0x7000)
    assert other.digest_bytes() == epcm.digest_bytes()
    for column in (other.state, other.secs, other.address, other.stamp):
        column[1] ^= 1
        seen.add(other.digest_bytes())
        column[1] ^= 1
    assert len(seen) == 6


def resident_bytes() -> int:
    """Memory of this process that is really there, not only reserved."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_512_gib_of_epc_cost_only_what_is_used() -> None:
    before = resident_bytes()
    bare = Bare(processor=Processor(1 << 27))
    processor, last = bare.processor, (1 << 27) - 1
    assert processor.epc.pages * 4096 == 512 << 30
    bare.enclave()
    assert bare.lp.encls(EPA, PT_VA, bare.address(last)) is None
    image, fingerprint = processor.snapshot(), processor.fingerprint()
    for page in range(1 << 20, 1 << 27, 1 << 24):
        bare.lp.encls(EPA, PT_VA, bare.address(page))
    assert processor.fingerprint() != fingerprint
    processor.restore(image)
    assert processor.fingerprint() == fingerprint
    assert processor.epcm.touched_pages()[-1] == last
    assert bare.lp.encls(EREMOVE, 0, bare.address(last)) == 0
    # The columns alone would be 2.5 GiB, page contents 512 GiB.
    assert resident_bytes() - before < 64 << 20
