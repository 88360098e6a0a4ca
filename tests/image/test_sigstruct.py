"""SIGSTRUCT: fields, keys, signatures, and what EINIT and `verify` find in them."""

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib.resources import files

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from softsgx.cpu.signature import development_key
from softsgx.image import ImageError
from softsgx.image.errors import Finding
from softsgx.image.sigstruct import (
    SignOptions,
    create,
    load_key,
    mrsigner,
    parse,
    sign,
    verify,
)
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_KSS, ATTR_MODE64BIT
from softsgx.spec.sigstruct import SIGSTRUCT, SIGSTRUCT_SIGNED
from softsgx.spec.status import (
    SGX_INVALID_ATTRIBUTE,
    SGX_INVALID_MEASUREMENT,
    SGX_INVALID_SIG_STRUCT,
    SGX_INVALID_SIGNATURE,
)
from tests.image.builders import einit_bytes, load, poke, small_image

OPTIONS = SignOptions(
    vendor=0x8086,
    date="2024-02-29",
    swdefined=0x11223344,
    attributemask=0xFFFF_FFFF_FFFF_FFFD,
    xfrmmask=0x1B,
    miscmask=1,
    isvprodid=0x5566,
    isvsvn=0x7788,
    isvfamilyid=bytes(range(16)),
    isvextprodid=bytes(range(16, 32)),
)

NO_DATES = ("2023-02-29", "20240229", "2024-W09-4", "2024-2-9", "yesterday", "٢٠٢٤-٠٢-٢٩")


@cache
def signed() -> bytes:
    return sign(small_image(), development_key()).pack()


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def test_fields_are_where_the_manual_has_them() -> None:
    raw = create(small_image(attributes=ATTR_MODE64BIT | ATTR_KSS, xfrm=7, miscselect=1), OPTIONS)
    data = raw.pack()
    assert data[:44].hex() == (
        "06000000e10000000000010000000000"  # HEADER
        "86800000"  # VENDOR
        "29022420"  # DATE 2024-02-29
        "01010000600000006000000001000000"  # HEADER2
        "44332211"  # SWDEFINED
    )
    assert data[512:516] == bytes([3, 0, 0, 0])
    assert data[900:908] == bytes([1, 0, 0, 0, 1, 0, 0, 0])  # MISCSELECT, MISCMASK
    assert data[912:928] == bytes(range(16))  # ISVFAMILYID
    assert data[928:944] == bytes([0x84]) + bytes(7) + bytes([7]) + bytes(7)  # ATTRIBUTES, XFRM
    assert data[944:960] == b"\xfd" + b"\xff" * 7 + b"\x1b" + bytes(7)  # their masks
    assert data[960:992] == small_image().mrenclave()
    assert data[1008:1024] == bytes(range(16, 32))  # ISVEXTPRODID
    assert data[1024:1028].hex() == "66558877"  # ISVPRODID, ISVSVN


def test_defaults_sign_exactly_the_image() -> None:
    sig = create(small_image(xfrm=7))
    assert (sig.ATTRIBUTES, sig.XFRM, sig.MISCSELECT) == (4, 7, 0)
    assert (sig.ATTRIBUTEMASK, sig.XFRMMASK) == ((1 << 64) - 1, (1 << 64) - 1)
    assert sig.MISCMASK == (1 << 32) - 1
    assert (sig.VENDOR, sig.DATE, sig.SWDEFINED, sig.ISVPRODID, sig.ISVSVN) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SignOptions(vendor=1), "VENDOR: 0x1 is neither 0 nor 0x8086"),
        (SignOptions(isvfamilyid=b"\1" * 16), "ISVFAMILYID: needs ATTRIBUTES.KSS (bit 7)"),
        *(
            (SignOptions(date=date), f"DATE: {date} is not a date of the form YYYY-MM-DD")
            for date in NO_DATES
        ),
    ],
)
def test_create_refuses(options: SignOptions, message: str) -> None:
    with pytest.raises(ImageError) as refused:
        create(small_image(), options)
    assert str(refused.value) == message


def test_date_of_a_year_with_leading_zeros() -> None:
    assert create(small_image(), SignOptions(date="0099-12-31")).DATE == 0x00991231


def test_signature_is_rsa_over_the_two_signed_parts() -> None:
    data = signed()
    numbers = development_key().public_key().public_numbers()
    signature = int.from_bytes(data[516:900], "little")
    message = data[0:128] + data[900:1028]
    assert SIGSTRUCT_SIGNED == ((0, 128), (900, 1028))
    prefix = bytes.fromhex("3031300d060960864801650304020105000420")
    block = b"\0\1" + b"\xff" * 330 + b"\0" + prefix + sha256(message).digest()
    assert pow(signature, 3, numbers.n) == int.from_bytes(block, "big")
    assert data[128:512] == numbers.n.to_bytes(384, "little")
    q1, q2 = (int.from_bytes(data[at : at + 384], "little") for at in (1040, 1424))
    assert q1 == signature**2 // numbers.n
    assert q2 == (signature**3 - q1 * signature * numbers.n) // numbers.n


