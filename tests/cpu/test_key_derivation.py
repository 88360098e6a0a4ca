"""What each key depends on: the manual's table, one column per KEYNAME. SDM 3D, EGETKEY.

Two keys are compared that differ in one input. Which key is derived is the model's own choice;
that equal material gives equal keys, and different material different ones, is the manual's.
"""

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import pytest

from softsgx.cpu import Part
from softsgx.spec.attributes import (
    ATTR_AEXNOTIFY,
    ATTR_DEBUG,
    ATTR_MODE64BIT,
    ATTR_PROVISIONKEY,
)
from softsgx.spec.keys import (
    EINITTOKEN_KEY,
    KEYREQUEST,
    POLICY_CONFIGID,
    POLICY_DEFINED,
    POLICY_ISVEXTPRODID,
    POLICY_ISVFAMILYID,
    POLICY_MRENCLAVE,
    POLICY_MRSIGNER,
    POLICY_NOISVPRODID,
    PROVISION_KEY,
    PROVISION_SEAL_KEY,
    REPORT_KEY,
    SEAL_KEY,
)
from tests.cpu.keyed import Keyed, kept, keyed, request

NAMES = {
    EINITTOKEN_KEY: "EINITTOKEN",
    PROVISION_KEY: "PROVISION",
    PROVISION_SEAL_KEY: "PROVISION_SEAL",
    REPORT_KEY: "REPORT",
    SEAL_KEY: "SEAL",
}


class Cell(NamedTuple):
    """Whether an input counts: `plain`, or the opposite while a policy bit is set."""

    plain: bool
    bit: int = 0

    def counts(self, policy: int) -> bool:
        """Whether the input counts under KEYPOLICY."""
        return self.plain != bool(self.bit and policy & self.bit)


YES, NO = Cell(True), Cell(False)
Change = Callable[[Keyed, KEYREQUEST], KEYREQUEST]


def by_policy(bit: int) -> Cell:
    """Counts only if the policy bit is set."""
    return Cell(False, bit)


def unless(bit: int) -> Cell:
    """Counts unless the policy bit is set."""
    return Cell(True, bit)


def secs(field: str, flip: int) -> Change:
    """Flip bits of a field of the SECS: another enclave."""

    def change(k: Keyed, asked: KEYREQUEST) -> KEYREQUEST:
        old = getattr(k.secs, field)
        if isinstance(old, bytes):
            setattr(k.secs, field, bytes([old[0] ^ flip]) + old[1:])
        else:
            setattr(k.secs, field, old ^ flip)
        return asked

    return change


def ask(field: str, flip: int) -> Change:
    """Flip bits of a field of the KEYREQUEST."""

    def change(_: Keyed, asked: KEYREQUEST) -> KEYREQUEST:
        old = getattr(asked, field)
        if isinstance(old, bytes):
            return asked.replace(**{field: bytes([old[0] ^ flip]) + old[1:]})
        return asked.replace(**{field: old ^ flip})

    return change


FAMILY, EXTENDED = by_policy(POLICY_ISVFAMILYID), by_policy(POLICY_ISVEXTPRODID)
PRODUCT, CONFIG = unless(POLICY_NOISVPRODID), by_policy(POLICY_CONFIGID)
ENCLAVE, SIGNER = by_policy(POLICY_MRENCLAVE), by_policy(POLICY_MRSIGNER)
UNUSED = 1 << 40  # a bit that no enclave has

