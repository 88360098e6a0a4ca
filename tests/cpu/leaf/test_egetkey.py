"""EGETKEY: every check and its place, and what it writes. SDM 3D, EGETKEY.

What each key depends on is in tests/cpu/test_key_derivation.py.
"""

from typing import Any

import pytest

from softsgx.cpu import Fault, Readings
from softsgx.spec.attributes import (
    ATTR_DEBUG,
    ATTR_EINITTOKENKEY,
    ATTR_KSS,
    ATTR_MODE64BIT,
    ATTR_PROVISIONKEY,
)
from softsgx.spec.epcm import PR
from softsgx.spec.faults import GP, PF
from softsgx.spec.keys import (
    EINITTOKEN_KEY,
    KEYREQUEST,
    PROVISION_KEY,
    PROVISION_SEAL_KEY,
    REPORT_KEY,
    SEAL_KEY,
)
from softsgx.spec.leaves import EGETKEY
from softsgx.spec.msr import RFLAGS_STATUS
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS
from softsgx.spec.status import (
    SGX_INVALID_ATTRIBUTE,
    SGX_INVALID_CPUSVN,
    SGX_INVALID_ISVSVN,
    SGX_INVALID_KEYNAME,
)
from tests.cpu.keyed import CONFIGSVN, ISVSVN, Keyed, kept, keyed, operand_spoils, request
from tests.cpu.spoil import Spoil, Trials, spoil_id
from tests.cpu.table import Expected, Row, code, execute, gp, row_id, run_row

TRIALS: Trials[Keyed] = Trials(kept, lambda k: k.attempt())
BEYOND = b"\xff" * 16


def asks(
    rule: str, expected: Expected, aspects: str, note: str = "", *, lacks: int = 0, **fields: Any
) -> Spoil[Keyed]:
    """A request with the given fields, of an enclave that lacks some ATTRIBUTES."""

    def change(k: Keyed) -> None:
        k.secs.ATTRIBUTES &= ~lacks
        now = KEYREQUEST.unpack(k.read(0, KEYREQUEST.SIZE))
        reserved = k.read(0, KEYREQUEST.SIZE)[78:]
        k.write(0, now.replace(**fields).pack()[:78] + reserved)

    return Spoil(rule, aspects, change, expected, note)


def reserved(at: int) -> Spoil[Keyed]:
    """A reserved byte of the request set."""

    def change(k: Keyed) -> None:
        raw = bytearray(k.read(0, KEYREQUEST.SIZE))
        raw[at] = 1
        k.write(0, bytes(raw))

    return Spoil("EGETKEY.09", f"reserved-{at}", change, gp(), f"byte {at}")


INPUT = operand_spoils(
    ("EGETKEY.01", "EGETKEY.02", "EGETKEY.03", "EGETKEY.04"), "rbx", 0, write=False
)
OUTPUT = operand_spoils(
    ("EGETKEY.05", "EGETKEY.06", "EGETKEY.07", "EGETKEY.08"), "rcx", 1, write=True
)
NAME = "EGETKEY.13", code(SGX_INVALID_KEYNAME), "name"
ATTRIBUTE = code(SGX_INVALID_ATTRIBUTE)
PROVISION = {"lacks": ATTR_PROVISIONKEY}
REQUEST = [
    reserved(78),
    reserved(300),
    reserved(511),
    asks("EGETKEY.10", gp(), "cet", CET_ATTRIBUTES_MASK=1),
    asks("EGETKEY.11", gp(), "policy", "bit 6", KEYPOLICY=1 << 6),
    asks("EGETKEY.11", gp(), "policy", "bit 15", KEYPOLICY=1 << 15),
    *(
        asks("EGETKEY.12", gp(), "policy", f"policy bit {bit}", lacks=ATTR_KSS, KEYPOLICY=1 << bit)
        for bit in range(2, 6)
    ),
    asks("EGETKEY.12", gp(), "configsvn", "CONFIGSVN", lacks=ATTR_KSS, CONFIGSVN=1),
    asks(*NAME, "5", KEYNAME=5),
    asks(*NAME, "65535", KEYNAME=0xFFFF),
    asks("EGETKEY.14", ATTRIBUTE, "name", lacks=ATTR_EINITTOKENKEY, KEYNAME=EINITTOKEN_KEY),
    asks("EGETKEY.15", ATTRIBUTE, "name", "PROVISION", KEYNAME=PROVISION_KEY, **PROVISION),
    asks("EGETKEY.15", ATTRIBUTE, "name", "SEAL", KEYNAME=PROVISION_SEAL_KEY, **PROVISION),
    asks("EGETKEY.16", code(SGX_INVALID_CPUSVN), "cpusvn", CPUSVN=BEYOND),
    asks("EGETKEY.17", code(SGX_INVALID_ISVSVN), "isvsvn", ISVSVN=ISVSVN + 1),
    asks("EGETKEY.18", code(SGX_INVALID_ISVSVN), "configsvn", CONFIGSVN=CONFIGSVN + 1),
]
LISTING = [*INPUT, *OUTPUT, *REQUEST]

ROWS = TRIALS.rows(LISTING)


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_egetkey_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", LISTING[:-1], ids=spoil_id)
def test_egetkey_order(first: Spoil[Keyed]) -> None:
    assert TRIALS.verify_order(LISTING, first) > 0