def test_signing_is_deterministic() -> None:
    assert sign(small_image(), development_key()).pack() == signed()


def test_mrsigner_is_the_hash_of_the_modulus_as_stored() -> None:
    assert mrsigner(parse(signed())) == sha256(signed()[128:512]).digest()


def test_einit_accepts_and_keeps_the_identity() -> None:
    image = small_image(attributes=ATTR_MODE64BIT | ATTR_KSS)
    sig = sign(image, development_key(), OPTIONS)
    enclave, status = load(image, sig)
    assert status == 0
    secs = enclave.bare.processor.secs[enclave.secs]
    assert image.mrenclave() == secs.MRENCLAVE
    assert mrsigner(sig) == secs.MRSIGNER
    assert (secs.ISVPRODID, secs.ISVSVN) == (0x5566, 0x7788)
    assert (bytes(range(16)), bytes(range(16, 32))) == (secs.ISVFAMILYID, secs.ISVEXTPRODID)


def test_einit_holds_the_enclave_to_the_masks() -> None:
    debug = small_image(attributes=ATTR_MODE64BIT | ATTR_DEBUG)
    strict = sign(small_image(), development_key())
    loose = sign(small_image(), development_key(), SignOptions(attributemask=~2 & (1 << 64) - 1))
    assert load(debug, strict)[1] == SGX_INVALID_ATTRIBUTE
    assert load(debug, loose)[1] == 0


def test_einit_refuses_another_enclave() -> None:
    other = small_image(ssaframesize=2)
    assert load(other, parse(signed()))[1] == SGX_INVALID_MEASUREMENT


# field: (damaged SIGSTRUCT, findings, what EINIT answers)
DAMAGED: dict[str, tuple[Callable[[bytes], bytes], list[str], int]] = {
    "HEADER": (
        lambda raw: poke(raw, 0, 7, 1),
        ["HEADER at byte 0: 07000000e10000000000010000000000", "SIGNATURE at byte 516"],
        SGX_INVALID_SIG_STRUCT,
    ),
    "VENDOR": (
        lambda raw: poke(raw, 16, 0x8087, 4),
        ["VENDOR at byte 16: 0x8087 is neither 0 nor 0x8086", "SIGNATURE at byte 516"],
        SGX_INVALID_SIG_STRUCT,
    ),
    "HEADER2": (
        lambda raw: poke(raw, 39, 1, 1),
        ["HEADER2 at byte 24: 01010000600000006000000001000001", "SIGNATURE at byte 516"],
        SGX_INVALID_SIG_STRUCT,
    ),
    "EXPONENT": (
        lambda raw: poke(raw, 512, 65537, 4),
        ["EXPONENT at byte 512: 0x10001 is not 3"],
        SGX_INVALID_SIG_STRUCT,
    ),
    "CET_ATTRIBUTES": (
        lambda raw: poke(raw, 908, 1, 1),
        [
            "CET_ATTRIBUTES at byte 908: 0x1 is not 0, though reserved on processors without CET",
            "SIGNATURE at byte 516",
        ],
        SGX_INVALID_SIG_STRUCT,
    ),
    "CET_ATTRIBUTES_MASK": (
        lambda raw: poke(raw, 909, 1, 1),
        [
            "CET_ATTRIBUTES_MASK at byte 909: 0x1 is not 0, though reserved on processors",
            "SIGNATURE at byte 516",
        ],
        SGX_INVALID_SIG_STRUCT,
    ),
    "reserved 44": (
        lambda raw: poke(raw, 44, 9, 1),
        ["reserved bytes at byte 44: 0x9 is not 0", "SIGNATURE at byte 516"],
        SGX_INVALID_SIG_STRUCT,
    ),
    "reserved 127": (
        lambda raw: poke(raw, 127, 9, 1),
        ["reserved bytes at byte 127: 0x9 is not 0", "SIGNATURE at byte 516"],
        SGX_INVALID_SIG_STRUCT,
    ),
    "reserved 911": (
        lambda raw: poke(raw, 911, 9, 1),
        ["reserved bytes at byte 911: 0x9 is not 0", "SIGNATURE at byte 516"],
        SGX_INVALID_SIG_STRUCT,
    ),
    "reserved 992": (
        lambda raw: poke(raw, 992, 9, 1),
        ["reserved bytes at byte 992: 0x9 is not 0", "SIGNATURE at byte 516"],
        SGX_INVALID_SIG_STRUCT,
    ),
    "reserved, not signed": (
        lambda raw: poke(raw, 1039, 9, 1),
        ["reserved bytes at byte 1039: 0x9 is not 0"],
        SGX_INVALID_SIG_STRUCT,
    ),
    "MODULUS small": (
        lambda raw: poke(raw, 128, 1, 384),
        ["MODULUS at byte 128: not a modulus of RSA-3072: too small"],
        SGX_INVALID_SIGNATURE,
    ),
    "MODULUS even": (
        lambda raw: poke(raw, 128, raw[128] & 0xFE, 1),
        ["MODULUS at byte 128: not a modulus of RSA-3072: even"],
        SGX_INVALID_SIGNATURE,
    ),
    "MODULUS other": (
        lambda raw: poke(raw, 129, raw[129] ^ 1, 1),
        [
            "SIGNATURE at byte 516: does not verify with MODULUS",
            "Q1 at byte 1040: not the floor of S^2 / M",
            "Q2 at byte 1424: not the floor of (S^3 - Q1*S*M) / M",
        ],
        SGX_INVALID_SIGNATURE,
    ),
    "SIGNATURE too large": (
        lambda raw: raw[:516] + raw[128:512] + raw[900:],
        ["SIGNATURE at byte 516: not less than MODULUS", "Q1 at byte 1040", "Q2 at byte 1424"],
        SGX_INVALID_SIGNATURE,
    ),
    "signed field": (
        lambda raw: poke(raw, 1026, 5, 2),
        ["SIGNATURE at byte 516: does not verify with MODULUS"],
        SGX_INVALID_SIGNATURE,
    ),
    "Q1": (
        lambda raw: poke(raw, 1040, raw[1040] ^ 1, 1),
        ["Q1 at byte 1040: not the floor of S^2 / M"],
        SGX_INVALID_SIGNATURE,
    ),
    "Q2": (
        lambda raw: poke(raw, 1807, raw[1807] ^ 0x80, 1),
        ["Q2 at byte 1424: not the floor of (S^3 - Q1*S*M) / M"],
        SGX_INVALID_SIGNATURE,
    ),
}


