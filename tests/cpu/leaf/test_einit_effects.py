"""EINIT: what success writes, launch control by MSR and by token. SDM 3D, EINIT."""

from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from softsgx.cpu import Bare, Fault, LogicalProcessor
from softsgx.cpu.signature import sign
from softsgx.spec.bits import MASK64
from softsgx.spec.leaves import EINIT
from softsgx.spec.msr import RFLAGS_STATUS, RFLAGS_ZF
from softsgx.spec.registers import RAX, RFLAGS
from softsgx.spec.sigstruct import SIGSTRUCT
from softsgx.spec.status import (
    SGX_INVALID_ATTRIBUTE,
    SGX_INVALID_EINITTOKEN,
    SGX_INVALID_MEASUREMENT,
    SGX_UNMASKED_EVENT,
)
from tests.cpu.launch import (
    BASE,
    DEBUG,
    EINITTOKENKEY,
    INIT,
    MODE64BIT,
    SIGSTRUCT_AT,
    TOKEN_AT,
    Launch,
    attempt,
    key_of,
    launch_key,
    set_launch_hash,
)
from tests.cpu.table import Attempt, execute

KSS = 0x80


def sigstruct_of(a: Attempt) -> SIGSTRUCT:
    """The SIGSTRUCT that an attempt gives to EINIT."""
    return SIGSTRUCT.unpack(a.lp.system_read(a.rbx, SIGSTRUCT.SIZE))


def test_einit_stores_the_identity_of_the_enclave() -> None:
    given: dict[str, Any] = {
        "ISVPRODID": 0x1234,
        "ISVSVN": 0x5678,
        "ISVFAMILYID": bytes(range(16)),
        "ISVEXTPRODID": bytes(range(16, 32)),
    }
    a = attempt(attributes=MODE64BIT | KSS, sig=given)
    sig = sigstruct_of(a)
    assert execute(a) == 0
    secs = a.lp.processor.secs[0]
    assert {name: getattr(secs, name) for name in given} == given
    assert sig.ENCLAVEHASH == secs.MRENCLAVE
    assert sha256(sig.MODULUS).digest() == secs.MRSIGNER
    assert MODE64BIT | KSS | INIT == secs.ATTRIBUTES
    assert secs.initialised


def test_einit_stores_the_padding_that_the_signature_decodes_to() -> None:
    a = attempt()
    sig = sigstruct_of(a)
    assert execute(a) == 0
    modulus = int.from_bytes(sig.MODULUS, "little")
    block = pow(int.from_bytes(sig.SIGNATURE, "little"), 3, modulus).to_bytes(384, "big")
    assert block[:352] == a.lp.processor.secs[0].PADDING
    signed = sig.pack()
    assert block[352:] == sha256(signed[:128] + signed[900:1028]).digest()


def test_einit_changes_nothing_but_the_secs_rax_and_flags() -> None:
    a = attempt(token={})
    lp, processor = a.lp, a.lp.processor
    lp.regs[RFLAGS] |= RFLAGS_STATUS
    regs = lp.regs[:]
    epcm, memory = processor.epcm.snapshot(), processor.memory.snapshot()
    launch = processor.secs[6].encode()
    written = ("ATTRIBUTES", "MRENCLAVE", "MRSIGNER", "PADDING")
    kept = ("SIZE", "BASEADDR", "SSAFRAMESIZE", "XFRM", "EID", "children", "current", "EPOCH")
    secs = processor.secs[0]
    before = {name: getattr(secs, name) for name in (*written, *kept)}
    assert execute(a) == 0
    assert lp.regs[RAX] == 0
    assert lp.regs[RFLAGS] == regs[RFLAGS] & ~RFLAGS_STATUS
    assert lp.regs[4:16] == regs[4:16]
    assert (processor.epcm.snapshot(), processor.memory.snapshot()) == (epcm, memory)
    assert processor.secs[6].encode() == launch
    assert {name for name in before if getattr(secs, name) != before[name]} == set(written)


@pytest.mark.parametrize(
    "sig",
    [
        {"VENDOR": 0x8086},
        {"SWDEFINED": 0xFFFFFFFF, "DATE": 0x20991231},
        {"ATTRIBUTES": MODE64BIT, "ATTRIBUTEMASK": ~DEBUG & MASK64},
        {"XFRM": 0b111, "XFRMMASK": 0b11},
        {"MISCSELECT": 0, "MISCMASK": 0xFFFFFFFE},
        {"ATTRIBUTEMASK": 0, "XFRMMASK": 0, "MISCMASK": 0, "ATTRIBUTES": 0, "XFRM": 0},
    ],
    ids=str,
)
def test_einit_compares_only_under_the_masks(sig: dict[str, int]) -> None:
    assert execute(attempt(sig=sig)) == 0


