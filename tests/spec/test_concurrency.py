"""The concurrency tables, written down a second time and compared leaf by leaf."""

import pytest

from softsgx.spec import concurrency
from softsgx.spec.concurrency import CONCURRENCY
from softsgx.spec.leaves import ENCLS_LEAVES, ENCLU_LEAVES

GP = "#GP(0)"
SECS = "PAGEINFO.SECS"

# Leaf -> resources as (operand, lock, mode, result of a conflict). Base lock, or the group within
# which alone the mode counts. Where table and operation listing differ, the listing.
TABLE: dict[str, list[tuple[str, str, str, str | int]]] = {
    "ECREATE": [("RCX", "base", "exclusive", GP)],
    "EADD": [
        ("RCX", "base", "exclusive", GP),
        (SECS, "base", "shared", GP),
        (SECS, "B", "exclusive", GP),
    ],
    "EEXTEND": [("RCX", "base", "shared", GP), ("RBX", "B", "exclusive", GP)],
    "EINIT": [("RCX", "base", "shared", GP), ("RCX", "B", "exclusive", GP)],
    "EAUG": [("RCX", "base", "exclusive", GP), (SECS, "base", "shared", GP)],
    "EBLOCK": [("RCX", "base", "shared", 7), ("SECS of RCX", "T", "refused", 15)],
    "ETRACK": [("RCX", "base", "shared", GP), ("RCX", "T", "exclusive", GP)],
    "ETRACKC": [
        ("RCX", "base", "shared", 7),
        ("SECS of RCX, or RCX itself", "T", "exclusive", 7),
    ],
    "EWB": [("RCX", "base", "exclusive", GP), ("RDX", "base", "shared", GP)],
    **{
        leaf: [
            ("RCX", "base", "exclusive", result),
            ("RDX", "base", "shared", result),
            (SECS, "base", "shared", result),
        ]
        for leaf, result in (("ELDB", GP), ("ELDU", GP), ("ELDBC", 7), ("ELDUC", 7))
    },
    "EPA": [("RCX", "base", "exclusive", GP)],
    "EREMOVE": [("RCX", "base", "exclusive", GP)],
    "EMODPR": [("RCX", "base", "shared", GP), ("RCX", "M", "exclusive", 7)],
    "EMODT": [("RCX", "base", "exclusive", 7), ("RCX", "M", "exclusive", 7)],
    "EDBGRD": [("RCX", "base", "shared", GP)],
    "EDBGWR": [("RCX", "base", "shared", GP)],
    "ERDINFO": [("RCX", "base", "shared", 7)],
    "EACCEPT": [("RCX", "base", "shared", GP), ("RCX", "M", "exclusive", GP)],
    "EACCEPTCOPY": [("RCX", "M", "exclusive", GP)],
    "EMODPE": [("RCX", "M", "exclusive", GP)],
    "EENTER": [("RBX", "base", "shared", GP)],
    "ERESUME": [("RBX", "base", "shared", GP)],
    "EDECCSSA": [("current TCS", "base", "shared", GP)],
    "EEXIT": [],
    "EGETKEY": [],
    "EREPORT": [],
}
GROUPS = {
    "M": {"EACCEPT", "EACCEPTCOPY", "EMODPE", "EMODPR", "EMODT"},
    "B": {"EADD", "EEXTEND", "EINIT"},
    "T": {"ETRACK", "ETRACKC"},
}
NOT_MODELLED = {"EVERIFYREPORT2", "EUPDATESVN"}


@pytest.mark.parametrize("leaf", TABLE)
def test_leaf_claims_what_the_table_lists(leaf: str) -> None:
    claims = [(c.operand, c.kind, c.mode, c.result) for c in CONCURRENCY[leaf]]
    assert claims == TABLE[leaf]


def test_every_modelled_leaf_has_an_entry() -> None:
    named = [name for table in (ENCLS_LEAVES, ENCLU_LEAVES) for name, _ in table.values()]
    assert set(CONCURRENCY) == set(named) - NOT_MODELLED


@pytest.mark.parametrize("kind", GROUPS)
def test_groups_have_their_members(kind: str) -> None:
    holders = {
        leaf
        for leaf, claims in CONCURRENCY.items()
        if any(c.kind == kind and c.mode == concurrency.EXCLUSIVE for c in claims)
    }
    assert holders == GROUPS[kind]


@pytest.mark.parametrize("leaf", TABLE)
def test_each_resource_of_a_leaf_has_a_busy_bit_of_its_own(leaf: str) -> None:
    bits = [claim.busy for claim in CONCURRENCY[leaf]]
    assert len(set(bits)) == len(bits)
    assert all(bit.bit_count() == 1 for bit in bits)
