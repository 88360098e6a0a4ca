"""Keys of the machine and what they are derived from.

SDM 3D, 39.4.3 "Keys", EGETKEY, EREPORT, EINIT.

Every secret follows from the machine's seed, so runs are repeatable; two seeds are two machines. A
derived key is a CMAC, under the device key, of the derivation material of the manual's table.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING

from softsgx.spec.attributes import ATTR_DEBUG, ATTR_INIT
from softsgx.spec.bits import MASK32
from softsgx.spec.keys import (
    EINITTOKEN_KEY,
    POLICY_CONFIGID,
    POLICY_ISVEXTPRODID,
    POLICY_ISVFAMILYID,
    POLICY_MRENCLAVE,
    POLICY_MRSIGNER,
    POLICY_NOISVPRODID,
    PROVISION_KEY,
    PROVISION_SEAL_KEY,
    REPORT_KEY,
    TARGETINFO,
)
from softsgx.spec.secs import PADDING_CONSTANT
from softsgx.spec.structure import Structure, raw, u8, u16, u32, u64

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from softsgx.cpu.secs import Secs
    from softsgx.spec.keys import KEYREQUEST
    from softsgx.spec.sigstruct import EINITTOKEN

_ALWAYS_IN_ATTRIBUTES = ATTR_INIT | ATTR_DEBUG  # part of every key


class KeyDependencies(Structure, size=824):
    """The derivation material, the manual's KEYDEPENDENCIES; its offsets are ours."""

    KEYNAME: int = u16(0)
    ISVPRODID: int = u16(2)
    ISVSVN: int = u16(4)
    CONFIGSVN: int = u16(6)
    ISVFAMILYID: bytes = raw(8, 16)
    ISVEXTPRODID: bytes = raw(24, 16)
    OWNEREPOCH: bytes = raw(40, 16)
    ATTRIBUTES: int = u64(56)
    XFRM: int = u64(64)
    ATTRIBUTEMASK: int = u64(72)
    XFRMMASK: int = u64(80)
    MRENCLAVE: bytes = raw(88, 32)
    MRSIGNER: bytes = raw(120, 32)
    KEYID: bytes = raw(152, 32)
    SEAL_FUSES: bytes = raw(184, 16)
    CPUSVN: bytes = raw(200, 16)
    PADDING: bytes = raw(216, 352)
    MISCSELECT: int = u32(568)
    MISCMASK: int = u32(572)
    KEYPOLICY: int = u16(576)
    CET_ATTRIBUTES: int = u8(578)
    CET_ATTRIBUTES_MASK: int = u8(579)
    CONFIGID: bytes = raw(584, 64)


class Keys:
    """The secrets of one machine, from its seed; made when first used."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def secret(self, name: str, size: int = 16) -> bytes:
        """The named secret of this machine, at most 32 bytes."""
        return sha256(f"softsgx machine {self.seed}: {name}".encode()).digest()[:size]

    @cached_property
    def paging(self) -> AESGCM:
        """The key of EWB and ELD, fresh at every reset of a real processor."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self.secret("paging key"))

    @cached_property
    def invalid_tag(self) -> type[Exception]:
        """What decryption under `paging` raises if the MAC differs."""
        from cryptography.exceptions import InvalidTag

        return InvalidTag

    @cached_property
    def report_keyid(self) -> bytes:
        """KEYID that EREPORT puts into every report of this boot."""
        return self.secret("report key id", 32)

    @cached_property
    def owner_epoch(self) -> bytes:
        """OWNEREPOCH, set by the owner of the machine."""
        return self.secret("owner epoch")

    @cached_property
    def seal_fuses(self) -> bytes:
        """SEAL_FUSES, burnt into the part."""
        return self.secret("seal fuses")

    @cached_property
    def _device(self) -> bytes:
        return self.secret("device key")

    def derive(self, material: KeyDependencies) -> bytes:
        """The 16-byte key for the given material."""
        return cmac(self._device, material.pack())


def cmac(key: bytes, data: bytes) -> bytes:
    """AES-128-CMAC."""
    from cryptography.hazmat.primitives.ciphers.algorithms import AES128
    from cryptography.hazmat.primitives.cmac import CMAC

    mac = CMAC(AES128(key))
    mac.update(data)
    return mac.finalize()


