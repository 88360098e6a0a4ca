"""Advice is carried out: what is printed is done, and then the operation succeeds.

States of pages, areas and kernels are made as programs make them (`advice_states`), each operation
is tried there, and the steps of the advice are taken one by one (`advised`). A sample of all cases
is tried, or as many as SOFTSGX_FUZZ in the environment says, which `make fuzz` sets.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Final

import pytest

from softsgx.mem.pagetable import PTE_NX, PTE_P, PTE_PFN_MASK, PTE_W
from softsgx.report.steps import Advice
from softsgx.sim import Unmodelled
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import PT_SHIFT, PT_TCS, VALID
from tests.system.explain.advice_states import (
    AREAS,
    HISTORIES,
    OPERATIONS,
    Case,
    possible,
    sample,
)
from tests.system.explain.advised import Said, follow

_FUZZ: Final = int(os.environ.get("SOFTSGX_FUZZ", "0"))
_CHUNK: Final = 500
# Texts in which advice may end: how the enclave is built, the part, the options.
SAID: Final = (
    "ADD_PAGES before INIT with ",
    "no page was added there, and without SGX2 none is on touch: ADD_PAGES before INIT",
    "no access reaches a TCS: EENTER uses it",
)


def check(case: Case) -> None:
    """After one refusal and its advice, the operation succeeds."""
    said = ""
    try:
        follow(case.attempt())
    except Said as words:
        said = words.text
    except Unmodelled:
        said = "" if case.machine == "v2" else "not modelled"
    except AssertionError as error:
        raise AssertionError(f"{case}\n{error}") from error
    assert not said or said.startswith(SAID), (case, said)


def some(operation: str) -> Iterator[Case]:
    """An operation in every history on Linux 6.12, each in another area."""
    areas, first = [*AREAS], [*OPERATIONS].index(operation)
    for number, history in enumerate(HISTORIES):
        yield Case("6.12", history, areas[(number + first) % len(areas)], operation)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_advice_helps(operation: str) -> None:
    for case in some(operation):
        if possible(case):
            check(case)


@pytest.mark.parametrize("seed", range(_FUZZ // _CHUNK or 1))
def test_advice_helps_on_every_kernel_and_part(seed: int) -> None:
    for case in sample(_CHUNK, seed + 1):
        check(case)


@pytest.mark.parametrize("seed", range(4))
def test_every_state_has_advice(seed: int) -> None:
    """Any EPCM word and any rights of PTE and area, even those that no leaf can make."""
    draw = random.Random(seed)
    for _ in range(100):
        case = Case("6.12", "touched", "as it was", draw.choice([*OPERATIONS]))
        attempt = case.attempt()
        w = attempt.w
        page = w.enclave.data[0]
        epcm, pte = w.machine.processor.epcm, w.mm.space.lookup(page)
        number = w.machine.processor.epc.index((pte & PTE_PFN_MASK) >> PAGE_SHIFT)
        state = draw.choice((VALID, VALID, VALID, 0)) | draw.randrange(PT_TCS, 7) << PT_SHIFT
        epcm.put(number, state | draw.randrange(1 << 7))
        w.mm.space.set(page, pte ^ draw.choice((0, PTE_W, PTE_NX, PTE_P)))
        vma = w.mm.vma_lookup(page)
        assert vma is not None
        vma.flags ^= draw.randrange(8)
        found = attempt.refused()
        if found is not None:
            assert isinstance(found.advice, Advice)
            assert all(step.text for steps in found.advice.alternatives for step in steps)


def test_case_01_no_rights_for_a_target_that_waits_to_be_accepted() -> None:
    """Restricted to nothing, area without rights: EMODPE was advised, and EACCEPT returned 19."""
    for area in ("none", "r", "as it was"):
        case = Case("6.12", "restricted to nothing", area, "EACCEPT none")
        attempt = case.attempt()
        follow(attempt)
        assert all("EMODPE" not in found.text for found in attempt.refusals)
