"""SIGSTRUCT: made for an image, signed with a user's key, verified as EINIT does.

SDM 3D, 38.13 "Enclave Signature Structure (SIGSTRUCT)".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from softsgx.cpu.signature import quotients, verified_padding
from softsgx.cpu.signature import sign as sign_sigstruct
from softsgx.image.errors import Finding, ImageError
from softsgx.spec.attributes import ATTR_CET, ATTR_KSS
from softsgx.spec.bits import MASK32, MASK64
from softsgx.spec.secs import PADDING_CONSTANT
from softsgx.spec.sigstruct import (
    SIGSTRUCT,
    SIGSTRUCT_EXPONENT,
    SIGSTRUCT_HEADER,
    SIGSTRUCT_HEADER2,
    SIGSTRUCT_KEY_BITS,
    SIGSTRUCT_VENDORS,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from softsgx.image.image import EnclaveImage

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_OFFSETS: Final = {field.name: field.offset for field in SIGSTRUCT.FIELDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOptions:
    """What the signer decides. Fields of SIGSTRUCT, except that `date` is "YYYY-MM-DD" or empty.

    Where a mask has a bit set, the enclave must have that bit as the image has it; by default the
    signature is good for exactly the ATTRIBUTES, XFRM and MISCSELECT of the image. `cetmask` is 0,
    because processors without CET reserve the field. Without a date DATE is 0, so that signing
    twice gives the same bytes.
    """

    vendor: int = 0
    date: str = ""
    swdefined: int = 0
    attributemask: int = MASK64
    xfrmmask: int = MASK64
    miscmask: int = MASK32
    cetmask: int = 0
    isvprodid: int = 0
    isvsvn: int = 0
    isvfamilyid: bytes = bytes(16)
    isvextprodid: bytes = bytes(16)


def create(image: EnclaveImage, options: SignOptions | None = None) -> SIGSTRUCT:
    """The SIGSTRUCT of an image, not yet signed. Raises ImageError."""
    options = options or SignOptions()
    if options.vendor not in SIGSTRUCT_VENDORS:
        raise ImageError("VENDOR", f"{options.vendor:#x} is neither 0 nor 0x8086")
    if any(options.isvfamilyid) and not image.attributes & ATTR_KSS:
        raise ImageError("ISVFAMILYID", "needs ATTRIBUTES.KSS (bit 7)")
    cet = image.cet_attributes or options.cetmask
    if cet and not image.attributes & ATTR_CET:
        raise ImageError("CET_ATTRIBUTES", "needs ATTRIBUTES.CET (bit 6)")
    return SIGSTRUCT(
        HEADER=SIGSTRUCT_HEADER,
        VENDOR=options.vendor,
        DATE=_bcd(options.date),
        HEADER2=SIGSTRUCT_HEADER2,
        SWDEFINED=options.swdefined,
        EXPONENT=SIGSTRUCT_EXPONENT,
        MISCSELECT=image.miscselect,
        MISCMASK=options.miscmask,
        CET_ATTRIBUTES=image.cet_attributes,
        CET_ATTRIBUTES_MASK=options.cetmask,
        ISVFAMILYID=options.isvfamilyid,
        ATTRIBUTES=image.attributes,
        XFRM=image.xfrm,
        ATTRIBUTEMASK=options.attributemask,
        XFRMMASK=options.xfrmmask,
        ENCLAVEHASH=image.mrenclave(),
        ISVEXTPRODID=options.isvextprodid,
        ISVPRODID=options.isvprodid,
        ISVSVN=options.isvsvn,
    )


def sign(image: EnclaveImage, key: RSAPrivateKey, options: SignOptions | None = None) -> SIGSTRUCT:
    """The signed SIGSTRUCT of an image; `key` as from `load_key`. Raises ImageError."""
    return sign_sigstruct(create(image, options), key)


def _bcd(text: str) -> int:
    """DATE: the decimal digits of the date, read as hexadecimal ones."""
    if not text:
        return 0
    try:
        day = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        raise ImageError("DATE", f"{text} is not a date of the form YYYY-MM-DD")
    return int(text.replace("-", ""), 16)


def load_key(pem: bytes) -> RSAPrivateKey:
    """An RSA-3072 private key with exponent 3, from PEM without a password. Raises ImageError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if b"PUBLIC KEY" in pem:
        raise ImageError("key", "a public key: signing needs the private one")
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ImageError("key", "encrypted: decrypt it first (openssl rsa -in KEY)") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ImageError("key", "no private key in PEM format") from None
    if not isinstance(key, RSAPrivateKey):
        raise ImageError("key", "not an RSA key: SGX needs RSA-3072 with exponent 3")
    exponent = key.public_key().public_numbers().e
    if key.key_size != SIGSTRUCT_KEY_BITS or exponent != SIGSTRUCT_EXPONENT:
        why = f"RSA-{key.key_size} with exponent {exponent}: SGX needs RSA-3072 with exponent 3"
        raise ImageError("key", why)
    return key


