"""INIT with a SIGSTRUCT that does not match: every field that differs, both values; working advice.

One field of five used to be named, and the advice was the rule reworded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from softsgx.cpu.part import DEFAULT_PART, Part
from softsgx.cpu.signature import development_key, sign
from softsgx.linux import uapi
from softsgx.linux.errno import EACCES, EINVAL, EPERM
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_KSS, ATTR_MODE64BIT, ATTR_PROVISIONKEY
from softsgx.spec.bits import MASK64
from softsgx.spec.sigstruct import SIGSTRUCT, SIGSTRUCT_HEADER, SIGSTRUCT_HEADER2
from softsgx.system import Machine
from tests.linux.building import Building

DEBUG = ATTR_MODE64BIT | ATTR_DEBUG
OTHER_HASH = bytes.fromhex("5a" * 32)

Change = Callable[[bytes], bytes]


def at(offset: int, data: bytes) -> Change:
    return lambda raw: raw[:offset] + data + raw[offset + len(data) :]


def flipped(offset: int) -> Change:
    return lambda raw: at(offset, bytes([raw[offset] ^ 1]))(raw)


def signed(**fields: Any) -> Change:
    """With these fields, and a signature of them."""
    return lambda raw: sign(SIGSTRUCT.unpack(raw).replace(**fields), development_key()).pack()


def both(*changes: Change) -> Change:
    def change(raw: bytes) -> bytes:
        for each in changes:
            raw = each(raw)
        return raw

    return change


def filled(part: Part = DEFAULT_PART, attributes: int = DEBUG, **secs: int) -> Building:
    b = Building(Machine(cpus=2, epc="1M", part=part, explain=True), attributes=attributes)
    assert b.create(**secs) == 0
    b.fill()
    return b


def init(b: Building, raw: bytes) -> int:
    argument = uapi.SgxEnclaveInit(sigstruct=b.memory(raw))
    return b.ioctl(uapi.SGX_IOC_ENCLAVE_INIT, argument)[0]


@dataclass(frozen=True)
class Row:
    """What is done to the right SIGSTRUCT or to the SECS; the rule; lines; the advice."""

    name: str
    change: Change
    rule: str
    lines: tuple[str, ...]
    way: str
    secs: tuple[tuple[str, int], ...] = ()
    part: Part = DEFAULT_PART


SIGN = "sign again: softsgx sign --key PEM FILE"
OTHER_CONTENT = "bytes 0 to 127 or 900 to 1027 are not those that were signed"
ROWS = [
    Row(
        "header",
        flipped(0),
        "EINIT.05",
        (f"HEADER  at byte 0: 07{SIGSTRUCT_HEADER.hex()[2:]} is not {SIGSTRUCT_HEADER.hex()}",),
        f"HEADER {SIGSTRUCT_HEADER.hex()}: the signature was made with that",
    ),
    Row(
        "four fields, and reserved bytes in two places",
        both(flipped(0), at(24, bytes(16)), at(512, b"\5"), at(50, b"\7"), at(1036, b"\1")),
        "EINIT.05",
        (
            "HEADER          at byte 0: 07",
            f"HEADER2         at byte 24: {'0' * 32} is not {SIGSTRUCT_HEADER2.hex()}",
            "EXPONENT        at byte 512: 0x5 is not 3",
            "reserved bytes  at byte 50: 0x7 is not 0",
            "reserved bytes  at byte 1036: 0x1 is not 0",
        ),
        f"HEADER {SIGSTRUCT_HEADER.hex()}, HEADER2 {SIGSTRUCT_HEADER2.hex()}, EXPONENT 0x3,"
        " reserved bytes 0: the signature was made with that",
    ),
    Row(
        "a header that was signed so",
        signed(HEADER=bytes(16)),
        "EINIT.05",
        (f"HEADER     at byte 0: {'0' * 32} is not", "SIGNATURE  at byte 516: does not verify"),
        SIGN,
    ),
    Row(
        "CET where the processor has none",
        signed(CET_ATTRIBUTES=1, CET_ATTRIBUTES_MASK=3),
        "EINIT.05",
        ("CET_ATTRIBUTES       at byte 908: 0x1 is not 0", "CET_ATTRIBUTES_MASK  at byte 909: 0x3"),
        SIGN,
    ),
    Row(
        "signature damaged",
        flipped(600),
        "EINIT.07",
        (
            "SIGNATURE  at byte 516: does not verify with MODULUS: it was not made with that key",
            "Q1         at byte 1040: not the floor of S^2 / M",
            "Q2         at byte 1424",
        ),
        SIGN,
    ),
    Row("Q1", flipped(1040), "EINIT.07", ("Q1    at byte 1040: not the floor",), SIGN),
    Row("Q2", flipped(1424), "EINIT.07", ("Q2    at byte 1424: not the floor",), SIGN),
    Row("modulus", at(128, b"\0"), "EINIT.07", ("MODULUS  at byte 128: not a modulus",), SIGN),
    Row(
        "another version than was signed",
        at(1026, b"\7"),
        "EINIT.07",
        (f"SIGNATURE  at byte 516: does not verify with MODULUS: {OTHER_CONTENT}",),
        SIGN,
    ),
    Row(
        "hash changed",
        flipped(960),
        "EINIT.07",
        ("SIGNATURE    at byte 516", "MRENCLAVE    ", "as built", "ENCLAVEHASH  ", "in SIGSTRUCT"),
        "ENCLAVEHASH BUILT: the signature was made with that",
    ),
    Row(
        "another enclave",
        signed(ENCLAVEHASH=OTHER_HASH),
        "EINIT.13",
        ("MRENCLAVE    BUILT  as built", f"ENCLAVEHASH  {OTHER_HASH.hex()}  in SIGSTRUCT"),
        "build what was signed, or sign what is built: softsgx run --sgxs-out FILE -- ... writes"
        " it, softsgx show --diff FILE SIGNED.sgxs says where the two differ, softsgx sign FILE"
        " signs it",
    ),
    Row(
        "debug in the SECS only",
        signed(ATTRIBUTES=ATTR_MODE64BIT),
        "EINIT.15",
        (
            "ATTRIBUTES  0x6 DEBUG MODE64BIT  in the SECS; signed 0x4 MODE64BIT,"
            " ATTRIBUTEMASK 0xffffffffffffffff: DEBUG",
        ),
        "SECS.ATTRIBUTES 0x4 MODE64BIT, as signed; or sign again: softsgx sign --attributes 0x6",
    ),
    Row(
        "a bit that is not signed stays as it is",
        signed(ATTRIBUTES=ATTR_MODE64BIT | ATTR_KSS, ATTRIBUTEMASK=MASK64 ^ ATTR_DEBUG),
        "EINIT.15",
        (
            "ATTRIBUTES  0x6 DEBUG MODE64BIT  in the SECS; signed 0x84 MODE64BIT KSS,"
            " ATTRIBUTEMASK 0xfffffffffffffffd: KSS",
        ),
        "SECS.ATTRIBUTES 0x86 DEBUG MODE64BIT KSS, as signed; or sign again: softsgx sign"
        " --attributes 0x6",
    ),
    Row(
        "three at once",
        signed(ATTRIBUTES=ATTR_MODE64BIT, XFRM=7, MISCSELECT=0, ENCLAVEHASH=OTHER_HASH),
        "EINIT.13",
        (
            "MRENCLAVE    BUILT",
            "ATTRIBUTES   0x6 DEBUG MODE64BIT  in the SECS; signed 0x4",
            "XFRM         0x3 X87 SSE  in the SECS; signed 0x7 X87 SSE AVX",
            "MISCSELECT   0x1 EXINFO  in the SECS; signed 0x0, MISCMASK 0xffffffff: EXINFO",
        ),
        "signs it; SECS.ATTRIBUTES 0x4 MODE64BIT, SECS.XFRM 0x7 X87 SSE AVX,"
        " SECS.MISCSELECT 0x0, as signed; or sign again: softsgx sign --attributes 0x6"
        " --xfrm 0x3 --miscselect 0x1",
    ),
    Row(
        "XFRM",
        signed(),
        "EINIT.15",
        (
            "XFRM  0x7 X87 SSE AVX  in the SECS; signed 0x3 X87 SSE, XFRMMASK"
            " 0xffffffffffffffff: AVX",
        ),
        "SECS.XFRM 0x3 X87 SSE, as signed; or sign again: softsgx sign --xfrm 0x7",
        (("XFRM", 7),),
    ),
    Row(
        "XFRM that ECREATE never accepts",
        signed(XFRM=1),
        "EINIT.15",
        ("XFRM  0x3 X87 SSE  in the SECS; signed 0x1 X87, XFRMMASK 0xffffffffffffffff: SSE",),
        "sign again: softsgx sign --xfrm 0x3",
    ),
    Row(
        "MISCSELECT",
        signed(),
        "EINIT.16",
        ("MISCSELECT  0x0  in the SECS; signed 0x1 EXINFO, MISCMASK 0xffffffff: EXINFO",),
        "SECS.MISCSELECT 0x1 EXINFO, as signed; or sign again: softsgx sign --miscselect 0x0",
        (("MISCSELECT", 0),),
    ),
    Row(
        "family without KSS",
        signed(ISVFAMILYID=b"\1" * 16),
        "EINIT.10",
        (f"ISVFAMILYID  {'01' * 16}  but no ATTRIBUTES.KSS",),
        "SECS.ATTRIBUTES with KSS, or sign again without --isvfamilyid",
    ),
    Row(
        "CET_ATTRIBUTES",
        signed(CET_ATTRIBUTES=1, CET_ATTRIBUTES_MASK=0xFF),
        "CET.07",
        ("CET_ATTRIBUTES  0x0  in the SECS; signed 0x1 SH_STK_EN, CET_ATTRIBUTES_MASK 0xff",),
        "sign again: softsgx sign --cet-attributes 0x0",
        part=Part(cet=True),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_field_that_differs_is_named_and_the_advice_works(row: Row) -> None:
    b = filled(row.part, **dict(row.secs))
    built = b.sigstruct().ENCLAVEHASH
    good = b.sigstruct().replace(ATTRIBUTEMASK=MASK64)
    wrong = row.change(sign(good, development_key()).pack())
    assert init(b, wrong) == -EPERM
    text = b.machine.explain().replace(built.hex(), "BUILT")
    assert re.search(
        rf"INIT\(\) of thread main refused: -EPERM; EINIT: SGX_\w+ \({row.rule}\)", text
    )
    for line in row.lines:
        assert line in text, text
    assert "EPCM" not in text
    assert text.rstrip().endswith(row.way), text
    for follow in ADVICE:
        follow(b, row, wrong, row.way)


def as_fields(b: Building, row: Row, wrong: bytes, way: str) -> None:
    """Write the fields that are named into the SIGSTRUCT."""
    if "the signature was made with that" not in way:
        return
    if "reserved bytes 0" in way:
        wrong = SIGSTRUCT.unpack(wrong).pack()
    for name, value in re.findall(r"([A-Z][A-Z_0-9]+) ([0-9a-fx]+|BUILT)\b", way):
        if name == "EXPONENT":
            wrong = SIGSTRUCT.unpack(wrong).replace(EXPONENT=int(value, 0)).pack()
        else:
            whole = b.sigstruct().ENCLAVEHASH if value == "BUILT" else bytes.fromhex(value)
            wrong = SIGSTRUCT.unpack(wrong).replace(**{name: whole}).pack()
    assert init(b, wrong) == 0


def again(b: Building, row: Row, wrong: bytes, way: str) -> None:
    """Sign what is built, with the options that are named."""
    if "sign" not in way or "the signature was made with that" in way:
        return
    options = dict(re.findall(r"--(attributes|xfrm|miscselect|cet-attributes) (0x\w+)", way))
    fields = {name.upper().replace("-", "_"): int(value, 0) for name, value in options.items()}
    signer = b.sigstruct().replace(**{n: v for n, v in row.secs if n in ("XFRM", "MISCSELECT")})
    if row.part.cet:
        fields["CET_ATTRIBUTES_MASK"] = 0xFF
    assert init(b, sign(signer.replace(**fields), development_key()).pack()) == 0


def as_signed(b: Building, row: Row, wrong: bytes, way: str) -> None:
    """Build the enclave with the SECS that is named."""
    fields = {n: int(v, 0) for n, v in re.findall(r"SECS\.([A-Z]+) (0x[0-9a-f]+)", way)}
    if "SECS.ATTRIBUTES with KSS" in way:
        fields["ATTRIBUTES"] = DEBUG | ATTR_KSS
        wrong = signed(ATTRIBUTES=DEBUG | ATTR_KSS)(wrong)
    if fields:
        other = filled(row.part, **fields)
        if "signs it" in way:
            wrong = signed(ENCLAVEHASH=other.sigstruct().ENCLAVEHASH)(wrong)
        assert init(other, wrong) == 0, other.machine.explain()


ADVICE = (as_fields, again, as_signed)


def test_an_event_that_disturbs_each_time() -> None:
    b = filled()
    lp = b.machine.processor.lps[0]
    lp.pending_event = True
    assert b.init() == -EPERM
    text = b.machine.explain()
    assert "EINIT: SGX_UNMASKED_EVENT (EINIT.06)" in text
    assert "try again: an event was pending" in text
    lp.pending_event = False
    assert b.init() == 0


DRIVER: list[tuple[str, dict[str, Any], int, str, str]] = [
    (
        "vendor",
        {"VENDOR": 0x11},
        EINVAL,
        "asked  vendor=0x11\n  rule   SIGSTRUCT.VENDOR is 0 or 0x8086 (sgx_ioc_enclave_init)",
        "sign again with VENDOR 0: softsgx sign --vendor 0",
    ),
    (
        "ATTRIBUTES",
        {"ATTRIBUTES": DEBUG | 1 << 63},
        EINVAL,
        "no bit of ATTRIBUTES under ATTRIBUTEMASK that kernel or processor lacks (sgx_encl_init)",
        "sign again: softsgx sign --attributes 0x6",
    ),
    (
        "MISCSELECT",
        {"MISCSELECT": 2},
        EINVAL,
        "asked       miscselect=0x2",
        "sign again: softsgx sign --miscselect 0x1",
    ),
    (
        "XFRM",
        {"XFRM": 0xE7},
        EINVAL,
        "asked  xfrm=0xe0",
        "sign again: softsgx sign --xfrm 0x3",
    ),
]


@pytest.mark.parametrize(
    ("fields", "errno", "line", "way"), [row[1:] for row in DRIVER], ids=[row[0] for row in DRIVER]
)
def test_what_the_driver_refuses_before_einit(
    fields: dict[str, Any], errno: int, line: str, way: str
) -> None:
    b = filled()
    raw = b.sigstruct().pack()
    assert init(b, signed(**fields)(raw)) == -errno
    text = b.machine.explain()
    assert line in text, text
    assert text.endswith(f"for the ioctl to succeed: {way}\n"), text
    cleared = {"VENDOR": 0}
    if found := re.search(r"softsgx sign --([a-z]+) (0x\w+)", text):
        cleared = {found[1].upper(): int(found[2], 0)}
    assert init(b, signed(**fields | cleared)(raw)) == 0


def test_attributes_that_need_a_token_and_some_that_are_never_given() -> None:
    extra = 1 << 5  # EINITTOKENKEY
    b = filled(attributes=DEBUG | ATTR_PROVISIONKEY | extra)
    assert b.init() == -EACCES
    text = b.machine.explain()
    assert "leave the bits 0x20 out of SECS.ATTRIBUTES; open /dev/sgx_provision, and" in text
    b = filled(attributes=DEBUG | ATTR_PROVISIONKEY)
    assert b.provision(b.do(b.host.open("/dev/sgx_provision"))) == 0
    assert b.init() == 0