@pytest.mark.parametrize("number", [0, 1], ids=["KEYREQUEST", "key"])
def test_egetkey_operands_are_explicit_accesses(number: int) -> None:
    """An operand that is not mapped gives the ordinary page fault, a read or a write."""
    k = kept()
    k.bare.processor.space.unmap(k.enclave.data[number])
    with pytest.raises(Fault) as refused:
        execute(k.attempt())
    fault = refused.value
    assert (fault.vector, fault.code) == (PF, 6 if number else 4)
    assert fault.address == k.enclave.data[number]


@pytest.mark.parametrize(("register", "align"), [("rbx", 512), ("rcx", 16)])
def test_egetkey_alignments(register: str, align: int) -> None:
    """Each operand may stand at any multiple of its alignment, and at no other place."""
    k = kept()
    k.write(0, request().pack() * 2)
    setattr(k, register, getattr(k, register) + align)
    assert execute(k.attempt()) == 0
    for shift in range(align.bit_length() - 1):
        k = kept()
        setattr(k, register, getattr(k, register) + (1 << shift))
        with pytest.raises(Fault) as refused:
            execute(k.attempt())
        assert refused.value.vector == GP


@pytest.mark.parametrize("number", [0, 1], ids=["KEYREQUEST", "key"])
def test_egetkey_accepts_a_page_under_restriction(number: int) -> None:
    """PR is no part of the operand test."""
    k = kept()
    k.bare.processor.epcm.put(k.page(number), k.bare.word(k.page(number)) | PR)
    assert execute(k.attempt()) == 0


@pytest.mark.parametrize("refusal", [s for s in REQUEST if s.expected.kind == "code"], ids=spoil_id)
def test_a_code_writes_no_key(refusal: Spoil[Keyed]) -> None:
    k = kept()
    k.write(1, b"\xa5" * 16)
    refusal.apply(k)
    assert execute(k.attempt()) == refusal.expected.value
    assert k.read(1, 16) == b"\xa5" * 16


def test_egetkey_writes_16_bytes_rax_and_flags() -> None:
    k = kept()
    k.write(1, b"\xa5" * 64)
    k.rcx += 16
    k.lp.regs[RFLAGS] |= RFLAGS_STATUS
    flags = k.lp.regs[RFLAGS]
    expected = k.lp.regs[:]
    assert execute(k.attempt()) == 0
    data = k.enclave.data
    expected[RAX], expected[RBX], expected[RCX], expected[RDX] = 0, data[0], data[1] + 16, 0
    expected[RFLAGS] = flags & ~RFLAGS_STATUS
    assert k.lp.regs == expected
    written = k.read(1, 64)
    assert (written[:16], written[32:]) == (b"\xa5" * 16, b"\xa5" * 32)
    assert written[16:32] == kept().key(request())


def test_request_and_key_may_share_a_page() -> None:
    k = kept()
    k.rcx = k.rbx + 1024
    assert execute(k.attempt()) == 0
    assert k.read(0, 1040)[1024:] == kept().key(request())


# Without KSS the two old policy bits remain.
@pytest.mark.parametrize("policy", range(4))
def test_egetkey_without_kss(policy: int) -> None:
    k = keyed(attributes=ATTR_MODE64BIT | ATTR_DEBUG)
    assert len(k.key(request(KEYPOLICY=policy))) == 16


@pytest.mark.parametrize("byte", range(16))
def test_each_component_of_cpusvn_is_compared(byte: int) -> None:
    """One component beyond the current one is enough, whatever the others are."""
    k = kept()
    current = k.bare.processor.part.cpusvn
    assert len(k.key(request(CPUSVN=current))) == 16
    if current[byte] < 0xFF:
        beyond = bytes(current[n] + 1 if n == byte else 0 for n in range(16))
        k.write(0, request(CPUSVN=beyond).pack())
        assert execute(k.attempt()) == SGX_INVALID_CPUSVN


@pytest.mark.parametrize("svn", [0, 1, ISVSVN])
def test_keys_of_older_versions_are_given(svn: int) -> None:
    assert len(kept().key(request(ISVSVN=svn))) == 16


def test_report_key_asks_for_no_version() -> None:
    """CPUSVN and ISVSVN of the request are not looked at: the key is that of now."""
    asked = request(REPORT_KEY, CPUSVN=BEYOND, ISVSVN=0xFFFF, CONFIGSVN=0xFFFF)
    assert kept().key(asked) == kept().key(request(REPORT_KEY))


@pytest.mark.parametrize("name", [EINITTOKEN_KEY, PROVISION_KEY, PROVISION_SEAL_KEY, REPORT_KEY])
def test_only_the_seal_key_compares_configsvn(name: int) -> None:
    assert len(kept().key(request(name, CONFIGSVN=CONFIGSVN + 1))) == 16


@pytest.mark.parametrize("reserved", [True, False])
def test_reading_keyrequest_cet_mask_reserved(reserved: bool) -> None:
    k = keyed(readings=Readings(keyrequest_cet_mask_reserved=reserved))
    asked = request(SEAL_KEY, CET_ATTRIBUTES_MASK=0xFF)
    if not reserved:
        assert len(k.key(asked)) == 16
        return
    k.write(0, asked.pack())
    with pytest.raises(Fault) as refused:
        k.lp.enclu(EGETKEY, k.rbx, k.rcx)
    assert refused.value.rule == "EGETKEY.10"
