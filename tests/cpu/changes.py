"""What a leaf or an access changed, exactly: EPCM, EPC, RAM, SECS, and the registers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from softsgx.cpu.secs import Secs
from softsgx.cpu.state import Package
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.msr import RFLAGS_STATUS
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS
from tests.cpu.table import Attempt, Row, execute, run_row

T = TypeVar("T")
_ZERO: Final = bytes(PAGE_SIZE)


@dataclass(frozen=True)
class Changes:
    """New values of everything that changed, by EPC page number; A and D bits and TLBs aside."""

    words: Mapping[int, int] = field(default_factory=dict)
    owners: Mapping[int, tuple[int, int]] = field(default_factory=dict)  # ENCLAVESECS, -ADDRESS
    stamps: Mapping[int, int] = field(default_factory=dict)
    contents: Mapping[int, bytes] = field(default_factory=dict)
    ram: tuple[int, ...] = ()  # frames of ordinary memory
    secs: Mapping[tuple[int, str], object] = field(default_factory=dict)


NOTHING: Final = Changes()
_SECS_FIELDS: Final = tuple(n for n in Secs.__slots__ if n != "measurement" and n[0] != "_")


def changes(processor: Package, act: Callable[[], object]) -> Changes:
    """Run `act` and say what it changed in EPCM, EPC, RAM and SECS."""
    epcm, first = processor.epcm, processor.epc.pfn(0)
    words, stamps = list(epcm.state), list(epcm.stamp)
    owners = list(zip(epcm.secs, epcm.address, strict=True))
    frames = _frames(processor)
    secs = _secs_fields(processor)
    act()
    now = _frames(processor)
    touched = [n for n in sorted(frames.keys() | now) if now.get(n, _ZERO) != frames.get(n, _ZERO)]
    return Changes(
        words=_new(words, list(epcm.state)),
        owners=_new(owners, list(zip(epcm.secs, epcm.address, strict=True))),
        stamps=_new(stamps, list(epcm.stamp)),
        contents={n - first: now.get(n, _ZERO) for n in touched if n >= first},
        ram=tuple(n for n in touched if n < first),
        secs={k: v for k, v in _secs_fields(processor).items() if secs.get(k) != v},
    )


def _new(before: list[T], after: list[T]) -> dict[int, T]:
    return {n: b for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}


def _frames(processor: Package) -> dict[int, bytes]:
    return {pfn: bytes(page) for pfn, page in processor.memory.pages.items()}


def _secs_fields(processor: Package) -> dict[tuple[int, str], object]:
    return {(p, n): getattr(s, n) for p, s in processor.secs.items() for n in _SECS_FIELDS}


def success(attempt: Attempt, *, writes_rax: bool) -> Changes:
    """Execute a leaf that must succeed, with all status flags set; verify registers and TLBs.

    A leaf that writes RAX leaves 0 there and clears the flags; another touches neither.
    """
    lp = attempt.lp
    lp.regs[RFLAGS] |= RFLAGS_STATUS
    expected = lp.regs[:]
    expected[RAX] = 0 if writes_rax else attempt.leaf
    expected[RBX], expected[RCX], expected[RDX] = attempt.rbx, attempt.rcx, attempt.rdx
    if writes_rax:
        expected[RFLAGS] &= ~RFLAGS_STATUS
    tlbs = [dict(each.tlb.entries) for each in lp.processor.lps]
    statuses: list[int | None] = []
    result = changes(lp.processor, lambda: statuses.append(execute(attempt)))
    assert statuses == [0 if writes_rax else None]
    assert lp.regs == expected
    assert [each.tlb.entries for each in lp.processor.lps] == tlbs
    return result


def check_row(row: Row) -> None:
    """`run_row`; a refusal in RAX leaves no trace either."""
    run_row(row)
    if row.expected.kind == "code":
        attempt = row.build()
        assert changes(attempt.lp.processor, lambda: execute(attempt)) == NOTHING