# Input, how it changes, and per column EINITTOKEN, PROVISION, PROVISION_SEAL, REPORT, SEAL.
TABLE: list[tuple[str, Change, tuple[Cell, Cell, Cell, Cell, Cell]]] = [
    ("ISVFAMILYID", secs("ISVFAMILYID", 1), (NO, NO, FAMILY, NO, FAMILY)),
    ("ISVEXTPRODID", secs("ISVEXTPRODID", 1), (NO, NO, EXTENDED, NO, EXTENDED)),
    ("ISVPRODID", secs("ISVPRODID", 1), (YES, YES, PRODUCT, NO, PRODUCT)),
    ("ISVSVN asked", ask("ISVSVN", 1), (YES, YES, YES, NO, YES)),
    ("ISVSVN", secs("ISVSVN", 8), (NO, NO, NO, NO, NO)),
    ("ATTRIBUTES masked", secs("ATTRIBUTES", ATTR_AEXNOTIFY), (YES, YES, YES, YES, YES)),
    ("ATTRIBUTES unmasked", secs("ATTRIBUTES", ATTR_MODE64BIT), (NO, NO, NO, YES, NO)),
    ("XFRM masked", secs("XFRM", 1 << 2), (YES, YES, YES, YES, YES)),
    ("XFRM unmasked", secs("XFRM", 1 << 9), (NO, NO, NO, YES, NO)),
    # A mask bit counts by itself, or by the attribute it lets through.
    ("ATTRIBUTEMASK of 0", ask("ATTRIBUTEMASK", UNUSED), (NO, YES, YES, NO, YES)),
    ("ATTRIBUTEMASK of 1", ask("ATTRIBUTEMASK", ATTR_PROVISIONKEY), (YES, YES, YES, NO, YES)),
    ("XFRMMASK of 0", ask("XFRMMASK", UNUSED), (NO, YES, YES, NO, YES)),
    ("XFRMMASK of 1", ask("XFRMMASK", 1), (YES, YES, YES, NO, YES)),
    ("MRENCLAVE", secs("MRENCLAVE", 1), (NO, NO, NO, YES, ENCLAVE)),
    ("MRSIGNER", secs("MRSIGNER", 1), (YES, YES, YES, NO, SIGNER)),
    ("KEYID", ask("KEYID", 1), (YES, NO, NO, YES, YES)),
    ("CPUSVN asked", ask("CPUSVN", 1), (YES, YES, YES, NO, YES)),
    ("PADDING", secs("PADDING", 1), (YES, YES, YES, NO, YES)),
    ("MISCSELECT masked", secs("MISCSELECT", 1), (YES, YES, YES, YES, YES)),
    ("MISCSELECT unmasked", secs("MISCSELECT", 2), (NO, NO, NO, YES, NO)),
    ("MISCMASK of 0", ask("MISCMASK", 1 << 5), (NO, YES, YES, NO, YES)),
    ("MISCMASK of 1", ask("MISCMASK", 1), (YES, YES, YES, NO, YES)),
    ("CONFIGID", secs("CONFIGID", 1), (NO, NO, CONFIG, YES, CONFIG)),
    ("CONFIGSVN asked", ask("CONFIGSVN", 1), (NO, NO, CONFIG, NO, CONFIG)),
    ("CONFIGSVN", secs("CONFIGSVN", 2), (NO, NO, NO, YES, NO)),
]
CASES = [
    pytest.param(change, name, cells[name], id=f"{NAMES[name]}-{field}")
    for field, change, cells in TABLE
    for name in NAMES
]


def key(name: int, policy: int = 0, change: Change | None = None) -> bytes:
    """A key of the enclave that all tests share, after a change."""
    k = kept()
    asked = request(name, KEYPOLICY=policy)
    return k.key(change(k, asked) if change else asked)


@pytest.mark.parametrize(("change", "name", "cell"), CASES)
def test_key_depends_on(change: Change, name: int, cell: Cell) -> None:
    bit = cell.bit
    for policy in (0, POLICY_DEFINED, bit, POLICY_DEFINED & ~bit):
        differs = key(name, policy) != key(name, policy, change)
        assert differs is cell.counts(policy), f"KEYPOLICY {policy:#x}"


@pytest.mark.parametrize("policy", [1 << bit for bit in range(6)])
@pytest.mark.parametrize("name", NAMES, ids=NAMES.get)
def test_key_depends_on_keypolicy(name: int, policy: int) -> None:
    """Where policies exist the bits themselves are part of the material."""
    differs = key(name) != key(name, policy)
    assert differs is (name in (PROVISION_SEAL_KEY, SEAL_KEY))


