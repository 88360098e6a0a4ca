"""The supervisor's end of the records: the shared memory through which the stub reports.

Each thread of a supervised process has a record (`systrap_layout.py`). A word of state passes it
to and fro, as with the mailboxes of `box.py`. The supervisor must not trust what it reads here:
the program can write to all of it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections import deque
from typing import TYPE_CHECKING, Final

from softsgx.runner.host import futex
from softsgx.runner.host.memory_file import sealed_file
from softsgx.runner.host.native_code import compare_and_swap
from softsgx.runner.inserted.box import IDLE, REPLY, REQUEST, TAKEN, Box
from softsgx.runner.inserted.mailboxes import Mailboxes
from softsgx.runner.inserted.systrap_layout import (
    ACTION_STRIDE,
    RECORD_AT,
    RECORD_STRIDE,
    RECORDS_MAX,
    SHARED_AT,
    SIGNALS,
    SYSTRAP_CONTROL,
    SYSTRAP_CONTROL_SIZE,
    SYSTRAP_SHARED_SIZE,
    TABLE_AT,
    TABLE_STRIDE,
    WAITING_SIZE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_FIRST: Final = SYSTRAP_CONTROL_SIZE  # offset of the first record in the file
_TABLES: Final = SHARED_AT["TABLES"]
_WORDS: Final = 4 * RECORDS_MAX
_STATES: Final = SHARED_AT["STATES"] // 4
_MAIL_STATES: Final = SHARED_AT["MAIL_STATES"] // 4
_REQUESTED: Final = bytes([REQUEST])


class Boxes(dict[int, Box]):
    """The mailboxes by number of the record, made when they are first needed."""

    def __init__(self, memory: memoryview) -> None:
        super().__init__()
        self._memory = memory

    def __missing__(self, number: int) -> Box:
        start = _FIRST + number * RECORD_STRIDE
        places = start + RECORD_AT["MAILBOX"], start + RECORD_AT["MAILBOX_FX"]
        box = self[number] = Box(self._memory, number, *places)
        return box


class RecordControl:
    """The control area and the words of state: what `box.Control` is to mailboxes.

    A mailbox is a record. Its thread is known once the supervisor has registered it.
    """

    def __init__(self, file: mmap.mmap) -> None:
        self._file = file
        self.memory: Final = memoryview(file)
        self._words = self.memory.cast("I")
        self._doorbell = SHARED_AT["DOORBELL"] // 4
        self._sleeping = SHARED_AT["SLEEPING"] // 4
        self.by_tid: dict[int, int] = {}
        self.tids: dict[int, int] = {}

    @property
    def doorbell(self) -> int:
        """How often the doorbell rang, modulo 2**32."""
        return self._words[self._doorbell]

    @property
    def sleeping(self) -> bool:
        """Whether a request must wake the supervisor."""
        return self._words[self._sleeping] != 0

    @sleeping.setter
    def sleeping(self, value: bool) -> None:
        self._words[self._sleeping] = value

    @property
    def spin(self) -> int:
        """How often a thread checks its state before it sleeps."""
        return self._words[SHARED_AT["SPIN"] // 4]

    @spin.setter
    def spin(self, value: int) -> None:
        self._words[SHARED_AT["SPIN"] // 4] = value

    def word(self, name: str) -> int:
        """A 32-bit word of the control area."""
        return self._words[SHARED_AT[name] // 4]

    def set_word(self, name: str, value: int) -> None:
        """Set a 32-bit word of the control area."""
        self._words[SHARED_AT[name] // 4] = value

    @property
    def aep(self) -> int:
        """Address of the vDSO's ENCLU; to be set before the first request."""
        return self._words[SHARED_AT["AEP"] // 4] | self._words[SHARED_AT["AEP"] // 4 + 1] << 32

    @aep.setter
    def aep(self, value: int) -> None:
        at = SHARED_AT["AEP"] // 4
        self._words[at], self._words[at + 1] = value & 0xFFFFFFFF, value >> 32

    def tid(self, mailbox: int) -> int:
        """The tid of the thread that has a record; 0 if it is not known."""
        return self.tids.get(mailbox, 0)

    def find(self, tid: int) -> int | None:
        """The record of a thread; None if it has none that is known."""
        return self.by_tid.get(tid)

    def insert(self, tid: int) -> int | None:
        """The record of a thread: it has had one since it exists."""
        return self.by_tid.get(tid)

    def register(self, tid: int, record: int) -> None:
        """Note which thread has a record."""
        self.by_tid[tid] = record
        self.tids[record] = tid

    def remove(self, tid: int) -> None:
        """Forget a thread that is gone."""
        record = self.by_tid.pop(tid, None)
        if record is not None:
            self.tids.pop(record, None)

    def state(self, mailbox: int) -> int:
        """IDLE, REQUEST, TAKEN or REPLY, unless the program wrote something else there."""
        return self._words[_MAIL_STATES + mailbox]

    def set_state(self, mailbox: int, state: int) -> None:
        """Write a state; for REPLY the state word must be woken afterwards."""
        self._words[_MAIL_STATES + mailbox] = state

    def take(self) -> list[int]:
        """The mailboxes with a new REQUEST, which become TAKEN."""
        return list(self._take(_MAIL_STATES))

    # Reports: of threads in the stub's signal handler

    def report(self, record: int) -> int:
        """The state of a report."""
        return self._words[_STATES + record]

    def set_report(self, record: int, state: int) -> None:
        """Write the state of a report."""
        self._words[_STATES + record] = state

    def take_reports(self) -> Iterator[int]:
        """The records with a new report. Each becomes TAKEN only when it is returned: serving one
        may take the next (`HeldThread.wait`)."""
        return self._take(_STATES)

    def _take(self, first: int) -> Iterator[int]:
        start, end = 4 * first, 4 * first + _WORDS
        at = self._file.find(_REQUESTED, start, end)
        while at >= 0:
            word = at // 4
            if self._words[word] == REQUEST:
                self._words[word] = TAKEN
                yield word - first
            at = self._file.find(_REQUESTED, at + 1, end)


class Records:
    """The shared memory, and replies: what `Mailboxes` is to mailboxes."""

    def __init__(self) -> None:
        self.fd: Final = sealed_file("softsgx-records", SYSTRAP_SHARED_SIZE)
        self._memory = mmap.mmap(self.fd, SYSTRAP_SHARED_SIZE)
        self.view: Final = memoryview(self._memory)
        self.control: Final = RecordControl(self._memory)
        # Records whose threads have a stop that needs no report.
        self.later: deque[int] = deque()
        self.boxes: Final = Boxes(self.view)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.doorbell = self._base + SHARED_AT["DOORBELL"]
        self._mail_states = self._base + SHARED_AT["MAIL_STATES"]
        self._states = self._base + SHARED_AT["STATES"]
        self._swap = compare_and_swap()
        # Called while a report of a thread is awaited, with its number, now and then.
        self.awaited: Callable[[int], None] = lambda _tid: None

    def address(self, name: str) -> int:
        """Where this process has a field of SHARED."""
        return self._base + SHARED_AT[name]

    def close(self) -> None:
        """Close `fd`; this object and processes that have mapped it keep their mappings."""
        os.close(self.fd)

    def reply(self, mailbox: int, registers: Sequence[int], fx: bytes | None = None) -> None:
        """Let a thread go on with these registers; without `fx`, with the image of its request."""
        self.boxes[mailbox].fill(registers, fx)
        self.control.set_state(mailbox, REPLY)
        futex.wake(self._mail_states + 4 * mailbox)

    def release(self, record: int) -> None:
        """Reply to a report, and wake the thread."""
        self.control.set_report(record, REPLY)
        futex.wake(self._states + 4 * record)

    def registered(self, number: int) -> None:
        """Tell whoever made a thread that the supervisor knows it."""
        at = _FIRST + number * RECORD_STRIDE + RECORD_AT["REGISTERED"]
        self.view[at : at + 4] = (1).to_bytes(4, "little")
        futex.wake(self._base + at)

    def record(self, number: int) -> memoryview:
        """The memory of one record."""
        at = _FIRST + number * RECORD_STRIDE
        return self.view[at : at + RECORD_STRIDE]

    # Allocation, of which the other part is in the stub

    def take_record(self) -> int | None:
        """A free record, zeroed; None if all are taken."""
        at = self._base + SHARED_AT["USED"]
        for number in range(RECORDS_MAX):
            if self._swap.call(at + 4 * number, 0, 1) == 0:
                memory = self.record(number)
                memory[: RECORD_AT["STACK"]] = bytes(RECORD_AT["STACK"])
                self._idle(number)
                return number
        return None

    def taken(self) -> list[int]:
        """The records that are taken."""
        at = SHARED_AT["USED"] // 4
        used = self.view.cast("I")[at : at + RECORDS_MAX]
        return [number for number, word in enumerate(used) if word]

    def give_record(self, number: int) -> None:
        """Free the record of a thread that has died without doing so."""
        self._idle(number)
        at = _FIRST + number * RECORD_STRIDE + RECORD_AT["PROCESS"]
        self.view[at : at + 8] = bytes(8)
        self.view[SHARED_AT["USED"] + 4 * number :][:4] = bytes(4)

    def _idle(self, number: int) -> None:
        self.control.set_state(number, IDLE)
        self.control.set_report(number, IDLE)

    def take_table(self) -> int | None:
        """The address of a free table of actions; None if all are taken."""
        for at in range(_TABLES, _FIRST, TABLE_STRIDE):
            if self._swap.call(self._base + at, 0, 1) == 0:
                self.view[at + 4 : at + TABLE_STRIDE] = bytes(TABLE_STRIDE - 4)
                return SYSTRAP_CONTROL + at
        return None

    def put_tables(self, *addresses: int) -> None:
        """One thread less uses these tables."""
        for address in set(addresses):
            at = _table_at(address)
            if at is None:
                continue
            words = self.view[at : at + 4].cast("I")
            if words[0]:
                words[0] -= 1

    def confine(self, address: int) -> None:
        """Have the calls judged of the threads that use a table."""
        at = _table_at(address)
        if at is not None:
            self.view[at + TABLE_AT["CONFINED"] :][:4] = (1).to_bytes(4, "little")

    def waiting(self, process: int) -> memoryview | None:
        """What waits for the process of a table; None if there is no such table."""
        at = _table_at(process)
        if at is None:
            return None
        place = at + TABLE_AT["WAITING"]
        return self.view[place : place + WAITING_SIZE]

    def action(self, table: int, number: int) -> memoryview | None:
        """The struct sigaction of a signal; None if there is no such table."""
        at = _table_at(table)
        if at is None or not 0 < number <= SIGNALS:
            return None
        place = at + TABLE_AT["ACTIONS"] + number * ACTION_STRIDE
        return self.view[place : place + ACTION_STRIDE]


def _table_at(address: int) -> int | None:
    """The offset in the file of a table of actions; None if there is none at the address."""
    at = address - SYSTRAP_CONTROL
    return at if _TABLES <= at < _FIRST and not (at - _TABLES) % TABLE_STRIDE else None


AnyMailboxes = Mailboxes | Records
"""What engines and supervisor need of the shared memory is the same in both."""
