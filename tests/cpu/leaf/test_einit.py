"""EINIT: every check in its order. What success does is in test_einit_effects.py. SDM 3D, EINIT."""

from dataclasses import replace
from typing import Any

import pytest

from softsgx.cpu.readings import DEFAULT_READINGS
from softsgx.cpu.signature import development_key
from softsgx.spec.sigstruct import SIGSTRUCT
from softsgx.spec.status import (
    SGX_INVALID_ATTRIBUTE,
    SGX_INVALID_CPUSVN,
    SGX_INVALID_EINITTOKEN,
    SGX_INVALID_MEASUREMENT,
    SGX_INVALID_SIG_STRUCT,
    SGX_INVALID_SIGNATURE,
    SGX_UNMASKED_EVENT,
)
from tests.cpu.cases import (
    ENCLS_PFEC,
    RAM,
    Case,
    assert_first_wins,
    assert_writes_only_rax_and_flags,
    case,
    case_id,
    epc,
    rows,
)
from tests.cpu.launch import DEBUG, EINITTOKENKEY, MODE64BIT, attempt
from tests.cpu.table import Row, code, execute, gp, pf, row_id, run_row

BAD_STRUCT = code(SGX_INVALID_SIG_STRUCT)
BAD_SIGNATURE = code(SGX_INVALID_SIGNATURE)
BAD_ATTRIBUTE = code(SGX_INVALID_ATTRIBUTE)
BAD_MEASUREMENT = code(SGX_INVALID_MEASUREMENT)
BAD_TOKEN = code(SGX_INVALID_EINITTOKEN)
ONES = bytes([0xFF]) * 384
MODULUS = development_key().public_key().public_numbers().n.to_bytes(384, "little")


def at(field: str, content: bytes) -> dict[int, int]:
    """The bytes of a SIGSTRUCT field, for `poke`."""
    offset = {f.name: f.offset for f in SIGSTRUCT.FIELDS}[field]
    return dict(enumerate(content, offset))


HEADERS: list[tuple[str, dict[int, int]]] = [
    ("HEADER", at("HEADER", b"\x07")),
    ("HEADER, last byte", {15: 1}),
    ("VENDOR", at("VENDOR", b"\x85\x80")),
    ("HEADER2", at("HEADER2", b"\x01\x02")),
    ("HEADER2, last byte", {39: 1}),
    ("EXPONENT", at("EXPONENT", b"\x01\x00\x01")),
    ("CET_ATTRIBUTES", at("CET_ATTRIBUTES", b"\x01")),
    ("CET_ATTRIBUTES_MASK", at("CET_ATTRIBUTES_MASK", b"\x01")),
    *((f"byte {i}", {i: 1}) for i in (44, 127, 910, 911, 992, 1007, 1028, 1039)),
]
SIGNATURES: list[tuple[str, dict[int, int]]] = [
    ("SIGNATURE not below MODULUS", at("SIGNATURE", ONES)),
    ("MODULUS too small", at("MODULUS", MODULUS[:383] + b"\x00")),
    ("MODULUS zero", at("MODULUS", bytes(384))),
    ("MODULUS even", at("MODULUS", bytes([MODULUS[0] - 1]) + MODULUS[1:])),
    # One signed field of each half of the message, altered after signing.
    ("SWDEFINED", at("SWDEFINED", b"\x01")),
    ("ISVSVN", at("ISVSVN", b"\x01")),
]
# A byte of every number that the signature is checked with, and what is wrong then.
NUMBERS = [("MODULUS", 136), ("SIGNATURE", 516), ("Q1", 1040), ("Q1 top", 1423), ("Q2", 1424)]
NO_DEBUG, TOKEN_KEY = MODE64BIT, MODE64BIT | DEBUG | EINITTOKENKEY
CODE_9 = replace(DEFAULT_READINGS, einit_attribute_code=9)