@pytest.mark.parametrize(
    "sig",
    [
        {"ATTRIBUTES": MODE64BIT, "ATTRIBUTEMASK": DEBUG},
        {"XFRM": 0b111, "XFRMMASK": 0b100},
        {"MISCSELECT": 0, "MISCMASK": 1},
    ],
    ids=str,
)
def test_one_bit_of_the_mask_is_enough(sig: dict[str, int]) -> None:
    assert execute(attempt(sig=sig)) == SGX_INVALID_ATTRIBUTE


def test_a_pending_event_gives_code_128_and_the_repeated_einit_succeeds() -> None:
    a = attempt(event=True)
    for _ in range(3):
        assert execute(a) == SGX_UNMASKED_EVENT
        assert a.lp.regs[RAX] == 128
        assert a.lp.regs[RFLAGS] & RFLAGS_STATUS == RFLAGS_ZF
    assert not a.lp.processor.secs[0].initialised
    a.lp.pending_event = False
    assert execute(a) == 0


def test_after_a_refusal_the_enclave_can_still_be_built_and_opened() -> None:
    bare = Bare(16)
    enclave = bare.enclave(init=False)
    early = bare.sigstruct(enclave.secs)
    enclave.add(enclave.heap, b"one more", measure=True)
    assert bare.einit(enclave.secs, early) == SGX_INVALID_MEASUREMENT
    enclave.add(enclave.heap + 0x1000, b"and another", measure=True)
    assert bare.einit(enclave.secs, bare.sigstruct(enclave.secs)) == 0
    enclave.enter()
    assert bare.lp.load(enclave.heap, 8) == b"one more"


def test_an_initialised_enclave_takes_no_more_pages() -> None:
    bare = Bare(16)
    enclave = bare.enclave()
    with pytest.raises(Fault, match=r"EADD\.21"):
        enclave.add(enclave.heap)
    with pytest.raises(Fault, match=r"EEXTEND\.10"):
        bare.eextend(enclave.secs, enclave.pages[enclave.data[0]])


def signed_with(sig: SIGSTRUCT, key: RSAPrivateKey) -> SIGSTRUCT:
    """A SIGSTRUCT signed with whatever key, Q1 and Q2 from their definition."""
    raw, n = sig.pack(), key.public_key().public_numbers().n
    signature = key.sign(raw[:128] + raw[900:1028], PKCS1v15(), SHA256())
    s = int.from_bytes(signature, "big")
    q1 = s**2 // n
    q2 = (s**3 - q1 * s * n) // n
    numbers = {"MODULUS": n, "SIGNATURE": s, "Q1": q1, "Q2": q2}
    return sig.replace(**{name: v.to_bytes(384, "little") for name, v in numbers.items()})


@pytest.mark.parametrize(("name", "expected"), [("launch-key.pem", 0), ("short-key.pem", 8)])
def test_a_modulus_of_less_than_3072_bits_is_refused(name: str, expected: int) -> None:
    # The signature is right in both cases; the second modulus has 3071 bits.
    bare = Bare(16)
    enclave = bare.enclave(init=False)
    sig = signed_with(bare.sigstruct(enclave.secs), key_of(name))
    assert bare.einit(enclave.secs, sig) == expected


def test_sign_refuses_a_key_that_sgx_does_not_know() -> None:
    sig = sigstruct_of(attempt())
    with pytest.raises(ValueError, match=r"^RSA key: 3071 bits, exponent 3; SGX needs 3072 bits"):
        sign(sig, key_of("short-key.pem"))
    assert signed_with(sig, launch_key()) == sign(sig, launch_key())


# Launch control


def test_the_signer_in_the_hash_msrs_needs_no_token() -> None:
    a = attempt(lehash="reset")
    signer = sha256(sigstruct_of(a).MODULUS).digest()
    assert execute(a) == SGX_INVALID_EINITTOKEN
    for number in range(4):
        # All four must be right.
        assert execute(a) == SGX_INVALID_EINITTOKEN
        a.lp.wrmsr(0x8C + number, int.from_bytes(signer[8 * number :][:8], "little"))
    assert execute(a) == 0


def test_the_hash_msrs_belong_to_one_logical_processor() -> None:
    a = attempt()
    other = a.lp.processor.lps[1]
    assert isinstance(other, LogicalProcessor)
    assert execute(a._replace(lp=other)) == SGX_INVALID_EINITTOKEN
    assert execute(a) == 0


