"""The shared memory between a supervised process and the supervisor: control page and mailboxes.

A mailbox is a thread's while its state is IDLE or REPLY, and the supervisor's while it is REQUEST
or TAKEN:

    IDLE -> REQUEST    the thread has stored its registers, and rings the doorbell
    REQUEST -> TAKEN   the supervisor has seen it (`Control.take`)
    TAKEN -> REPLY     the supervisor has stored the registers to go on with; it wakes the thread
    REPLY -> IDLE      the thread loads them; until its next REQUEST they stay in the mailbox

The supervisor must not trust what it reads here: the program can write to all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from softsgx.runner.inserted.layout import BOX, BOX_MAILBOXES, BOX_SIZE, MAILBOX_STRIDE, MAILBOXES
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.structure import Structure, raw, u32, u64

IDLE: Final = 0
REQUEST: Final = 1
TAKEN: Final = 2
REPLY: Final = 3

# Values in the table of tids that are neither a tid (less than 2**22) nor a negative errno, which
# gettid returns if a filter of the program refuses it.
NEVER_USED: Final = 0
FREED: Final = 0x7FFF_FFFF


class CONTROL(Structure, size=PAGE_SIZE, align=PAGE_SIZE):
    """The control page. Words that different CPUs write often are in different cache lines.

    DOORBELL counts requests. It is a shared futex, as is every word of STATES. SLEEPING is not 0
    while the supervisor waits on the doorbell. A thread checks its state SPIN times before it
    sleeps. AEP is the address of the vDSO's ENCLU, the RIP of every request.
    TIDS[i] is the tid of the thread that has mailbox i, STATES[i] the state of mailbox i.
    """

    DOORBELL: int = u32(0x000)
    SLEEPING: int = u32(0x040)
    SPIN: int = u32(0x080)
    AEP: int = u64(0x088)
    TIDS: bytes = raw(0x400, 4 * MAILBOXES)
    STATES: bytes = raw(0x800, 4 * MAILBOXES)


class MAILBOX(Structure, size=MAILBOX_STRIDE, align=64):
    """Registers in the order of `spec.registers`, as in GPRSGX, and an FXSAVE64 image."""

    REGISTERS: bytes = raw(0x000, 18 * 8)
    FX: bytes = raw(0x0C0, 512)


CONTROL_AT: Final = {field.name: field.offset for field in CONTROL.FIELDS}
MAILBOX_AT: Final = {field.name: field.offset for field in MAILBOX.FIELDS}
FX_SIZE: Final = 512
# Native: with "<" the struct module would copy byte by byte.
REGISTERS: Final = Struct("18Q")
_MAILBOXES_AT: Final = BOX_MAILBOXES - BOX
# FXSAVE needs 16.
assert MAILBOX_STRIDE % 16 == 0
assert MAILBOX_AT["FX"] % 16 == 0


def _words(memory: memoryview, offset: int, count: int) -> memoryview:
    """32-bit words, each read and written in one access, as futexes and other CPUs require."""
    return memory[offset : offset + 4 * count].cast("I")


class Control:
    """The control page in `memory`, a writable view of the whole shared memory from BOX on."""

    def __init__(self, memory: memoryview) -> None:
        assert len(memory) == BOX_SIZE
        self._doorbell = _words(memory, CONTROL_AT["DOORBELL"], 1)
        self._sleeping = _words(memory, CONTROL_AT["SLEEPING"], 1)
        self._spin = _words(memory, CONTROL_AT["SPIN"], 1)
        self._aep = memory[CONTROL_AT["AEP"] : CONTROL_AT["AEP"] + 8].cast("Q")
        self._tids = _words(memory, CONTROL_AT["TIDS"], MAILBOXES)
        self._states = _words(memory, CONTROL_AT["STATES"], MAILBOXES)
        self._states_bytes = memory[CONTROL_AT["STATES"] :][: 4 * MAILBOXES]

    @property
    def doorbell(self) -> int:
        """How often the doorbell rang, modulo 2**32."""
        return self._doorbell[0]

    @property
    def sleeping(self) -> bool:
        """Whether a request must wake the supervisor."""
        return self._sleeping[0] != 0

    @sleeping.setter
    def sleeping(self, value: bool) -> None:
        self._sleeping[0] = value

    @property
    def spin(self) -> int:
        """How often a thread checks its state before it sleeps."""
        return self._spin[0]

    @spin.setter
    def spin(self, value: int) -> None:
        self._spin[0] = value

    @property
    def aep(self) -> int:
        """Address of the vDSO's ENCLU; to be set before the first request."""
        return self._aep[0]

    @aep.setter
    def aep(self, value: int) -> None:
        self._aep[0] = value

    def tid(self, mailbox: int) -> int:
        """The tid of the thread that has a mailbox."""
        return self._tids[mailbox]

    def find(self, tid: int) -> int | None:
        """The mailbox of a thread, by the same probing as in the stub; None if it has none."""
        for i in range(tid, tid + MAILBOXES):
            owner = self._tids[i % MAILBOXES]
            if owner == tid:
                return i % MAILBOXES
            if owner == NEVER_USED:
                return None
        return None

    def insert(self, tid: int) -> int | None:
        """The mailbox of a thread, which gets one if it has none. None: all are taken.

        The thread must be stopped or not yet running. `tid` is what gettid returns to it: in a pid
        namespace of its own that differs from the tid that the supervisor sees.
        """
        assert NEVER_USED < tid < FREED
        if (mailbox := self.find(tid)) is not None:
            return mailbox
        for i in range(tid, tid + MAILBOXES):
            mailbox = i % MAILBOXES
            if self._tids[mailbox] in (NEVER_USED, FREED):
                self._states[mailbox] = IDLE
                self._tids[mailbox] = tid
                return mailbox
        return None

    def remove(self, tid: int) -> None:
        """Take back the mailbox of a thread that is gone (by exit or exec)."""
        mailbox = self.find(tid)
        if mailbox is None:
            return
        self._states[mailbox] = IDLE
        self._tids[mailbox] = FREED
        # A freed slot at the end of a chain of probes becomes one that was never used.
        while self._tids[mailbox] == FREED:
            if self._tids[(mailbox + 1) % MAILBOXES] != NEVER_USED:
                break
            self._tids[mailbox] = NEVER_USED
            mailbox = (mailbox - 1) % MAILBOXES

    def state(self, mailbox: int) -> int:
        """IDLE, REQUEST, TAKEN or REPLY, unless the program wrote something else there."""
        return self._states[mailbox]

    def set_state(self, mailbox: int, state: int) -> None:
        """Write a state; for REPLY the state word must be woken afterwards."""
        self._states[mailbox] = state

    def take(self) -> list[int]:
        """The mailboxes with a new REQUEST, which become TAKEN."""
        states = self._states_bytes.tobytes()
        at = states.find(REQUEST)
        if at < 0:
            return []
        taken = []
        while at >= 0:
            mailbox = at // 4
            if self._states[mailbox] == REQUEST:
                self._states[mailbox] = TAKEN
                taken.append(mailbox)
            at = states.find(REQUEST, at + 1)
        return taken


