"""EPC page 0 is a page like any other: as every operand, and in the claims.

"No page" is -1 in the model; a test for it that also takes the first page, or takes nothing for
the first page, shows on a machine whose enclave happens to have it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import pytest

from softsgx.cpu import Bare, Fault
from softsgx.spec.concurrency import CONCURRENCY
from softsgx.spec.epcm import VALID
from tests.cpu.everyleaf import EveryLeaf, every_leaf, steps_of
from tests.cpu.table import execute

NOT_MAPPED: Final = 0x7700_0000_0000
CLAIMED: Final = [
    (leaf, operand) for leaf in CONCURRENCY for operand in sorted(every_leaf().claimed(leaf))
]


def with_first(page: int, monkeypatch: pytest.MonkeyPatch) -> EveryLeaf:
    """The machine of all leaves, but page 0 and `page` have changed places."""
    places = {0: page, page: 0}
    following: dict[Bare, int] = {}

    def free_page(self: Bare) -> int:
        start, count = following.get(self, 0), self.processor.epc.pages
        for place in (*range(start, count), *range(start)):
            found: int = places.get(place, place)
            if not self.word(found) & VALID:
                following[self] = place + 1
                return found
        raise MemoryError("EPC is full")

    with monkeypatch.context() as patch:
        patch.setattr(Bare, "free_page", free_page)
        return EveryLeaf()


def taken(m: EveryLeaf, leaf: str) -> set[int]:
    """The pages that a leaf has claimed before its body runs."""
    body = steps_of(m.attempt(leaf))
    next(body)
    claimed = {key >> 2 for key in m.processor.claims}
    body.close()
    m.reset()
    return claimed


@pytest.mark.parametrize(("leaf", "operand"), CLAIMED)
def test_a_leaf_goes_through_with_the_first_page(
    leaf: str, operand: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = every_leaf()
    page = usual.claimed(leaf)[operand]
    pages = taken(usual, leaf)
    m = with_first(page, monkeypatch)
    assert m.claimed(leaf)[operand] == 0
    assert taken(m, leaf) == {{0: page, page: 0}.get(one, one) for one in pages}
    assert not execute(m.attempt(leaf))


@pytest.mark.parametrize("leaf", CONCURRENCY)
@pytest.mark.parametrize("register", ["rbx", "rcx", "rdx"])
@pytest.mark.parametrize("nowhere", [NOT_MAPPED, NOT_MAPPED + 1, 1 << 63], ids=hex)
def test_an_operand_that_leads_nowhere_claims_no_page(
    leaf: str, register: str, nowhere: int
) -> None:
    """Least of all page 0: a leaf that uses that would be refused without a reason."""
    m = every_leaf()
    moved: dict[str, Any] = {register: nowhere}
    body = steps_of(m.attempt(leaf)._replace(**moved))
    with suppress(Fault, StopIteration):
        next(body)
    claimed = {key >> 2 for key in m.processor.claims}
    body.close()
    assert claimed <= set(m.claimed(leaf).values())
