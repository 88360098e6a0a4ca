"""Advice is executed: whatever is printed as the way out is done, and then it works.

States of pages, areas and kernels are made as programs make them (`advice_states`), each operation
is tried there, and the steps of the advice are taken one by one (`advised`). With SOFTSGX_FUZZ in
the environment, which `make fuzz` sets, so many of all cases are tried, else a sample.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import pytest

from softsgx.sim import Unmodelled
from tests.system.advice_states import (
    AREAS,
    HISTORIES,
    OPERATIONS,
    Case,
    possible,
    sample,
)
from tests.system.advised import Said, follow

_FUZZ: Final = int(os.environ.get("SOFTSGX_FUZZ", "0"))
_CHUNK: Final = 80
# What an advice may end in that is about how the enclave is built, the part or the options.
SAID: Final = (
    "ADD_PAGES before INIT with ",
    "no page was added there, and without SGX2 none is on touch: ADD_PAGES before INIT",
    "no access reaches a TCS: EENTER uses it",
)


def check(case: Case) -> None:
    """After one refusal, and what its advice says, the operation succeeds."""
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
    """An operation in every second history on Linux 6.12, in an area that differs."""
    areas, first = [*AREAS], [*OPERATIONS].index(operation)
    for number, history in enumerate(HISTORIES):
        if (number + first) % 2 == 0:
            yield Case("6.12", history, areas[(number + first) // 2 % len(areas)], operation)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_is_advised_helps(operation: str) -> None:
    for case in some(operation):
        if possible(case):
            check(case)


@pytest.mark.parametrize("seed", range(_FUZZ // _CHUNK or 1))
def test_what_is_advised_helps_on_every_kernel_and_part(seed: int) -> None:
    for case in sample(_CHUNK, seed + 1):
        check(case)


def test_case_01_no_rights_for_a_target_that_waits_to_be_accepted() -> None:
    """Restricted to nothing, area without rights: EMODPE was advised, and EACCEPT answered 19."""
    for area in ("none", "r", "as it was"):
        case = Case("6.12", "restricted to nothing", area, "EACCEPT none")
        attempt = case.attempt()
        follow(attempt)
        assert all("EMODPE" not in found.text for found in attempt.refusals)
