"""The stub's code at its place in memory, and the registers of a thread that was stopped in it.

`stub.s` is the code. A thread that executes the vDSO's ENCLU jumps to STUB. If its tid has a
mailbox it stores its registers there and waits for a reply; if not, it comes to INT80 with all
registers as they were at the ENCLU, where the filter stops it.

A signal can stop the thread at any instruction of the stub, and its handler must see one of two
things: the thread at the ENCLU, or the thread after it. `where` says which:

    ARRIVE  no request exists. Give the thread the registers of `rolled_back` and deliver the
            signal; when the handler returns, the ENCLU is executed again. The floating-point
            state is the thread's own. A fault here (SIGSEGV, SIGBUS) means that the stack below
            the red zone cannot be used: roll the thread back and handle it as at INT80.
    WAIT    a request exists, and the state word decides. REQUEST, TAKEN: the supervisor may
            interrupt the enclave; then it sets the registers of the AEX (or, if nothing was
            executed yet, of the request) by ptrace, and the state to IDLE. If it does not
            interrupt, the thread continues to wait: the system call is restarted. REPLY: as
            DEPART. IDLE: the program has written there; the supervisor may end it.
    DEPART  the thread was loading the reply. Give it `rolled_forward` of its mailbox and the FXSAVE
            image, and set the state to IDLE.
    TRAP    at INT80 the thread is as in ARRIVE. Past INT80, where the filter stops it, it is so
            too, but the kernel holds the low half of RAX in orig_rax.

When registers are set, orig_rax must be -1, or the kernel may restart a system call. After a
request was withdrawn, or a reply rolled forward, the doorbell may have rung for nothing.
A thread stopped at `VdsoImage.jump` is at the ENCLU except for its RIP.

RFLAGS.TF must not be set in a reply. A program that single-steps itself over the ENCLU would trap
at every instruction here, so such a thread should go to INT80.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from itertools import pairwise
from struct import unpack
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.runner.host.abi import RED_ZONE
from softsgx.runner.inserted.assembled import labels_of
from softsgx.runner.inserted.layout import (
    MAILBOX_STRIDE,
    MAILBOXES,
    STUB,
    STUB_BLOCKS,
    STUB_SIZE,
)
from softsgx.runner.inserted.machine_code import STUB_CODE
from softsgx.spec.msr import RFLAGS_RF
from softsgx.spec.registers import R11, RAX, RCX, RDX, RFLAGS, RIP, RSP

if TYPE_CHECKING:
    from softsgx.runner.inserted.box import Box

# Address of every label of stub.s.
LABELS: Final = labels_of(STUB_CODE, STUB)
INT80: Final = LABELS["int80"]
INT80_DONE: Final = LABELS["int80_done"]


class Phase(Enum):
    """How far a thread in the stub has come; see the docstring of the module."""

    ARRIVE = auto()
    WAIT = auto()
    DEPART = auto()
    TRAP = auto()


class Range(NamedTuple):
    """Addresses from `start` up to `end` with one phase and one way of rolling back.

    `moved`: RSP was lowered by the red zone. `pushed`: the registers that were pushed after that.
    """

    start: int
    end: int
    phase: Phase
    moved: bool = False
    pushed: tuple[int, ...] = ()


class Place(NamedTuple):
    """A phase; and the mailbox, if the address is in the code of one mailbox."""

    mailbox: int | None
    phase: Phase


_ALL: Final = (RAX, RCX, R11, RFLAGS, RDX)
# In the order of the code. Labels with a common beginning are named after what is pushed.
_STARTS: Final = (
    ("arrive", Phase.ARRIVE, False, ()),
    ("arrive_none", Phase.ARRIVE, True, ()),
    ("arrive_rax", Phase.ARRIVE, True, _ALL[:1]),
    ("arrive_rax_rcx", Phase.ARRIVE, True, _ALL[:2]),
    ("arrive_rax_rcx_r11", Phase.ARRIVE, True, _ALL[:3]),
    ("arrive_rax_rcx_r11_rflags", Phase.ARRIVE, True, _ALL[:4]),
    ("search", Phase.ARRIVE, True, _ALL),
    ("absent_rax_rcx_r11_rflags", Phase.ARRIVE, True, _ALL[:4]),
    ("absent_rax_rcx_r11", Phase.ARRIVE, True, _ALL[:3]),
    ("absent_rax_rcx", Phase.ARRIVE, True, _ALL[:2]),
    ("absent_rax", Phase.ARRIVE, True, _ALL[:1]),
    ("absent_none", Phase.ARRIVE, True, ()),
    ("int80", Phase.TRAP, False, ()),
    ("found", Phase.ARRIVE, True, _ALL),
    ("published", Phase.WAIT, True, ()),
    ("reply", Phase.DEPART, True, ()),
    ("common_end", Phase.DEPART, True, ()),
)
# The common code. Code of mailbox i: STUB_BLOCKS + i * MAILBOX_STRIDE, DEPART all of it.
PHASES: Final = tuple(
    Range(LABELS[label], LABELS[following[0]], phase, moved, pushed)
    for (label, phase, moved, pushed), following in pairwise(_STARTS)
)
_BLOCK_SIZE: Final = LABELS["block_end"] - LABELS["block"]


def stub_image(trap: bytes = b"\xcd\x80") -> bytes:
    """The bytes at STUB: common code, then the same code for every mailbox; gaps are int3.

    `trap` is the instruction at INT80; it must be another one where `int 0x80` does not stop.
    """
    code = b"".join(trap if label == "int80" else bytes.fromhex(part) for label, part in STUB_CODE)
    common = code[: STUB_BLOCKS - STUB]
    block = code[STUB_BLOCKS - STUB :]
    assert len(block) == _BLOCK_SIZE <= MAILBOX_STRIDE
    return common + block.ljust(MAILBOX_STRIDE, b"\xcc") * MAILBOXES


def where(rip: int, phases: Sequence[Range] = PHASES) -> Place | None:
    """The phase of a thread with this RIP; None outside the stub's code.

    `phases` are those of another stub, if the thread has that one."""
    if phases is not PHASES:
        found = _range(rip, phases)
        return None if found is None else Place(None, found.phase)
    if not STUB <= rip < STUB + STUB_SIZE:
        return None
    if rip >= STUB_BLOCKS:
        mailbox, offset = divmod(rip - STUB_BLOCKS, MAILBOX_STRIDE)
        return Place(mailbox, Phase.DEPART) if offset < _BLOCK_SIZE else None
    found = _range(rip, phases)
    return None if found is None else Place(None, found.phase)


def _range(rip: int, phases: Sequence[Range]) -> Range | None:
    for part in phases:
        if part.start <= rip < part.end:
            return part
    return None


def rolled_back(
    registers: Sequence[int],
    read: Callable[[int, int], bytes],
    enclu: int,
    phases: Sequence[Range] = PHASES,
) -> tuple[int, ...]:
    """The registers at the ENCLU of a thread that was stopped in ARRIVE or TRAP.

    `registers` and the result are in the order of `spec.registers`. `read(address, size)` reads the
    thread's memory.
    """
    part = _range(registers[RIP], phases)
    assert part is not None, "outside the stub"
    assert part.phase in (Phase.ARRIVE, Phase.TRAP), part.phase
    values = list(registers)
    rsp = registers[RSP]
    size = 8 * len(part.pushed)
    if size:
        # The last one pushed is the lowest.
        stored = unpack(f"<{len(part.pushed)}Q", read(rsp, size))
        for register, value in zip(reversed(part.pushed), stored, strict=True):
            values[register] = value
    values[RSP] = rsp + size + RED_ZONE if part.moved else rsp
    values[RIP] = enclu
    # The processor sets RF in the RFLAGS that a fault saves.
    values[RFLAGS] &= ~RFLAGS_RF
    return tuple(values)


def rolled_forward(box: Box) -> tuple[int, ...]:
    """The registers of a thread that was loading its reply, as if it had loaded all of it."""
    return box.registers
