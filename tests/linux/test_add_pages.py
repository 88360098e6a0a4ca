"""SGX_IOC_ENCLAVE_ADD_PAGES: validators, where it stops, what `count` is."""

import pytest

from softsgx.linux import uapi
from softsgx.linux.errno import EACCES, EBUSY, EFAULT, EINTR, EINVAL, EIO, ENOMEM
from softsgx.linux.mm import VM_EXEC
from softsgx.linux.uapi import MAP_FIXED, MAP_SHARED, PROT_NONE, PROT_READ
from softsgx.spec.bits import MASK64, PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W, X
from softsgx.spec.paging import SECINFO
from softsgx.system import Machine
from tests.linux.building import BAD, Building, created, initialized
from tests.linux.world import signalled

ADD = uapi.SGX_IOC_ENCLAVE_ADD_PAGES
REG, TCS = 0x200, 0x100
LAST = 1 << 64


def cap(b: Building, offset: int) -> int:
    page = b.encl.page(b.base + offset)
    assert page is not None
    return page.vm_max_prot_bits


def test_state() -> None:
    assert Building().add(0) == (-EINVAL, 0)
    assert initialized().add(0) == (-EINVAL, 0)
    # The state comes before the argument.
    assert Building().at(ADD, BAD) == -EINVAL
    assert created().at(ADD, BAD) == -EFAULT


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (1, PAGE_SIZE),
        (PAGE_SIZE - 1, PAGE_SIZE),
        (0, 0),
        (0, 1),
        (0, PAGE_SIZE + 8),
        (0x8000, PAGE_SIZE),
        (0, 0x9000),
        (0x7000, 2 * PAGE_SIZE),
        (LAST - PAGE_SIZE, PAGE_SIZE),
        (LAST - PAGE_SIZE, 2 * PAGE_SIZE),  # wraps around, and passes
        (PAGE_SIZE, LAST - PAGE_SIZE),
    ],
)
def test_range_must_lie_in_the_enclave(offset: int, length: int) -> None:
    b = created()
    assert b.image.size == 0x8000
    # `count` is not written back.
    assert b.add(offset, length=length, src=0, count=0x55) == (-EINVAL, 0x55)


def test_last_page_of_the_enclave() -> None:
    assert created().add(0x7000) == (0, PAGE_SIZE)
    assert created().add(0, 8) == (0, 0x8000)


def test_k11_a_range_that_wraps_passes_and_eadd_refuses_it() -> None:
    b = created(Machine(epc="1M", races={"range_overflow": True}))
    offset = (1 << 64) - PAGE_SIZE
    assert b.add(offset, 2) == (-EIO, 0)
    assert b.encl.page_array == {}
    # Even so the last page has to lie inside.
    assert b.add(offset, 10) == (-EINVAL, 0)
    assert b.close() == 0


def test_source_must_be_aligned_and_is_checked_before_the_range() -> None:
    b = created()
    source = b.memory(bytes(2 * PAGE_SIZE))
    assert b.add(0, src=source + 8) == (-EINVAL, 0)
    assert b.add(1, src=BAD) == (-EINVAL, 0)


def test_range_is_checked_before_secinfo_is_read() -> None:
    b = created()
    assert b.add(1, secinfo_address=BAD, count=7) == (-EINVAL, 7)
    assert b.add(0, secinfo_address=BAD, count=7) == (-EFAULT, 7)


@pytest.mark.parametrize(
    "flags",
    [
        *[page_type << 8 | R for page_type in (0, 3, 4, 5, 6, 0xFF)],
        REG | W,
        REG | W | X,
        *[TCS | rights for rights in range(1, RWX + 1)],
        *[REG | R | 1 << bit for bit in (3, 4, 5, 6, 7, 16, 31, 32, 63)],
    ],
)
def test_secinfo_flags_refused(flags: int) -> None:
    assert created().add(0, secinfo=flags, count=7) == (-EINVAL, 7)


@pytest.mark.parametrize("byte", [8, 9, 40, 63])
def test_secinfo_reserved_bytes_refused(byte: int) -> None:
    raw = bytearray(SECINFO(FLAGS=REG | R).pack())
    raw[byte] = 1
    assert created().add(0, secinfo=bytes(raw)) == (-EINVAL, 0)


@pytest.mark.parametrize(
    ("flags", "rights"),
    [(REG | rights, rights) for rights in (0, R, X, R | W, R | X, RWX)] + [(TCS, R | W)],
)
def test_secinfo_accepted_and_cap(flags: int, rights: int) -> None:
    b = created()
    page = b.memory(bytes(PAGE_SIZE))  # as a TCS: all fields 0
    assert b.add(0, secinfo=flags, src=page) == (0, PAGE_SIZE)
    assert cap(b, 0) == rights


def test_secinfo_needs_no_alignment() -> None:
    b = created()
    memory = b.memory(bytes(12) + SECINFO(FLAGS=REG | R).pack())
    assert b.add(0, secinfo_address=memory + 12) == (0, PAGE_SIZE)


def test_unknown_flags_and_incoming_count_are_ignored() -> None:
    assert created().add(0, flags=MASK64 - 1, count=MASK64) == (0, PAGE_SIZE)


def test_occupied_offset_is_ebusy_with_the_pages_before_it_done() -> None:
    b = created()
    assert b.add(2 * PAGE_SIZE) == (0, PAGE_SIZE)
    used = b.epc_used()
    assert b.add(0, 4) == (-EBUSY, 2 * PAGE_SIZE)
    assert b.epc_used() == used + 2
    assert b.encl.page_cnt == 4  # the SECS counts
    assert b.close() == 0