@pytest.mark.parametrize(("damage", "findings", "status"), DAMAGED.values(), ids=DAMAGED.keys())
def test_verify_names_the_field_and_einit_agrees(
    damage: Callable[[bytes], bytes], findings: list[str], status: int
) -> None:
    raw = damage(signed())
    found = [str(finding) for finding in verify(raw)]
    assert len(found) == len(findings)
    assert all(text.startswith(start) for text, start in zip(found, findings, strict=True)), found
    assert einit_bytes(load(small_image())[0], raw) == status


def test_verify_finds_nothing_in_a_good_one() -> None:
    assert verify(signed()) == ()


def test_finding_reads_as_a_line() -> None:
    assert str(Finding("Q1", 1040, "wrong")) == "Q1 at byte 1040: wrong"


@pytest.mark.parametrize("length", [0, 1807, 1809])
def test_parse_refuses_other_lengths(length: int) -> None:
    with pytest.raises(ImageError) as refused:
        parse(bytes(length))
    assert str(refused.value) == f"SIGSTRUCT: {length} bytes, 1808 are needed"


def test_parse_keeps_every_field() -> None:
    assert parse(signed()).pack() == signed()
    assert isinstance(parse(signed()), SIGSTRUCT)


def test_load_key_takes_an_rsa_3072_key_with_exponent_3() -> None:
    text = files("softsgx.cpu").joinpath("development-key.pem").read_bytes()
    assert load_key(text).private_numbers() == development_key().private_numbers()


@cache
def keys() -> dict[str, tuple[bytes, str]]:
    """name: (PEM, why it is refused)."""
    small = rsa.generate_private_key(3, 2048)
    public = development_key().public_key()
    need = "SGX needs RSA-3072 with exponent 3"
    return {
        "size": (pem(small), f"RSA-2048 with exponent 3: {need}"),
        "exponent": (
            pem(rsa.generate_private_key(65537, 3072)),
            f"RSA-3072 with exponent 65537: {need}",
        ),
        "not RSA": (pem(ec.generate_private_key(ec.SECP256R1())), f"not an RSA key: {need}"),
        "encrypted": (
            pem(development_key(), b"secret"),
            "encrypted: decrypt it first (openssl rsa -in KEY)",
        ),
        "public": (
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "a public key: signing needs the private one",
        ),
        "DER": (
            small.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            "no private key in PEM format",
        ),
        "empty": (b"", "no private key in PEM format"),
        "cut": (pem(small)[:400], "no private key in PEM format"),
    }


@pytest.mark.parametrize(
    "name", ["size", "exponent", "not RSA", "encrypted", "public", "DER", "empty", "cut"]
)
def test_load_key_refuses(name: str) -> None:
    text, why = keys()[name]
    with pytest.raises(ImageError) as refused:
        load_key(text)
    assert str(refused.value) == f"key: {why}"