class Box:
    """One mailbox in `memory`: its registers and its FXSAVE64 image begin at these offsets."""

    def __init__(self, memory: memoryview, mailbox: int, registers: int, fx: int) -> None:
        self.mailbox = mailbox
        self._registers = memory[registers:][: REGISTERS.size]
        self._fx = memory[fx:][:FX_SIZE]

    @classmethod
    def at(cls, memory: memoryview, mailbox: int) -> Box:
        """Of the shared memory from BOX on, of which `memory` is a writable view."""
        assert len(memory) == BOX_SIZE
        assert 0 <= mailbox < MAILBOXES
        start = _MAILBOXES_AT + mailbox * MAILBOX_STRIDE
        return cls(memory, mailbox, start + MAILBOX_AT["REGISTERS"], start + MAILBOX_AT["FX"])

    def fill(self, registers: Sequence[int], fx: bytes | None) -> None:
        """Write a reply; without `fx` the image of the request stays."""
        self.registers = registers
        if fx is not None:
            self.fx = fx

    @property
    def registers(self) -> tuple[int, ...]:
        """The registers of the request or the reply, in the order of `spec.registers`."""
        return REGISTERS.unpack(self._registers)

    @registers.setter
    def registers(self, values: Sequence[int]) -> None:
        REGISTERS.pack_into(self._registers, 0, *values)

    @property
    def fx(self) -> bytes:
        """The FXSAVE64 image, 512 bytes."""
        return bytes(self._fx)

    @fx.setter
    def fx(self, image: bytes) -> None:
        """Set the image of a reply. The caller must clear reserved MXCSR bits: #GP in the stub."""
        self._fx[:] = image
