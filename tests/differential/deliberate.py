"""Where the two drivers are meant to differ, or cannot agree: all that the comparer forgives.

Each entry has the function that brings both sides to one form; the comparer calls it through the
entry. docs/driver.md has the same table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from softsgx.mem.pagetable import PTE_PFN_MASK
from softsgx.sim.point import LOCK
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.leaves import ENCLS_LEAVES, ENCLU_LEAVES
from tests.differential.operations import Failure

F = TypeVar("F", bound=Callable[..., Any])


class Deliberate(NamedTuple, Generic[F]):
    """What differs, why it may, and what is done about it."""

    what: str
    why: str
    even: F


def _without_ram_frame(pte: int, epc: range) -> int:
    """A PTE without the number of its frame, unless that is EPC."""
    return pte if (pte & PTE_PFN_MASK) >> PAGE_SHIFT in epc else pte & ~PTE_PFN_MASK


FRAMES: Final = Deliberate(
    "numbers of frames of RAM",
    "any free frame will do; the C driver's requests take some for a moment, as copies of operands",
    _without_ram_frame,
)


def _without_rbx(operands: tuple[int, int, int], slot: bool) -> tuple[int, ...]:
    """RCX, and RDX where it is the slot of a VA page."""
    return operands[1:] if slot else operands[1:2]


OPERANDS: Final = Deliberate(
    "addresses of operands of ENCLS in RBX",
    "PAGEINFO and SECINFO lie where a driver puts them; what they say shows in EPCM and contents",
    _without_rbx,
)


def _by_page(failure: Failure) -> Failure:
    """The same page for the C code, which asks for contents and PCMD one by one."""
    if failure.site != "sgx_encl_get_backing":
        return failure
    return failure._replace(nth=2 * failure.nth)  # a page that fails is asked for only once


BACKING: Final = Deliberate(
    "how often a failure of `sgx_encl_get_backing` is asked for",
    "the C code asks for a page's contents and for its PCMD, ours for both at once",
    _by_page,
)


def _no_word(regs: list[int], rbx: int) -> None:
    """RBX is 0 after an EDBGRD that ended with a status."""
    regs[rbx] = 0


WORD: Final = Deliberate(
    "the word that EDBGRD did not read",
    "the kernel drops SGX_PAGE_NOT_DEBUGGABLE and passes on RBX, which nobody has set before",
    _no_word,
)

_COMMON: Final = frozenset({LOCK, "pte", "sleep", "load", "store", "fetch", "pause"}).union(
    name for table in (ENCLS_LEAVES, ENCLU_LEAVES) for name, _ in table.values()
)


def _is_common(kind: str) -> bool:
    """Whether both drivers have a point of this kind at the same places."""
    return kind in _COMMON


POINTS: Final = Deliberate(
    "points at spinlocks, bits and look-ups",
    "sections under a spinlock are one step in ours; operations pause only at leaves, sleeping "
    "locks, PTEs and accesses, where both have their points",
    _is_common,
)


def _number_of(warnings: list[str]) -> int:
    """How many warnings there were."""
    return len(warnings)


TEXTS: Final = Deliberate(
    "words of kernel warnings",
    "ours name the page; file and line of the C code are those of the tree",
    _number_of,
)

DELIBERATE: Final[tuple[Deliberate[Any], ...]] = (FRAMES, OPERANDS, BACKING, WORD, POINTS, TEXTS)
