"""Where the state machines start: two enclaves, three logical processors; and how long they run.

SOFTSGX_FUZZ=examples runs that many random examples instead of the fixed ones, e.g.

    SOFTSGX_FUZZ=20000 python -m pytest tests/property -s
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeVar

from hypothesis import HealthCheck, Phase, settings

from softsgx.cpu import Bare, Part
from softsgx.cpu.bare import BareEnclave
from softsgx.cpu.processor import Processor
from softsgx.cpu.state import Snapshot
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.cet import SH_STK_EN
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PR,
    REG,
    SECS,
    SS_FIRST,
    SS_REST,
    TCS,
    TRIM,
    VA,
    R,
    W,
    X,
)
from softsgx.spec.leaves import ENCLS_LEAVES, ENCLU_LEAVES
from softsgx.spec.paging import SECINFO
from softsgx.spec.tcs import TCS as TCS_PAGE

T = TypeVar("T")

# Name of a leaf -> (instruction, number).
LEAVES: Final = {
    **{name: ("encls", number) for number, (name, _) in ENCLS_LEAVES.items()},
    **{name: ("enclu", number) for number, (name, _) in ENCLU_LEAVES.items()},
}

BASE_A: Final = 0x7F00_0000_0000
BASE_B: Final = 0x7E00_0000_0000
BASE_C: Final = 0x7D00_0000_0000
SIZE: Final = 16 * PAGE_SIZE
LPS: Final = 3
EPC_PAGES: Final = 40

# The scratch page of each enclave holds one SECINFO per line of this table, so that an enclave can
# name any of them: all that EACCEPT, EACCEPTCOPY and EMODPE take, and some that they must refuse.
_RIGHTS: Final = range(8)
LEGAL_SECINFOS: Final = (
    *(REG | rights for rights in _RIGHTS),
    *(REG | PENDING | rights for rights in _RIGHTS),
    *(REG | PR | rights for rights in _RIGHTS),
    *(REG | PR | PENDING | rights for rights in _RIGHTS),
    *(TCS | MODIFIED, TCS | MODIFIED | R, TRIM | MODIFIED, TRIM | MODIFIED | X),
)
ILLEGAL_SECINFOS: Final = (
    *(TCS, TCS | MODIFIED | PR, TRIM | MODIFIED | PENDING, REG | PR | MODIFIED | R),
    *(SECS, SECS | PR, VA | PENDING | R | W, 7 << 8 | MODIFIED),
    *(SS_FIRST | R | W, SS_REST | PENDING | PR | R | W, SS_FIRST | PENDING | R),
    *(REG | PR | R | 1 << 6, REG | R | 1 << 7, REG | R | 1 << 16, REG | PENDING | R | W | 1 << 63),
)
# Legal only on a processor with CET.
SHADOW_STACK_SECINFOS: Final = (SS_FIRST | PENDING | R | W, SS_REST | PENDING | R | W)
SECINFOS: Final = LEGAL_SECINFOS + SHADOW_STACK_SECINFOS + ILLEGAL_SECINFOS
# One more, wrong only in a byte after FLAGS.
SECINFO_SLOTS: Final = len(SECINFOS) + 1


def secinfo_page() -> bytes:
    """The contents of a scratch page."""
    slots = [SECINFO(FLAGS=flags).pack() for flags in SECINFOS]
    slots.append(SECINFO(FLAGS=REG | PR | R).pack()[:-1] + b"\1")
    return b"".join(slots).ljust(PAGE_SIZE, b"\0")


def secinfo_at(enclave: BareEnclave, flags: int) -> int:
    """Linear address of the SECINFO with these FLAGS in the enclave's scratch page."""
    return enclave.scratch + 64 * SECINFOS.index(flags)


def tcs_image(enclave: BareEnclave, **fields: int | bytes) -> bytes:
    """A page that EACCEPT takes as a TCS; it shares the frames of the first thread."""
    ossa = enclave.tcs[0] + PAGE_SIZE - enclave.base
    block: dict[str, int | bytes] = {"OSSA": ossa, "NSSA": 2, "OENTRY": 0x100}
    if enclave.bare.processor.part.cet:
        block["OCETSSA"] = ossa + 2 * PAGE_SIZE
    return TCS_PAGE(**(block | fields)).pack()


@dataclass(frozen=True)
class World:
    """A processor with an enclave A (production, two threads) and B (debug, one thread)."""

    bare: Bare
    a: BareEnclave
    b: BareEnclave
    va: int
    ram: int  # physical address of four frames for operands
    start: Snapshot

    @property
    def processor(self) -> Processor:
        return self.bare.processor

    def reset(self) -> None:
        """Restore the initial state."""
        self.processor.restore(self.start)


@cache
def world(cet: bool = False) -> World:
    """Built once, signed once; every example starts from the snapshot.

    With `cet` the processor has CET, the enclaves are twice as large and use shadow stacks.
    """
    bare = Bare(EPC_PAGES, lps=LPS, part=Part(absent_leaves_fault=True, cet=cet))
    size, stacks = (2 * SIZE, SH_STK_EN) if cet else (SIZE, 0)
    a = bare.enclave(
        pages=2,
        threads=2,
        base=BASE_A,
        size=size,
        attributes=ATTR_MODE64BIT,
        measure=True,
        cet=stacks,
    )
    debug = ATTR_MODE64BIT | ATTR_DEBUG
    b = bare.enclave(base=BASE_B, size=size, attributes=debug, cet=stacks)
    memory, epc = bare.processor.memory, bare.processor.epc
    for enclave in (a, b):
        memory.write(epc.physical(enclave.pages[enclave.scratch]), secinfo_page())
    va = bare.epa()
    ram = memory.alloc(4) << PAGE_SHIFT
    return World(bare, a, b, va, ram, bare.processor.snapshot())


def pick(choices: Sequence[T], number: int) -> T:
    """The choice that a drawn number selects."""
    return choices[number % len(choices)]


def campaign(examples: int, steps: int) -> settings:
    """The fixed examples of the suite, or as many random ones as SOFTSGX_FUZZ says."""
    fuzz = os.environ.get("SOFTSGX_FUZZ")
    # Without targets the fixed moves do not depend on how the processor behaves.
    phases = [phase for phase in Phase if fuzz or phase is not Phase.target]
    return settings(
        max_examples=int(fuzz) if fuzz else examples,
        stateful_step_count=steps,
        derandomize=not fuzz,
        phases=phases,
        database=None,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
