"""A launch enclave, and EINIT with everything it can be given.

The token is made as a launch enclave makes it: by code inside an enclave with
ATTRIBUTES.EINITTOKENKEY that executes EGETKEY and computes a CMAC. Nothing of the model's own
derivation is used here, so EGETKEY and EINIT must agree on the key by themselves.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from softsgx.cpu import Bare, Readings
from softsgx.cpu.readings import DEFAULT_READINGS
from softsgx.cpu.signature import sign
from softsgx.mem.pagetable import direct
from softsgx.spec.bits import MASK64
from softsgx.spec.keys import EINITTOKEN_KEY, KEYREQUEST
from softsgx.spec.leaves import EGETKEY, EINIT
from softsgx.spec.msr import IA32_SGXLEPUBKEYHASH
from softsgx.spec.sigstruct import EINITTOKEN, SIGSTRUCT
from tests.cpu.cases import epc
from tests.cpu.table import Attempt, hold

INIT, DEBUG, MODE64BIT, EINITTOKENKEY = 1, 2, 4, 0x20
SIGSTRUCT_AT: Final = direct(0x100_0000)
TOKEN_AT: Final = direct(0x100_2000)
BASE, LAUNCH_BASE = 0x7F00_0000_0000, 0x7E00_0000_0000


@cache
def key_of(name: str) -> RSAPrivateKey:
    """An RSA key with exponent 3 from the file of that name."""
    key = load_pem_private_key(Path(__file__).with_name(name).read_bytes(), password=None)
    assert isinstance(key, RSAPrivateKey)
    return key


def launch_key() -> RSAPrivateKey:
    """A second signer, besides the development key."""
    return key_of("launch-key.pem")


def set_launch_hash(bare: Bare, digest: bytes) -> None:
    """IA32_SGXLEPUBKEYHASH := digest, least significant quadword first."""
    for number, msr in enumerate(IA32_SGXLEPUBKEYHASH):
        bare.lp.wrmsr(msr, int.from_bytes(digest[8 * number : 8 * number + 8], "little"))


class Launch:
    """A launch enclave, signed by `launch_key`; its signer is in IA32_SGXLEPUBKEYHASH afterwards.

    The key request masks nothing away, so the key is bound to all of the enclave's attributes.
    """

    def __init__(self, bare: Bare, *, debug: bool = False) -> None:
        self.bare = bare
        self.attributes = MODE64BIT | EINITTOKENKEY | (DEBUG if debug else 0)
        self.enclave = bare.enclave(base=LAUNCH_BASE, attributes=self.attributes, init=False)
        unsigned = bare.sigstruct(self.enclave.secs, ISVPRODID=0x20, ISVSVN=5)
        sig = sign(unsigned, launch_key())
        self.mrsigner = sha256(sig.MODULUS).digest()
        assert bare.einit(self.enclave.secs, sig) == 0
        self.cpusvn = bare.processor.part.cpusvn
        self.request = KEYREQUEST(
            KEYNAME=EINITTOKEN_KEY,
            ISVSVN=3,
            CPUSVN=self.cpusvn,
            ATTRIBUTEMASK=MASK64,
            XFRMMASK=MASK64,
            MISCMASK=0xFFFFFFFF,
            KEYID=bytes(range(32)),
        )

    def key(self) -> bytes:
        """The EINITTOKEN key, asked for from inside."""
        lp, scratch = self.bare.lp, self.enclave.scratch
        self.enclave.enter()
        lp.store(scratch, self.request.pack())
        assert lp.enclu(EGETKEY, scratch, scratch + 1024) == 0
        key = lp.load(scratch + 1024, 16)
        self.enclave.exit()
        return key

    def token(self, sig: SIGSTRUCT, *, poke: dict[int, int] | None = None, **fields: Any) -> bytes:
        """A token for the enclave `sig` describes; `fields` and `poke` go in before the MAC."""
        values: dict[str, Any] = {
            "VALID": 1,
            "ATTRIBUTES": sig.ATTRIBUTES,
            "XFRM": sig.XFRM,
            "MRENCLAVE": sig.ENCLAVEHASH,
            "MRSIGNER": sha256(sig.MODULUS).digest(),
            "CPUSVNLE": self.request.CPUSVN,
            "ISVPRODIDLE": 0x20,
            "ISVSVNLE": self.request.ISVSVN,
            "MASKEDMISCSELECTLE": 1,
            "MASKEDATTRIBUTESLE": self.attributes | INIT,
            "MASKEDXFRMLE": 0b11,
            "KEYID": self.request.KEYID,
        }
        raw = bytearray(EINITTOKEN(**values | fields).pack())
        for at, value in (poke or {}).items():
            raw[at] = value
        mac = CMAC(AES128(self.key()))
        mac.update(bytes(raw[:192]))
        raw[288:304] = mac.finalize()
        return bytes(raw)


def attempt(
    *,
    rbx_off: int = 0,
    rcx: int = 0,
    rcx_off: int = 0,
    rdx_off: int = 0,
    attributes: int = MODE64BIT | DEBUG,
    sig: dict[str, Any] | None = None,
    poke: dict[int, int] | None = None,
    invert: dict[int, int] | None = None,
    event: bool = False,
    busy: dict[str, int] | None = None,
    init: bool = False,
    lehash: str = "",
    token: dict[str, Any] | None = None,
    flip: dict[int, int] | None = None,
    launch_debug: bool = False,
    readings: Readings = DEFAULT_READINGS,
) -> Attempt:
    """EINIT of the enclave in EPC pages 0 to 5, signed with the development key.

    `sig` sets SIGSTRUCT fields before it is signed; afterwards `poke` sets bytes and `invert` bits
    of bytes. With a `token` the
    hash MSRs name the signer of a launch enclave that makes it; without one they name the signer of
    the enclave. `flip` inverts bits of the token's bytes after the MAC. `lehash="reset"` puts the
    reset value back.
    """
    bare = Bare(24, readings=readings)
    reset = bare.lp.lepubkeyhash
    enclave = bare.enclave(attributes=attributes, init=False)
    assert (enclave.secs, enclave.base) == (0, BASE)
    good = bare.sigstruct(0)
    signed = bare.sigstruct(0, **sig or {})
    if init:
        assert bare.einit(0, good) == 0
    set_launch_hash(bare, sha256(good.MODULUS).digest())
    raw_token = bytes(304)
    if token is not None:
        raw_token = Launch(bare, debug=launch_debug).token(good, **token)
    if lehash == "reset":
        set_launch_hash(bare, reset)
    raw = bytearray(signed.pack())
    for at, value in (poke or {}).items():
        raw[at] = value
    for at, bits in (invert or {}).items():
        raw[at] ^= bits
    flipped = bytearray(raw_token)
    for at, bits in (flip or {}).items():
        flipped[at] ^= bits
    bare.lp.system_write(SIGSTRUCT_AT, bytes(raw))
    bare.lp.system_write(TOKEN_AT, bytes(flipped))
    bare.lp.pending_event = event
    for name, page in (busy or {}).items():
        hold(bare, page, {"SECS": 0, "B": 2}[name])
    rbx, rdx = SIGSTRUCT_AT + rbx_off, TOKEN_AT + rdx_off
    return Attempt(bare.lp, "encls", EINIT, rbx, (rcx or epc(0)) + rcx_off, rdx)
