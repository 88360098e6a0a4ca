"""The supervisor's end of the records: the shared memory through which the stub reports.

Each thread of a supervised process has a record (`systrap_layout.py`) in the file of its address
space (`family.py`). Here it has one number for all of the run: that of the file, times RECORDS_MAX,
and its number there. A word of state passes it to and fro, as with the mailboxes of `box.py`.
"""

from __future__ import annotations

import ctypes
import mmap
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Final

from softsgx.runner.host.memory_file import read_only_file, sealed_file
from softsgx.runner.inserted.box import IDLE, REPLY, Box
from softsgx.runner.inserted.family import Family
from softsgx.runner.inserted.mailboxes import Mailboxes
from softsgx.runner.inserted.systrap_layout import (
    RECORD_AT,
    RECORDS_MAX,
    SHARED_AT,
)
from softsgx.spec.bits import MASK32, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_SHARED_WAIT_S: Final = 0.1
_ALONE_WAIT_S: Final = 1.0
_DOORBELL: Final = SHARED_AT["DOORBELL"] - PAGE_SIZE


class Boxes(dict[int, Box]):
    """The mailboxes by number of the record, made when they are first needed."""

    def __init__(self, families: dict[int, Family]) -> None:
        super().__init__()
        self._families = families

    def __missing__(self, number: int) -> Box:
        family, record = divmod(number, RECORDS_MAX)
        memory = self._families[family].record(record)
        box = self[number] = Box(memory, number, RECORD_AT["MAILBOX"], RECORD_AT["MAILBOX_FX"])
        return box


class RecordControl:
    """The two pages of the whole run, and the words of state: what `box.Control` is to mailboxes.

    A mailbox is a record. Its thread is known once the supervisor has registered it.
    """

    def __init__(self, families: dict[int, Family]) -> None:
        self._families = families
        self._common, self.common_fd = read_only_file("softsgx-common", PAGE_SIZE)
        self.doorbell_fd: Final = sealed_file("softsgx-doorbell", PAGE_SIZE)
        self._bell = mmap.mmap(self.doorbell_fd, PAGE_SIZE)
        self._words = memoryview(self._common).cast("I")
        self._rings = memoryview(self._bell).cast("I")
        self.by_tid: dict[int, int] = {}
        self.tids: dict[int, int] = {}

    @property
    def doorbell(self) -> int:
        """How often the doorbell rang, modulo 2**32."""
        return self._rings[_DOORBELL // 4]

    def doorbell_address(self) -> int:
        """Where this process has the doorbell."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._bell)) + _DOORBELL

    def address(self, name: str) -> int:
        """Where this process has a word of the page that programs cannot write to."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._common)) + SHARED_AT[name]

    @property
    def sleeping(self) -> bool:
        """Whether a request must wake the supervisor."""
        return self._words[SHARED_AT["SLEEPING"] // 4] != 0

    @sleeping.setter
    def sleeping(self, value: bool) -> None:
        self._words[SHARED_AT["SLEEPING"] // 4] = value

    @property
    def spin(self) -> int:
        """How often a thread checks its state before it sleeps."""
        return self._words[SHARED_AT["SPIN"] // 4]

    @spin.setter
    def spin(self, value: int) -> None:
        self._words[SHARED_AT["SPIN"] // 4] = value

    def word(self, name: str) -> int:
        """A 32-bit word of the first page."""
        return self._words[SHARED_AT[name] // 4]

    def set_word(self, name: str, value: int) -> None:
        """Set a 32-bit word of the first page."""
        self._words[SHARED_AT[name] // 4] = value

    @property
    def aep(self) -> int:
        """Address of the vDSO's ENCLU; to be set before the first file is made."""
        return self._words[SHARED_AT["AEP"] // 4] | self._words[SHARED_AT["AEP"] // 4 + 1] << 32

    @aep.setter
    def aep(self, value: int) -> None:
        at = SHARED_AT["AEP"] // 4
        self._words[at], self._words[at + 1] = value & MASK32, value >> 32

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
        family, record = divmod(mailbox, RECORDS_MAX)
        found = self._families.get(family)
        return IDLE if found is None else found.mail(record)

    def set_state(self, mailbox: int, state: int) -> None:
        """Write a state; REPLY wakes the thread."""
        family, record = divmod(mailbox, RECORDS_MAX)
        found = self._families.get(family)
        if found is not None:
            found.set_mail(record, state)

    def take(self) -> list[int]:
        """The mailboxes with a new REQUEST, which become TAKEN."""
        rang = [family for family in self._families.values() if family.has_mail()]
        return [family.first + record for family in rang for record in family.take_mails()]

    def take_reports(self) -> Iterator[int]:
        """The records with a new report, of all files: as `Family.take_reports`."""
        for family in [family for family in self._families.values() if family.has_report()]:
            for record in family.take_reports():
                yield family.first + record


class Records:
    """The shared memory, and replies: what `Mailboxes` is to mailboxes."""

    def __init__(self) -> None:
        self.families: Final[dict[int, Family]] = {}
        self.control: Final = RecordControl(self.families)
        # Records whose threads have a stop that needs no report.
        self.later: deque[int] = deque()
        self.boxes: Final = Boxes(self.families)
        self.doorbell = self.control.doorbell_address()
        self._numbers = count(1)
        # Called while a report of a thread is awaited, with its number, now and then.
        self.awaited: Callable[[int], None] = lambda _tid: None

    def reply(self, mailbox: int, registers: Sequence[int], fx: bytes | None = None) -> None:
        """Let a thread go on with these registers; without `fx`, with the image of its request."""
        self.boxes[mailbox].fill(registers, fx)
        self.control.set_state(mailbox, REPLY)

    @property
    def wait_s(self) -> float:
        """So long the doorbell may be waited for: a program can undo the ring of another."""
        return _SHARED_WAIT_S if len(self.families) > 1 else _ALONE_WAIT_S

    # Files

    def new_family(self) -> Family:
        """A file for an address space. OSError if there is no memory for it."""
        family = Family(next(self._numbers), self.control.aep)
        self.families[family.number] = family
        return family

    def drop(self, family: Family) -> None:
        """An address space is gone, or was never made."""
        family.close_file()
        self.families.pop(family.number, None)
        for number in [n for n in self.boxes if n // RECORDS_MAX == family.number]:
            del self.boxes[number]

    def taken(self) -> list[int]:
        """The records that are taken."""
        families = list(self.families.values())
        return [family.first + record for family in families for record in family.taken()]

    def family(self, number: int) -> Family:
        """The file in which a record is."""
        return self.families[number // RECORDS_MAX]


AnyMailboxes = Mailboxes | Records
"""What engines and supervisor need of the shared memory is the same in both."""