def requested_material(
    keys: Keys, secs: Secs, request: KEYREQUEST, cpusvn: bytes
) -> KeyDependencies:
    """What EGETKEY derives the requested key from: one column of the manual's table per KEYNAME."""
    name, policy = request.KEYNAME, request.KEYPOLICY
    if name == REPORT_KEY:
        own = TARGETINFO(
            MEASUREMENT=secs.MRENCLAVE,
            ATTRIBUTES=secs.ATTRIBUTES,
            XFRM=secs.XFRM,
            CET_ATTRIBUTES=secs.CET_ATTRIBUTES,
            CONFIGSVN=secs.CONFIGSVN,
            MISCSELECT=secs.MISCSELECT,
            CONFIGID=secs.CONFIGID,
        )
        return report_material(keys, own, request.KEYID, cpusvn)
    provision = name in (PROVISION_KEY, PROVISION_SEAL_KEY)
    by_policy = name not in (EINITTOKEN_KEY, PROVISION_KEY)
    seals = by_policy and not provision  # SEAL only: MRENCLAVE and MRSIGNER by policy

    def chosen(bit: int, value: bytes) -> bytes:
        return value if by_policy and policy & bit else bytes(len(value))

    no_prodid = by_policy and policy & POLICY_NOISVPRODID
    masks = name != EINITTOKEN_KEY
    mrenclave = secs.MRENCLAVE if seals and policy & POLICY_MRENCLAVE else bytes(32)
    mrsigner = bytes(32) if seals and not policy & POLICY_MRSIGNER else secs.MRSIGNER
    return KeyDependencies(
        KEYNAME=name,
        ISVFAMILYID=chosen(POLICY_ISVFAMILYID, secs.ISVFAMILYID),
        ISVEXTPRODID=chosen(POLICY_ISVEXTPRODID, secs.ISVEXTPRODID),
        ISVPRODID=0 if no_prodid else secs.ISVPRODID,
        ISVSVN=request.ISVSVN,
        CONFIGSVN=request.CONFIGSVN if by_policy and policy & POLICY_CONFIGID else 0,
        CONFIGID=chosen(POLICY_CONFIGID, secs.CONFIGID),
        OWNEREPOCH=bytes(16) if provision else keys.owner_epoch,
        ATTRIBUTES=(request.ATTRIBUTEMASK | _ALWAYS_IN_ATTRIBUTES) & secs.ATTRIBUTES,
        XFRM=request.XFRMMASK & secs.XFRM,
        ATTRIBUTEMASK=request.ATTRIBUTEMASK if masks else 0,
        XFRMMASK=request.XFRMMASK if masks else 0,
        MRENCLAVE=mrenclave,
        MRSIGNER=mrsigner,
        KEYID=bytes(32) if provision else request.KEYID,
        SEAL_FUSES=bytes(16) if name == PROVISION_KEY else keys.seal_fuses,
        CPUSVN=request.CPUSVN,
        PADDING=secs.PADDING,
        MISCSELECT=request.MISCMASK & secs.MISCSELECT,
        MISCMASK=~request.MISCMASK & MASK32 if masks else 0,
        KEYPOLICY=policy if by_policy else 0,
        CET_ATTRIBUTES=request.CET_ATTRIBUTES_MASK & secs.CET_ATTRIBUTES,
        CET_ATTRIBUTES_MASK=request.CET_ATTRIBUTES_MASK if seals else 0,
    )


def report_material(keys: Keys, target: TARGETINFO, keyid: bytes, cpusvn: bytes) -> KeyDependencies:
    """The material of the REPORT key of `target`: what EREPORT uses and EGETKEY repeats."""
    return KeyDependencies(
        KEYNAME=REPORT_KEY,
        OWNEREPOCH=keys.owner_epoch,
        ATTRIBUTES=target.ATTRIBUTES,
        XFRM=target.XFRM,
        MRENCLAVE=target.MEASUREMENT,
        KEYID=keyid,
        SEAL_FUSES=keys.seal_fuses,
        CPUSVN=cpusvn,
        PADDING=PADDING_CONSTANT,
        MISCSELECT=target.MISCSELECT,
        CET_ATTRIBUTES=target.CET_ATTRIBUTES,
        CONFIGID=target.CONFIGID,
        CONFIGSVN=target.CONFIGSVN,
    )


def token_material(keys: Keys, token: EINITTOKEN, mrsigner: bytes) -> KeyDependencies:
    """The material of the EINITTOKEN key that EINIT verifies a token with.

    `mrsigner` is that of the launch enclave: IA32_SGXLEPUBKEYHASH.
    """
    return KeyDependencies(
        KEYNAME=EINITTOKEN_KEY,
        ISVPRODID=token.ISVPRODIDLE,
        ISVSVN=token.ISVSVNLE,
        OWNEREPOCH=keys.owner_epoch,
        ATTRIBUTES=token.MASKEDATTRIBUTESLE,
        XFRM=token.MASKEDXFRMLE,
        MRSIGNER=mrsigner,
        KEYID=token.KEYID,
        SEAL_FUSES=keys.seal_fuses,
        CPUSVN=token.CPUSVNLE,
        PADDING=PADDING_CONSTANT,
        MISCSELECT=token.MASKEDMISCSELECTLE,
        CET_ATTRIBUTES=token.CET_MASKED_ATTRIBUTES_LE,
    )


def cpusvn_beyond(requested: bytes, current: bytes) -> bool:
    """Whether a CPUSVN is beyond the current one: any of its 16 components is larger."""
    return any(r > c for r, c in zip(requested, current, strict=True))
