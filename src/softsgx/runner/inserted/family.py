"""The memory file of one address space without a tracer, as the supervisor sees it.

Threads that share an address space share the file; nobody else has it, so a program can write to
its own records, tables, mailboxes and slots only (`systrap_layout.py`). The supervisor must not
trust what it reads here: numbers of records and addresses of tables are checked, and the file of a
thread is known by NONCE.
"""

from __future__ import annotations

import ctypes
import os
import secrets
from typing import TYPE_CHECKING, Final

from softsgx.runner.host import futex
from softsgx.runner.host.memory_file import mapped, sealed_file
from softsgx.runner.host.native_code import compare_and_swap
from softsgx.runner.host.process_memory import read_memory
from softsgx.runner.inserted.box import CONTROL_AT, IDLE, REPLY, REQUEST, TAKEN
from softsgx.runner.inserted.systrap_layout import (
    ACTION_STRIDE,
    RECORD_AT,
    RECORD_STRIDE,
    RECORDS,
    RECORDS_MAX,
    SHARED_AT,
    SIGNALS,
    SPACE_BOX_AT,
    SPACE_FILE_SIZE,
    SYSTRAP_CONTROL,
    SYSTRAP_CONTROL_SIZE,
    TABLE_AT,
    TABLE_STRIDE,
    WAITING_SIZE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST: Final = SYSTRAP_CONTROL_SIZE  # offset of the first record in the file
_TABLES: Final = SHARED_AT["TABLES"]
_TABLES_END: Final = _TABLES + TABLE_STRIDE * RECORDS_MAX
_STATES: Final = SHARED_AT["STATES"] // 4
_MAIL_STATES: Final = SHARED_AT["MAIL_STATES"] // 4
_USED: Final = SHARED_AT["USED"] // 4
_REPORTS: Final = SHARED_AT["REPORTS"] // 4
_MAILS: Final = SHARED_AT["MAILS"] // 4
_TOP: Final = SHARED_AT["TOP"] // 4
_NONCE: Final = SHARED_AT["NONCE"]
_REQUESTED: Final = bytes([REQUEST])
_PATIENCE: Final = 1000


class Family:
    """One file, and its records by their number in it."""

    def __init__(self, number: int, aep: int) -> None:
        self.number: Final = number
        self.first: Final = number * RECORDS_MAX  # the number of its first record among all
        self.fd = sealed_file("softsgx-records", SPACE_FILE_SIZE)
        self._memory = mapped(self.fd, SPACE_FILE_SIZE)
        self.view: Final = memoryview(self._memory)
        self._words = self.view.cast("I")
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._reports_seen = self._mails_seen = 0
        self._set_long(SHARED_AT["FAMILY"], number)
        self._set_long(SPACE_BOX_AT + CONTROL_AT["AEP"], aep)  # for native.s

    def close_file(self) -> None:
        """Close `fd`; this object and processes that have mapped it keep their mappings."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def _set_long(self, at: int, value: int) -> None:
        self.view[at : at + 8] = value.to_bytes(8, "little")

    def is_mapped_in(self, tid: int) -> bool | None:
        """Whether the process of a thread has this file mapped, whatever it says itself.

        None if nothing can be read there.
        """
        nonce = secrets.token_bytes(8)
        self.view[_NONCE : _NONCE + 8] = nonce
        found = read_memory(tid, SYSTRAP_CONTROL + _NONCE, 8)
        return None if found is None else found == nonce

    # Requests

    def mail(self, record: int) -> int:
        """The state of a mailbox, unless the program wrote something else there."""
        return self._words[_MAIL_STATES + record]

    def set_mail(self, record: int, state: int) -> None:
        """Write the state of a mailbox; for REPLY, wake the thread."""
        self._words[_MAIL_STATES + record] = state
        if state == REPLY:
            futex.wake(self._base + 4 * (_MAIL_STATES + record))

    def report(self, record: int) -> int:
        """The state of a report."""
        return self._words[_STATES + record]

    def set_report(self, record: int, state: int) -> None:
        """Write the state of a report; for REPLY, wake the thread."""
        self._words[_STATES + record] = state
        if state == REPLY:
            futex.wake(self._base + 4 * (_STATES + record))

    def has_mail(self) -> bool:
        """Whether requests of mailboxes were counted since the last call."""
        seen, self._mails_seen = self._mails_seen, self._words[_MAILS]
        return seen != self._mails_seen

    def has_report(self) -> bool:
        """Whether reports were counted since the last call."""
        seen, self._reports_seen = self._reports_seen, self._words[_REPORTS]
        return seen != self._reports_seen

    def take_mails(self) -> Iterator[int]:
        """The mailboxes with a new request, which become TAKEN."""
        return self._take(_MAIL_STATES)

    def take_reports(self) -> Iterator[int]:
        """The records with a new report. Each becomes TAKEN only when it is returned: serving one
        may take the next (`HeldThread.wait`)."""
        return self._take(_STATES)

    def _take(self, first: int) -> Iterator[int]:
        start, end = 4 * first, 4 * (first + self._top)
        at = self._memory.find(_REQUESTED, start, end)
        while at >= 0:
            word = at // 4
            if self._words[word] == REQUEST:
                self._words[word] = TAKEN
                yield word - first
            at = self._memory.find(_REQUESTED, at + 1, end)

    # Records

    @property
    def _top(self) -> int:
        return min(self._words[_TOP], RECORDS_MAX)

    @staticmethod
    def address(record: int) -> int:
        """The address of a record in the process."""
        return RECORDS + record * RECORD_STRIDE

    def record(self, record: int) -> memoryview:
        """The memory of one record."""
        at = _FIRST + record * RECORD_STRIDE
        return self.view[at : at + RECORD_STRIDE]

    def taken(self) -> list[int]:
        """The records that are taken."""
        used = self._words[_USED : _USED + self._top]
        return [number for number, word in enumerate(used) if word]

    def begin(self, record: int) -> None:
        """Take the first record of a new file; no process has mapped it yet."""
        self._words[_USED + record] = 1
        self._words[_TOP] = record + 1

    def give_record(self, record: int) -> None:
        """Free the record of a thread that has died without doing so."""
        self.set_mail(record, IDLE)
        self.set_report(record, IDLE)
        self._set_long(_FIRST + record * RECORD_STRIDE + RECORD_AT["PROCESS"], 0)
        self._words[_USED + record] = 0

    def registered(self, record: int, value: int = 1) -> None:
        """Tell whoever made a thread that the supervisor knows it."""
        at = _FIRST + record * RECORD_STRIDE + RECORD_AT["REGISTERED"]
        self._words[at // 4] = value
        futex.wake(self._base + at)

    # Tables of actions

    def begin_table(self) -> int:
        """The address of the first table of a new file."""
        self._words[_TABLES // 4] = 1
        return SYSTRAP_CONTROL + _TABLES

    def table(self, address: int) -> memoryview | None:
        """A table of actions; None if there is none at the address."""
        at = address - SYSTRAP_CONTROL
        if not _TABLES <= at < _TABLES_END or (at - _TABLES) % TABLE_STRIDE:
            return None
        return self.view[at : at + TABLE_STRIDE]

    def put_tables(self, *addresses: int) -> None:
        """One thread less uses these tables."""
        swap = compare_and_swap().call
        for address in set(addresses):
            if self.table(address) is None:
                continue
            at = address - SYSTRAP_CONTROL
            for _ in range(_PATIENCE):  # others count at the same time
                count = self._words[at // 4]
                if not count or swap(self._base + at, count, count - 1) == count:
                    break

    def confine(self, address: int) -> None:
        """Have the calls judged of the threads that use a table."""
        table = self.table(address)
        if table is not None:
            table[TABLE_AT["CONFINED"] :][:4] = (1).to_bytes(4, "little")

    def untold(self, process: int) -> bool:
        """Whether the last default action of a process is for a signal that it got by itself."""
        table = self.table(process)
        return table is not None and any(table[TABLE_AT["UNTOLD"] :][:4])

    def waiting(self, process: int) -> memoryview | None:
        """What waits for the process of a table; None if there is no such table."""
        table = self.table(process)
        return None if table is None else table[TABLE_AT["WAITING"] :][:WAITING_SIZE]

    def action(self, address: int, number: int) -> memoryview | None:
        """The struct sigaction of a signal; None if there is no such table."""
        table = self.table(address)
        if table is None or not 0 < number <= SIGNALS:
            return None
        return table[TABLE_AT["ACTIONS"] + number * ACTION_STRIDE :][:ACTION_STRIDE]
