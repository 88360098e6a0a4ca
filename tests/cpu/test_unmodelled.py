"""What is not modelled says so; and what a processor without it would do, if asked for."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from softsgx.cpu import SGX1_PART, Bare, Fault, Part
from softsgx.cpu.dispatch import bodies
from softsgx.cpu.part import DEFAULT_PART, UNMODELLED_LEAVES
from softsgx.sim import Unmodelled
from softsgx.spec import faults
from softsgx.spec.leaves import (
    EDECVIRTCHILD,
    EINCVIRTCHILD,
    ENCLS_LEAVES,
    ENCLU_LEAVES,
    ESETCONTEXT,
    EUPDATESVN,
    EVERIFYREPORT2,
)

ABSENT = Part(absent_leaves_fault=True)

Reach = Callable[[Bare], object]
ENCLV = [(EDECVIRTCHILD, "EDECVIRTCHILD"), (EINCVIRTCHILD, "EINCVIRTCHILD")]
ENCLV += [(ESETCONTEXT, "ESETCONTEXT"), (7, "0x7")]


def enclv(bare: Bare, *, leaf: int) -> None:
    bare.lp.enclv(leaf)


# What is not there: its name, how it is reached, and the fault of a part without it.
LEAVES: list[tuple[str, Reach, int, str]] = [
    ("ENCLS[EUPDATESVN]", lambda bare: bare.lp.encls(EUPDATESVN), faults.GP, "ENCLS.04"),
    ("ENCLU[EVERIFYREPORT2]", lambda bare: bare.lp.enclu(EVERIFYREPORT2), faults.GP, "ENCLU.05"),
    *((f"ENCLV[{name}]", partial(enclv, leaf=leaf), faults.UD, "ENCLV.01") for leaf, name in ENCLV),
]
ABSENT_LEAVES = pytest.mark.parametrize(
    ("name", "reach", "vector", "rule"), LEAVES, ids=[row[0] for row in LEAVES]
)


@pytest.mark.parametrize("option", ["enclv", "everifyreport2", "eupdatesvn"])
def test_a_part_cannot_announce_what_is_not_modelled(option: str) -> None:
    options: dict[str, Any] = {option: True}
    with pytest.raises(Unmodelled, match=rf"^Part\({option}=True\)$"):
        Part(**options)


@ABSENT_LEAVES
def test_executing_an_absent_leaf_is_unmodelled(
    name: str, reach: Reach, vector: int, rule: str
) -> None:
    bare = Bare(8)
    with pytest.raises(Unmodelled, match=f"^{re.escape(name)}$"):
        reach(bare)


@ABSENT_LEAVES
def test_a_part_without_the_leaf_faults(name: str, reach: Reach, vector: int, rule: str) -> None:
    bare = Bare(8, part=ABSENT)
    with pytest.raises(Fault) as caught:
        reach(bare)
    assert (caught.value.vector, caught.value.code, caught.value.rule) == (vector, 0, rule)


def test_everifyreport2_is_unmodelled_inside_as_well() -> None:
    bare = Bare(16)
    bare.enclave().enter()
    with pytest.raises(Unmodelled, match=r"^ENCLU\[EVERIFYREPORT2\]$"):
        bare.lp.enclu(EVERIFYREPORT2)


def test_an_absent_leaf_is_judged_after_the_mode_and_the_opt_in() -> None:
    bare = Bare(8)
    with pytest.raises(Fault, match=r"ENCLS\.02"):
        bare.lp.encls(EUPDATESVN, cpl=3)
    with pytest.raises(Fault, match=r"ENCLU\.03"):
        bare.lp.enclu(EVERIFYREPORT2, cpl=0)
    bare.lp.feature_control = 0
    with pytest.raises(Fault, match=r"ENCLS\.03"):
        bare.lp.encls(EUPDATESVN)
    with pytest.raises(Fault, match=r"ENCLU\.04"):
        bare.lp.enclu(EVERIFYREPORT2)


# A modelled leaf that a part lacks is simply not there: nothing about it is unknown.
LACKING: list[tuple[str, str, int]] = [
    *(
        ("encls", name, number)
        for number, (name, extension) in ENCLS_LEAVES.items()
        if extension in ("SGX2", "OVERSUB")
    ),
    *(
        ("enclu", name, number)
        for number, (name, extension) in ENCLU_LEAVES.items()
        if extension in ("SGX2", "EDECCSSA")
    ),
]


@pytest.mark.parametrize(("instruction", "name", "leaf"), LACKING, ids=str)
def test_leaves_of_later_extensions_are_gp_on_an_sgx1_part(
    instruction: str, name: str, leaf: int
) -> None:
    bare = Bare(8, part=SGX1_PART)
    with pytest.raises(Fault) as caught:
        getattr(bare.lp, instruction)(leaf)
    rule = {"encls": "ENCLS.04", "enclu": "ENCLU.05"}[instruction]
    assert (caught.value.vector, caught.value.rule) == (faults.GP, rule)


@pytest.mark.parametrize(
    ("option", "leaves"),
    [
        ("sgx2", {"EAUG", "EMODPR", "EMODT", "EACCEPT", "EMODPE", "EACCEPTCOPY"}),
        ("oversub", {"ERDINFO", "ETRACKC", "ELDBC", "ELDUC"}),
        ("edeccssa", {"EDECCSSA"}),
    ],
)
def test_each_extension_brings_its_leaves(option: str, leaves: set[str]) -> None:
    def announced(part: Part) -> set[str]:
        processor = Bare(8, part=part).processor
        tables = (processor.encls_leaves, processor.enclu_leaves)
        return {name for table in tables for name, _ in table.values()}

    options: dict[str, Any] = {option: False}
    everything = announced(DEFAULT_PART)
    assert announced(Part(**options)) == everything - leaves
    assert leaves < everything


def test_every_leaf_of_the_manual_has_a_body_or_is_listed_as_unmodelled() -> None:
    named = {name for table in (ENCLS_LEAVES, ENCLU_LEAVES) for name, _ in table.values()}
    assert set(bodies()) == named - UNMODELLED_LEAVES
    assert {"EVERIFYREPORT2", "EUPDATESVN"} == UNMODELLED_LEAVES
