"""RSA-3072 of SIGSTRUCT: the signature itself, and the quotients Q1 and Q2. SDM 3D, EINIT."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from softsgx.spec.secs import PADDING_CONSTANT
from softsgx.spec.sigstruct import SIGSTRUCT_EXPONENT, SIGSTRUCT_KEY_BITS, SIGSTRUCT_SIGNED

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from softsgx.spec.sigstruct import SIGSTRUCT


def signed_message(raw: bytes) -> bytes:
    """The bytes of an encoded SIGSTRUCT that its signature covers."""
    return b"".join(raw[start:end] for start, end in SIGSTRUCT_SIGNED)


def quotients(modulus: int, signature: int) -> tuple[int, int]:
    """Q1 = floor(S^2 / M) and Q2 = floor((S^3 - Q1*S*M) / M)."""
    q1 = signature * signature // modulus
    q2 = (signature**3 - q1 * signature * modulus) // modulus
    return q1, q2


def sign(sig: SIGSTRUCT, key: RSAPrivateKey) -> SIGSTRUCT:
    """`sig` with MODULUS, SIGNATURE, Q1 and Q2 made by an RSA-3072 key with exponent 3."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    public = key.public_key().public_numbers()
    if public.n.bit_length() != SIGSTRUCT_KEY_BITS or public.e != SIGSTRUCT_EXPONENT:
        bits = public.n.bit_length()
        raise ValueError(f"RSA key: {bits} bits, exponent {public.e}; SGX needs 3072 bits and 3")
    signature = key.sign(signed_message(sig.pack()), PKCS1v15(), SHA256())
    q1, q2 = quotients(public.n, int.from_bytes(signature, "big"))
    return sig.replace(
        MODULUS=public.n.to_bytes(384, "little"),
        EXPONENT=SIGSTRUCT_EXPONENT,
        SIGNATURE=signature[::-1],
        Q1=q1.to_bytes(384, "little"),
        Q2=q2.to_bytes(384, "little"),
    )


@cache
def development_key() -> RSAPrivateKey:
    """The key that ships with softsgx, for enclaves that exist only in tests. Everyone has it."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = files("softsgx.cpu").joinpath("development-key.pem").read_bytes()
    # Its primes are ours. To check them would take half of the start of a short command.
    key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, RSAPrivateKey)
    return key


def verified_padding(sig: SIGSTRUCT, raw: bytes) -> bytes | None:
    """The 352 padding bytes that the signature decodes to; None if signature, Q1 or Q2 is wrong."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
    from cryptography.hazmat.primitives.hashes import SHA256

    modulus = int.from_bytes(sig.MODULUS, "little")
    signature = int.from_bytes(sig.SIGNATURE, "little")
    if modulus.bit_length() != SIGSTRUCT_KEY_BITS or not modulus & 1 or signature >= modulus:
        return None
    given = (int.from_bytes(sig.Q1, "little"), int.from_bytes(sig.Q2, "little"))
    if given != quotients(modulus, signature):
        return None
    try:
        key = RSAPublicNumbers(SIGSTRUCT_EXPONENT, modulus).public_key()
        key.verify(sig.SIGNATURE[::-1], signed_message(raw), PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return None
    # Verified, so the block is the one PKCS#1 v1.5 block there is: its padding is the constant.
    return PADDING_CONSTANT