CASES = [
    case("EINIT.01", gp(), rbx_off=0x800),
    case("EINIT.02", gp(), rcx_off=0x800),
    case("EINIT.03", gp(), rdx_off=0x100),
    case("EINIT.04", pf("rcx", ENCLS_PFEC), rcx=RAM),
    *(case("EINIT.05", BAD_STRUCT, name, poke=poke) for name, poke in HEADERS),
    case("EINIT.05", BAD_STRUCT, "VENDOR, signed", sig={"VENDOR": 1}),
    case("EINIT.06", code(SGX_UNMASKED_EVENT), event=True),
    *(case("EINIT.07", BAD_SIGNATURE, name, poke=poke) for name, poke in SIGNATURES),
    *(case("EINIT.07", BAD_SIGNATURE, name, invert={i: 1}) for name, i in NUMBERS),
    case("EINIT.08", gp(), busy={"SECS": 0}),
    case("EINIT.09", pf("rcx", ENCLS_PFEC), "free page", rcx=epc(20)),
    case("EINIT.09", pf("rcx", ENCLS_PFEC), "TCS", rcx=epc(1)),
    case("EINIT.10", BAD_STRUCT, sig={"ISVFAMILYID": bytes(15) + b"\1"}),
    case("EINIT.11", gp(), busy={"B": 0}),
    case("EINIT.12", gp(), init=True),
    case("EINIT.13", BAD_MEASUREMENT, sig={"ENCLAVEHASH": bytes(32)}),
    case("EINIT.14", BAD_ATTRIBUTE, attributes=TOKEN_KEY, lehash="reset"),
    case("EINIT.14", BAD_ATTRIBUTE, "with a token", attributes=TOKEN_KEY, token={}),
    case("EINIT.15", BAD_ATTRIBUTE, "ATTRIBUTES", sig={"ATTRIBUTES": MODE64BIT}),
    case("EINIT.15", BAD_ATTRIBUTE, "XFRM", sig={"XFRM": 0b111}),
    case("EINIT.16", BAD_ATTRIBUTE, sig={"MISCSELECT": 0}),
    case("EINIT.17", BAD_TOKEN, lehash="reset"),
    case("EINIT.18", BAD_TOKEN, attributes=NO_DEBUG, token={}, launch_debug=True),
    case("EINIT.19", BAD_TOKEN, "VALID[1]", token={"VALID": 0b11}),
    case("EINIT.19", BAD_TOKEN, "VALID[31]", token={"VALID": 1 << 31 | 1}),
    *(
        case("EINIT.19", BAD_TOKEN, f"byte {i}", token={"poke": {i: 1}})
        for i in (4, 47, 96, 127, 160, 191, 213, 235)
    ),
    case("EINIT.20", code(SGX_INVALID_CPUSVN), token={"CPUSVNLE": b"\x0c" + bytes(15)}),
    case("EINIT.20", code(SGX_INVALID_CPUSVN), "last", token={"CPUSVNLE": bytes(15) + b"\1"}),
    case("EINIT.21", BAD_TOKEN, "MAC", token={}, flip={288: 1}),
    case("EINIT.21", BAD_TOKEN, "MAC, last byte", token={}, flip={303: 0x80}),
    case("EINIT.21", BAD_TOKEN, "MRENCLAVE altered", token={}, flip={64: 1}),
    case("EINIT.21", BAD_TOKEN, "ATTRIBUTES altered", token={}, flip={48: DEBUG}),
    # Every field after the 192 bytes that the MAC covers is part of the key.
    case("EINIT.21", BAD_TOKEN, "KEYID", token={"KEYID": bytes(32)}),
    case("EINIT.21", BAD_TOKEN, "CPUSVNLE", token={"CPUSVNLE": bytes(16)}),
    case("EINIT.21", BAD_TOKEN, "ISVSVNLE", token={"ISVSVNLE": 2}),
    case("EINIT.21", BAD_TOKEN, "ISVPRODIDLE", token={"ISVPRODIDLE": 0}),
    case("EINIT.21", BAD_TOKEN, "MASKEDMISCSELECTLE", token={"MASKEDMISCSELECTLE": 0}),
    case("EINIT.21", BAD_TOKEN, "MASKEDATTRIBUTESLE", token={"MASKEDATTRIBUTESLE": 0x24}),
    case("EINIT.21", BAD_TOKEN, "MASKEDXFRMLE", token={"MASKEDXFRMLE": 0}),
    case("EINIT.21", BAD_TOKEN, "signer of the launch enclave", token={}, lehash="reset"),
    case("EINIT.22", BAD_MEASUREMENT, "MRENCLAVE", token={"MRENCLAVE": bytes(32)}),
    case("EINIT.22", BAD_MEASUREMENT, "MRSIGNER", token={"MRSIGNER": bytes(32)}),
    case("EINIT.23", BAD_ATTRIBUTE, "ATTRIBUTES", token={"ATTRIBUTES": MODE64BIT}),
    case("EINIT.23", BAD_ATTRIBUTE, "XFRM", token={"XFRM": 0b111}),
    case("EINIT.23", code(9), "code 9", token={"XFRM": 0b111}, readings=CODE_9),
]
ROWS = rows(attempt, CASES)
# Without a token its rows say nothing; a leaf that holds the enclave's SECS holds no other; an
# enclave without DEBUG differs from a SIGSTRUCT that was made for one with it.
UNRELATED = [
    ("08", "09"),
    ("15", "18"),
    *(("17", later) for later in ("18", "19", "20", "21", "22", "23")),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_einit_refuses(row: Row) -> None:
    run_row(row)


# One case of each rule is enough: the others of a rule spoil the same thing in other ways.
FIRSTS: dict[str, Case] = {}
for _case in CASES:
    FIRSTS.setdefault(_case.rule, _case)


@pytest.mark.parametrize("first", FIRSTS.values(), ids=case_id)
def test_einit_checks_in_order(first: Case) -> None:
    assert_first_wins(attempt, first, list(FIRSTS.values()), UNRELATED)


@pytest.mark.parametrize("c", [c for c in CASES if c.expected.kind == "code"], ids=case_id)
def test_a_refused_einit_changes_nothing_and_can_be_repeated(c: Case) -> None:
    a = attempt(**c.spoilt)
    secs = a.lp.processor.secs[0]
    measurement = secs.measurement
    assert measurement is not None
    encoded, digest = secs.encode(), measurement.digest()
    for _ in range(2):
        assert assert_writes_only_rax_and_flags(a) == c.expected.value
    assert (secs.encode(), measurement.digest()) == (encoded, digest)


@pytest.mark.parametrize(
    ("spoilt", "expected"),
    [
        ({"token": {"XFRM": 7}}, SGX_INVALID_ATTRIBUTE),
        ({"token": {"XFRM": 7}, "readings": CODE_9}, 9),
    ],
)
def test_the_code_of_a_token_with_other_attributes_is_a_reading(
    spoilt: dict[str, Any], expected: int
) -> None:
    assert execute(attempt(**spoilt)) == expected