def parse(data: bytes) -> SIGSTRUCT:
    """A SIGSTRUCT from its 1808 bytes; nothing but the length is checked. Raises ImageError."""
    if len(data) != SIGSTRUCT.SIZE:
        raise ImageError("SIGSTRUCT", f"{len(data)} bytes, {SIGSTRUCT.SIZE} are needed")
    return SIGSTRUCT.unpack(data)


def mrsigner(sig: SIGSTRUCT) -> bytes:
    """The 32 bytes of MRSIGNER: SHA-256 of the modulus as stored."""
    return sha256(sig.MODULUS).digest()


def verify(data: bytes) -> tuple[Finding, ...]:
    """What EINIT would refuse in these 1808 bytes, whatever the enclave; empty if it is good."""
    # CET fields are accepted if the enclave needs a processor with CET anyway.
    cet = bool(parse(data).ATTRIBUTES & ATTR_CET)
    return (*verify_fields(data, cet=cet), *verify_signature(data))


def verify_fields(data: bytes, *, cet: bool) -> list[Finding]:
    """The fields that must have one value, and the reserved bytes; `cet`: the processor has CET."""
    sig = parse(data)
    findings = []
    for name, wanted in _fixed(cet).items():
        value = getattr(sig, name)
        if value not in wanted:
            why = f"{_text(value)} is {_no_other(wanted)}"
            if name.startswith("CET"):
                why += ", though reserved on processors without CET"
            findings.append(Finding(name, _OFFSETS[name], why))
    for start, end in SIGSTRUCT.RESERVED:
        offset = next((at for at in range(start, end) if data[at]), -1)
        if offset >= 0:
            findings.append(Finding("reserved bytes", offset, f"{data[offset]:#x} is not 0"))
    return findings


def with_right_fields(data: bytes, *, cet: bool) -> bytes:
    """The SIGSTRUCT with the findings of `verify_fields` corrected; the signature may fit that."""
    sig = parse(data)
    wrong = {n: wanted[0] for n, wanted in _fixed(cet).items() if getattr(sig, n) not in wanted}
    raw = bytearray(sig.replace(**wrong).pack())
    for start, end in SIGSTRUCT.RESERVED:
        raw[start:end] = bytes(end - start)
    return bytes(raw)


def _fixed(cet: bool) -> dict[str, tuple[bytes, ...] | tuple[int, ...]]:
    """Field -> the values that it may have."""
    return {
        "HEADER": (SIGSTRUCT_HEADER,),
        "VENDOR": SIGSTRUCT_VENDORS,
        "HEADER2": (SIGSTRUCT_HEADER2,),
        "EXPONENT": (SIGSTRUCT_EXPONENT,),
        **({} if cet else {"CET_ATTRIBUTES": (0,), "CET_ATTRIBUTES_MASK": (0,)}),
    }


def _text(value: bytes | int) -> str:
    return value.hex() if isinstance(value, bytes) else f"{value:#x}"


def _no_other(wanted: tuple[bytes, ...] | tuple[int, ...]) -> str:
    if len(wanted) > 1:
        return "neither 0 nor 0x8086"
    return f"not {_text(wanted[0]) if isinstance(wanted[0], bytes) else wanted[0]}"


def verify_signature(data: bytes) -> list[Finding]:
    """Modulus, signature and both quotients, each by itself."""
    sig = parse(data)
    modulus = int.from_bytes(sig.MODULUS, "little")
    signature = int.from_bytes(sig.SIGNATURE, "little")
    if modulus.bit_length() != SIGSTRUCT_KEY_BITS or not modulus & 1:
        why = "even" if modulus.bit_length() == SIGSTRUCT_KEY_BITS else "too small"
        return [Finding("MODULUS", _OFFSETS["MODULUS"], f"not a modulus of RSA-3072: {why}")]
    findings = []
    q1, q2 = quotients(modulus, signature)
    # `verified_padding` judges all three at once; given right quotients, the signature alone.
    right = {"Q1": q1, "Q2": q2}
    if signature >= modulus:
        findings.append(Finding("SIGNATURE", _OFFSETS["SIGNATURE"], "not less than MODULUS"))
    else:
        fixed = sig.replace(**{name: q.to_bytes(384, "little") for name, q in right.items()})
        if verified_padding(fixed, data) is None:
            why = f"does not verify with MODULUS: {_signed(modulus, signature)}"
            findings.append(Finding("SIGNATURE", _OFFSETS["SIGNATURE"], why))
    for name, formula in (("Q1", "S^2 / M"), ("Q2", "(S^3 - Q1*S*M) / M")):
        if int.from_bytes(getattr(sig, name), "little") != right[name]:
            findings.append(Finding(name, _OFFSETS[name], f"not the floor of {formula}"))
    return findings


def _signed(modulus: int, signature: int) -> str:
    """Why a signature does not verify: other contents were signed, or by another key."""
    block = pow(signature, SIGSTRUCT_EXPONENT, modulus).to_bytes(384, "big")
    if block.startswith(PADDING_CONSTANT):
        return "bytes 0 to 127 or 900 to 1027 are not those that were signed"
    return "it was not made with that key, or is damaged"