def test_the_hash_is_compared_even_where_another_signer_signed_validly() -> None:
    bare = Bare(16)
    enclave = bare.enclave(init=False)
    ours = bare.sigstruct(enclave.secs)
    theirs = sign(ours, launch_key())
    set_launch_hash(bare, sha256(ours.MODULUS).digest())
    bare.lp.system_write(TOKEN_AT, bytes(304))
    at = bare.source(theirs.pack())
    assert bare.lp.encls(EINIT, at, bare.address(enclave.secs), TOKEN_AT) == SGX_INVALID_EINITTOKEN


@pytest.mark.parametrize("junk", [{4: 1}, {0: 2}, {191: 1, 303: 1}])
def test_a_token_without_valid_is_not_looked_at(junk: dict[int, int]) -> None:
    assert execute(attempt(flip=junk)) == 0


def test_einittokenkey_is_only_for_the_signer_in_the_hash_msrs() -> None:
    attributes = MODE64BIT | EINITTOKENKEY
    assert execute(attempt(attributes=attributes)) == 0
    assert execute(attempt(attributes=attributes, lehash="reset")) == SGX_INVALID_ATTRIBUTE


@pytest.mark.parametrize(
    ("attributes", "launch_debug"),
    [(MODE64BIT, False), (MODE64BIT | DEBUG, False), (MODE64BIT | DEBUG, True)],
)
def test_a_token_opens_an_enclave_of_another_signer(attributes: int, launch_debug: bool) -> None:
    a = attempt(attributes=attributes, token={}, launch_debug=launch_debug)
    signer = sha256(sigstruct_of(a).MODULUS).digest()
    assert a.lp.lepubkeyhash != signer
    assert execute(a._replace(rdx=TOKEN_AT + 0x1000)) == SGX_INVALID_EINITTOKEN  # no token there
    assert execute(a) == 0
    assert signer == a.lp.processor.secs[0].MRSIGNER


@pytest.mark.parametrize(
    ("masks", "masked"),
    [
        # INIT and DEBUG are part of every key, whatever the request masks away.
        ({"ATTRIBUTEMASK": 0}, {"MASKEDATTRIBUTESLE": INIT}),
        ({"ATTRIBUTEMASK": MODE64BIT}, {"MASKEDATTRIBUTESLE": INIT | MODE64BIT}),
        ({"XFRMMASK": 0b10}, {"MASKEDXFRMLE": 0b10}),
        ({"MISCMASK": 0}, {"MASKEDMISCSELECTLE": 0}),
        ({"CPUSVN": bytes(16)}, {"CPUSVNLE": bytes(16)}),
        ({"ISVSVN": 5}, {"ISVSVNLE": 5}),
        ({"KEYID": b"\x77" * 32}, {"KEYID": b"\x77" * 32}),
    ],
    ids=str,
)
def test_a_token_says_what_its_key_was_asked_with(
    masks: dict[str, Any], masked: dict[str, Any]
) -> None:
    bare = Bare(24)
    enclave = bare.enclave(init=False)
    sig = bare.sigstruct(enclave.secs)
    launch = Launch(bare)
    launch.request = launch.request.replace(**masks)
    bare.lp.system_write(TOKEN_AT, launch.token(sig, **masked))
    rbx, rcx = bare.source(sig.pack()), bare.address(enclave.secs)
    assert bare.lp.encls(EINIT, rbx, rcx, TOKEN_AT) == 0


def test_a_token_of_another_machine_is_refused() -> None:
    here, there = Bare(24), Bare(24, seed=1)
    sig = here.sigstruct(here.enclave(init=False).secs)
    foreign = Launch(there).token(sig)
    own = Launch(here).token(sig)
    here.lp.system_write(SIGSTRUCT_AT, sig.pack())
    for token, expected in ((foreign, SGX_INVALID_EINITTOKEN), (own, 0)):
        here.lp.system_write(TOKEN_AT, token)
        assert here.lp.encls(EINIT, SIGSTRUCT_AT, here.address(0), TOKEN_AT) == expected


def test_a_token_can_be_used_again_for_the_same_enclave() -> None:
    # It names a measurement, not an instance.
    bare = Bare(32)
    first, second = (bare.enclave(base=BASE + (n << 32), init=False) for n in (0, 1))
    sig = bare.sigstruct(first.secs)
    bare.lp.system_write(TOKEN_AT, Launch(bare).token(sig))
    bare.lp.system_write(SIGSTRUCT_AT, sig.pack())
    for enclave in (first, second):
        assert bare.lp.encls(EINIT, SIGSTRUCT_AT, bare.address(enclave.secs), TOKEN_AT) == 0