def test_source_that_cannot_be_read() -> None:
    b = created()
    source = b.memory(bytes(2 * PAGE_SIZE))
    b.do(b.host.mprotect(source + PAGE_SIZE, PAGE_SIZE, PROT_NONE))
    assert b.add(0, 2, src=source) == (-EFAULT, PAGE_SIZE)
    assert b.add(0x4000, src=1 << 46) == (-EFAULT, 0)


def test_source_that_can_never_be_executable() -> None:
    b = created()
    source = b.memory(bytes(PAGE_SIZE))
    vma = b.host.thread.mm.find_vma(source)
    assert vma is not None
    vma.may &= ~VM_EXEC
    assert b.add(0, src=source) == (-EACCES, 0)
    assert b.encl.page_array == {}


def test_source_may_be_read_only() -> None:
    b = created()
    source = b.memory(b"x" * PAGE_SIZE)
    b.do(b.host.mprotect(source, PAGE_SIZE, PROT_READ))
    assert b.add(0, src=source) == (0, PAGE_SIZE)


def test_source_may_not_be_enclave_memory() -> None:
    b = created()
    assert b.add(0) == (0, PAGE_SIZE)
    flags = MAP_SHARED | MAP_FIXED
    assert b.do(b.host.mmap(b.base, PAGE_SIZE, PROT_READ, flags, b.fd)) == b.base
    assert b.add(PAGE_SIZE, src=b.base) == (-EFAULT, 0)


def test_refusal_of_eadd_is_eio_and_the_page_is_unwound() -> None:
    b = created()
    source = b.memory(bytes(PAGE_SIZE) + b"\xff" * PAGE_SIZE)  # a TCS with reserved bits set
    assert b.add(0, 2, secinfo=TCS, src=source) == (-EIO, PAGE_SIZE)
    assert (b.epc_used(), b.encl.page_cnt, b.encl.secs_child_cnt) == (3, 2, 1)
    assert list(b.encl.page_array) == [b.base // PAGE_SIZE]
    # The enclave is still usable.
    assert b.add(PAGE_SIZE) == (0, PAGE_SIZE)
    assert b.close() == 0
    assert b.machine.kernel.warnings == []


def test_signal_before_the_first_page_is_eintr() -> None:
    b = created()
    signalled(b.host)
    assert b.add(0, 2, count=9) == (-EINTR, 0)  # written back


def test_signal_after_some_pages_is_success_with_a_short_count() -> None:
    b = created()

    def inject(site: str) -> bool:
        b.host.thread.pending_signals = len(b.encl.page_array)
        return False

    b.machine.kernel.inject = inject
    assert b.add(0, 4) == (0, 2 * PAGE_SIZE)
    assert len(b.encl.page_array) == 2


def test_a_real_thread_is_tested_for_signals_once_a_page() -> None:
    b = created()
    asked: list[bool] = []

    def waits(again: bool) -> bool:
        asked.append(again)
        return len(asked) == 3

    b.host.thread.real_signals = waits
    assert b.add(0, 4) == (0, 2 * PAGE_SIZE)
    assert asked == [False] * 3


def test_exhausted_epc_is_enomem_after_what_fitted() -> None:
    b = created()
    count = 0

    def inject(site: str) -> bool:
        nonlocal count
        count += site == "sgx_alloc_epc_page"
        return site == "sgx_alloc_epc_page" and count > 1

    b.machine.kernel.inject = inject
    # The reclaimer takes the page that was added, and finds no other.
    assert b.add(0, 3) == (-ENOMEM, PAGE_SIZE)


def test_every_512th_page_takes_a_va_page() -> None:
    b = Building(Machine(epc="4M"), size=1 << 22)
    assert b.create() == 0
    assert b.add(0, 511) == (0, 511 * PAGE_SIZE)
    assert (len(b.encl.va_pages), b.encl.page_cnt) == (1, 512)
    assert b.add(511 * PAGE_SIZE) == (0, PAGE_SIZE)
    assert (len(b.encl.va_pages), b.encl.page_cnt) == (2, 513)
    assert b.close() == 0


def test_result_that_cannot_be_written_back_is_efault() -> None:
    b = created()
    add = uapi.SgxEnclaveAddPages(
        src=b.memory(bytes(PAGE_SIZE)),
        length=PAGE_SIZE,
        secinfo=b.memory(SECINFO(FLAGS=REG | R).pack()),
    )
    block = b.memory(add.pack())
    b.do(b.host.mprotect(block, PAGE_SIZE, PROT_READ))
    assert b.at(ADD, block) == -EFAULT
    assert len(b.encl.page_array) == 1  # the page is there


def test_pages_added_from_untouched_memory_hold_zeros_and_cost_none() -> None:
    # The shared zero page (mm/gup.c) is the source; neither it nor the EPC pages are stored.
    b = created()
    area = b.do(b.host.alloc(3 * PAGE_SIZE))
    before = len(b.machine.processor.memory.pages)
    assert b.add(0, 3, src=area) == (0, 3 * PAGE_SIZE)
    assert len(b.machine.processor.memory.pages) <= before + 2  # SECINFO and operands
    assert not b.host.thread.mm.space.lookup(area)
    b.do(b.host.store(area, b"mine"))
    assert b.do(b.host.load(area + PAGE_SIZE, 4)) == bytes(4)
    for page in b.encl.page_array.values():
        assert page.epc_page is not None
        assert b.machine.processor.memory.is_zero(page.epc_page.pfn)
    assert b.add(3 * PAGE_SIZE, 1, src=area) == (0, PAGE_SIZE)
    last = list(b.encl.page_array.values())[-1].epc_page
    assert last is not None
    assert b.machine.processor.memory.read(last.pfn << 12, 4) == b"mine"