@pytest.mark.parametrize("name", NAMES, ids=NAMES.get)
def test_debug_is_part_of_every_key(name: int) -> None:
    """With an empty mask, too: a debug enclave never gets the keys of the one it shadows."""
    keys = []
    for debug in (0, ATTR_DEBUG):
        k = kept()
        k.secs.ATTRIBUTES = k.secs.ATTRIBUTES & ~ATTR_DEBUG | debug
        keys.append(k.key(request(name, ATTRIBUTEMASK=0, XFRMMASK=0, MISCMASK=0)))
    assert keys[0] != keys[1]


def test_seal_key_with_no_policy_bit_binds_to_no_identity() -> None:
    k = kept()
    first = k.key(request(SEAL_KEY))
    k.secs.MRENCLAVE, k.secs.MRSIGNER = bytes(32), bytes(32)
    assert k.key(request(SEAL_KEY)) == first


@pytest.mark.parametrize(("a", "b"), list(combinations(NAMES, 2)))
@pytest.mark.parametrize("policy", [0, POLICY_MRENCLAVE, POLICY_MRSIGNER, POLICY_DEFINED])
def test_keys_of_different_names_differ(a: int, b: int, policy: int) -> None:
    assert key(a, policy) != key(b, policy)


# What the machine itself puts in: (OWNEREPOCH, SEAL_FUSES, current CPUSVN) count.
MACHINE = {
    EINITTOKEN_KEY: (True, True, False),
    PROVISION_KEY: (False, False, False),
    PROVISION_SEAL_KEY: (False, True, False),
    REPORT_KEY: (True, True, True),
    SEAL_KEY: (True, True, False),
}


@pytest.mark.parametrize("name", NAMES, ids=NAMES.get)
def test_key_depends_on_owner_epoch(name: int) -> None:
    k = keyed()
    k.bare.processor.keys.owner_epoch = bytes(16)
    assert (k.key(request(name)) != key(name)) is MACHINE[name][0]


@pytest.mark.parametrize("name", NAMES, ids=NAMES.get)
def test_key_depends_on_seal_fuses(name: int) -> None:
    k = keyed()
    k.bare.processor.keys.seal_fuses = bytes(16)
    assert (k.key(request(name)) != key(name)) is MACHINE[name][1]


@pytest.mark.parametrize("name", NAMES, ids=NAMES.get)
def test_key_depends_on_current_cpusvn(name: int) -> None:
    """After a microcode update the keys of the CPUSVN asked for remain, the REPORT key does not."""
    k = keyed(part=Part(cpusvn=bytes([0x0C] * 4 + [0xFF] * 2 + [2]) + bytes(9)))
    assert (k.key(request(name)) != key(name)) is MACHINE[name][2]


@pytest.mark.parametrize("name", NAMES, ids=NAMES.get)
def test_keys_belong_to_the_machine(name: int) -> None:
    asked = request(name, KEYPOLICY=POLICY_DEFINED)
    keys = [keyed(seed=seed).key(asked) for seed in (0, 0, 1, 2)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


# Regression only: what seed 0 gives, so that data sealed by one version opens in the next.
KNOWN = {
    EINITTOKEN_KEY: "f8547a9d417a9ef39167cbd0aa69e1d9",
    PROVISION_KEY: "48c620b27d79fc859c1af57015ea1cb0",
    PROVISION_SEAL_KEY: "70572bcc50ed14f8b7446fd6ee5c4810",
    REPORT_KEY: "588ae9dd39caaa66bfe00edc506dad43",
    SEAL_KEY: "61bee5298d5e12e8e0f76699cf6b0f38",
}


@pytest.mark.parametrize("name", NAMES, ids=NAMES.get)
def test_known_answers_of_seed_0(name: int) -> None:
    k = kept()
    k.secs.MRENCLAVE, k.secs.MRSIGNER = b"\x11" * 32, b"\x22" * 32
    assert k.key(request(name, KEYPOLICY=POLICY_DEFINED)).hex() == KNOWN[name]


def test_padding_of_a_valid_signature() -> None:
    """What EINIT stores is the constant that the REPORT key uses: PKCS#1 v1.5 for SHA-256."""
    tail = 0x2004000501020403650148866009060D30313000.to_bytes(20, "little")
    assert (0x0100).to_bytes(2, "little") + b"\xff" * 330 + tail == kept().secs.PADDING
