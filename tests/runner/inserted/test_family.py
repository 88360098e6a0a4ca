"""What the supervisor does with the memory of an address space, whatever a program writes there."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal

import pytest

from softsgx.runner.host.abi import PROT_RW, SHARED_FIXED
from softsgx.runner.inserted import systrap_layout as lay
from softsgx.runner.inserted.box import IDLE, REPLY, REQUEST, TAKEN
from softsgx.runner.inserted.family import Family
from softsgx.runner.inserted.records import Records
from softsgx.spec.bits import PAGE_SIZE


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def family(records: Records) -> Family:
    made = records.new_family()
    made.begin(0)
    return made


def put(family: Family, name: str, value: int, index: int = 0) -> None:
    """As a program does."""
    at = lay.SHARED_AT[name] + 4 * index
    family.view[at : at + 4] = value.to_bytes(4, "little")


def test_a_request_is_taken_once(records: Records, family: Family) -> None:
    put(family, "STATES", REQUEST)
    put(family, "REPORTS", 1)
    assert list(records.control.take_reports()) == [family.first]
    assert family.report(0) == TAKEN
    put(family, "REPORTS", 2)
    assert not list(records.control.take_reports())


def test_files_that_count_no_request_are_not_searched(records: Records, family: Family) -> None:
    put(family, "MAIL_STATES", REQUEST)
    assert records.control.take() == []
    put(family, "MAILS", 1)
    assert records.control.take() == [family.first]


def test_two_address_spaces_have_different_numbers(records: Records, family: Family) -> None:
    other = records.new_family()
    other.begin(0)
    for one in (family, other):
        put(one, "MAIL_STATES", REQUEST)
        put(one, "MAILS", 1)
    assert records.control.take() == [family.first, other.first]
    records.control.set_state(other.first, REPLY)
    assert (family.mail(0), other.mail(0)) == (TAKEN, REPLY)


def test_a_ring_that_another_undoes_is_waited_for_shortly(records: Records, family: Family) -> None:
    alone = records.wait_s
    other = records.new_family()
    assert records.wait_s <= 0.1 < alone
    records.drop(other)
    assert records.wait_s == alone


def test_a_record_above_the_top_is_not_found(records: Records, family: Family) -> None:
    put(family, "MAIL_STATES", REQUEST, index=1)
    put(family, "MAILS", 1)
    assert records.control.take() == []
    put(family, "TOP", 0xFFFFFFFF)
    put(family, "MAILS", 2)
    assert records.control.take() == [family.first + 1]
    put(family, "USED", 1, index=lay.RECORDS_MAX - 1)
    assert family.taken() == [0, lay.RECORDS_MAX - 1]


@pytest.mark.parametrize(
    "shift", [-lay.TABLE_STRIDE, 8, lay.RECORDS_MAX * lay.TABLE_STRIDE, 1 << 63]
)
def test_an_address_without_a_table(family: Family, shift: int) -> None:
    address = family.begin_table()
    assert family.table(address) is not None
    assert family.table(address + shift) is None
    assert family.action(address + shift, 1) is None
    assert family.waiting(address + shift) is None
    before = bytes(family.view[: lay.SPACE_AT + PAGE_SIZE])
    family.put_tables(address + shift)
    family.confine(address + shift)
    assert family.view[: len(before)] == before


@pytest.mark.parametrize("number", [0, -1, lay.SIGNALS + 1])
def test_a_number_of_no_signal_has_no_action(family: Family, number: int) -> None:
    assert family.action(family.begin_table(), number) is None


def test_a_table_that_nobody_uses_is_not_given_back_again(family: Family) -> None:
    address = family.begin_table()
    table = family.table(address)
    assert table is not None
    for count in (0, 0):
        family.put_tables(address, address)
        assert int.from_bytes(table[:4], "little") == count


def test_an_address_space_that_is_gone_has_idle_mailboxes(records: Records, family: Family) -> None:
    """Whoever still has the number of a record there: nothing happens."""
    records.boxes[family.first].registers = range(18)
    records.drop(family)
    records.control.set_state(family.first, REPLY)
    assert records.control.state(family.first) == IDLE
    assert family.first not in records.boxes
    assert records.control.take() == []


def test_whose_file_a_process_has_mapped(records: Records, family: Family) -> None:
    """Whatever it says: both files have the same contents, but for the random word."""
    other = records.new_family()
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        size = lay.SYSTRAP_SHARED_SIZE - lay.SPACE_AT
        place = lay.SYSTRAP_CONTROL + lay.SPACE_AT
        ctypes.CDLL(None).mmap(
            *map(ctypes.c_long, (place, size, PROT_RW, SHARED_FIXED, family.fd, lay.SPACE_AT))
        )
        os.write(write, b"x")
        signal.pause()
    assert os.read(read, 1) == b"x"
    try:
        assert family.is_mapped_in(pid) is True
        assert other.is_mapped_in(pid) is False
        assert other.is_mapped_in(os.getpid()) is None
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_programs_cannot_write_to_the_common_page(records: Records) -> None:
    """Not by the descriptor that they get, nor by one that is opened from it."""
    again = os.open(f"/proc/self/fd/{records.control.common_fd}", os.O_RDWR)
    for fd in (records.control.common_fd, again):
        assert mmap.mmap(fd, PAGE_SIZE, prot=mmap.PROT_READ)[0] == 0
        with pytest.raises(PermissionError):
            mmap.mmap(fd, PAGE_SIZE)
        with pytest.raises(OSError, match=r"not permitted|Bad file"):
            os.pwrite(fd, b"x", 0)
    os.close(again)
    records.control.spin = 5
    assert records.control.spin == 5
