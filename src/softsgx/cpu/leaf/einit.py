"""EINIT, ENCLS leaf 02H: verify the signature, finish the measurement, open the enclave.

SDM 3D, EINIT.
"""

from hashlib import sha256

from softsgx.cpu import cet, measurement
from softsgx.cpu.fault import ENCLS_PFEC, GP, PF, SUCCESS, Status, refuse
from softsgx.cpu.keys import cmac, cpusvn_beyond, token_material
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.secs import Secs
from softsgx.cpu.signature import verified_padding
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_EINITTOKENKEY, ATTR_INIT, ATTR_KSS
from softsgx.spec.concurrency import BUSY_SECS, BUSY_SECS_B
from softsgx.spec.epcm import PT_MASK, SECS, VALID
from softsgx.spec.sigstruct import (
    EINITTOKEN,
    EINITTOKEN_MACED,
    EINITTOKEN_VALID,
    SIGSTRUCT,
    SIGSTRUCT_EXPONENT,
    SIGSTRUCT_HEADER,
    SIGSTRUCT_HEADER2,
    SIGSTRUCT_VENDORS,
)
from softsgx.spec.status import (
    SGX_INVALID_ATTRIBUTE,
    SGX_INVALID_CPUSVN,
    SGX_INVALID_EINITTOKEN,
    SGX_INVALID_MEASUREMENT,
    SGX_INVALID_SIG_STRUCT,
    SGX_INVALID_SIGNATURE,
    SGX_UNMASKED_EVENT,
)


def einit(lp: LogicalProcessor, rbx: int, rcx: int, rdx: int) -> Status:
    """Initialise the enclave whose SECS is at RCX: SIGSTRUCT at RBX, EINITTOKEN at RDX.

    A refusal changes nothing, so EINIT may be repeated.
    """
    if rbx & 4095:
        raise GP("EINIT.01")  # RBX (SIGSTRUCT) not 4 KiB aligned
    if rcx & 4095:
        raise GP("EINIT.02")  # RCX (SECS) not 4 KiB aligned
    if rdx & 511:
        raise GP("EINIT.03")  # RDX (EINITTOKEN) not 512-byte aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "EINIT.04", ENCLS_PFEC)  # RCX is not in the EPC
    raw = lp.system_read(rbx, SIGSTRUCT.SIZE)
    raw_token = lp.system_read(rdx, EINITTOKEN.SIZE)
    sig = SIGSTRUCT.unpack(raw)
    if (
        sig.HEADER != SIGSTRUCT_HEADER
        or sig.HEADER2 != SIGSTRUCT_HEADER2
        or sig.VENDOR not in SIGSTRUCT_VENDORS
        or sig.EXPONENT != SIGSTRUCT_EXPONENT
        or ((sig.CET_ATTRIBUTES or sig.CET_ATTRIBUTES_MASK) and not lp.processor.part.cet)
        or not SIGSTRUCT.reserved_clear(raw)
    ):
        # SIGSTRUCT: HEADER, VENDOR, HEADER2, EXPONENT or a reserved field is wrong
        return refuse("EINIT.05", SGX_INVALID_SIG_STRUCT)
    if lp.pending_event:
        return refuse("EINIT.06", SGX_UNMASKED_EVENT)  # an unmasked event is pending
    padding = verified_padding(sig, raw)
    if padding is None:
        return refuse("EINIT.07", SGX_INVALID_SIGNATURE)  # the signature, Q1 or Q2 is wrong
    if lp.busy & BUSY_SECS:
        raise GP("EINIT.08")  # another leaf uses the SECS
    processor = lp.processor
    if processor.epcm.state[page] & (VALID | PT_MASK) != VALID | SECS:
        raise PF(rcx, "EINIT.09", ENCLS_PFEC)  # RCX is no valid SECS page
    secs = processor.secs[page]
    if any(sig.ISVFAMILYID) and not secs.ATTRIBUTES & ATTR_KSS:
        return refuse("EINIT.10", SGX_INVALID_SIG_STRUCT)  # ISVFAMILYID without ATTRIBUTES.KSS
    if lp.busy & BUSY_SECS_B:
        raise GP("EINIT.11")  # the enclave is being measured or initialised by another leaf
    if secs.initialised:
        already = "EINIT.12"  # the enclave is initialised already
        as_pf = processor.readings.einit_initialised_is_pf
        raise PF(rcx, already, ENCLS_PFEC) if as_pf else GP(already)
    mrenclave = measurement.running(secs).digest()
    mrsigner = sha256(sig.MODULUS).digest()
    if mrenclave != sig.ENCLAVEHASH:
        return refuse("EINIT.13", SGX_INVALID_MEASUREMENT)  # ENCLAVEHASH is not MRENCLAVE
    if secs.ATTRIBUTES & ATTR_EINITTOKENKEY and mrsigner != lp.lepubkeyhash:
        # ATTRIBUTES.EINITTOKENKEY, yet the signer is not IA32_SGXLEPUBKEYHASH
        return refuse("EINIT.14", SGX_INVALID_ATTRIBUTE)
    if (secs.ATTRIBUTES ^ sig.ATTRIBUTES) & sig.ATTRIBUTEMASK or (
        secs.XFRM ^ sig.XFRM
    ) & sig.XFRMMASK:
        # ATTRIBUTES differ from the SIGSTRUCT under its mask
        return refuse("EINIT.15", SGX_INVALID_ATTRIBUTE)
    if (secs.MISCSELECT ^ sig.MISCSELECT) & sig.MISCMASK:
        # MISCSELECT differs from the SIGSTRUCT under its mask
        return refuse("EINIT.16", SGX_INVALID_ATTRIBUTE)
    refusal = cet.check_einit(secs, sig) if processor.part.cet else None
    if refusal is not None:
        return refusal
    refusal = _launch_control(lp, secs, raw_token, mrenclave, mrsigner)
    if refusal is not None:
        return refusal

    secs.MRENCLAVE = mrenclave
    secs.MRSIGNER = mrsigner
    secs.ISVEXTPRODID = sig.ISVEXTPRODID
    secs.ISVPRODID = sig.ISVPRODID
    secs.ISVSVN = sig.ISVSVN
    secs.ISVFAMILYID = sig.ISVFAMILYID
    secs.PADDING = padding
    secs.ATTRIBUTES |= ATTR_INIT
    secs.measurement = None
    return SUCCESS


def _launch_control(
    lp: LogicalProcessor, secs: Secs, raw: bytes, mrenclave: bytes, mrsigner: bytes
) -> Status | None:
    """Test the EINITTOKEN or, without a valid one, that IA32_SGXLEPUBKEYHASH is the signer."""
    token = EINITTOKEN.unpack(raw)
    keys = lp.processor.keys
    if not token.VALID & EINITTOKEN_VALID:
        if mrsigner != lp.lepubkeyhash:
            # no token, and the signer is not IA32_SGXLEPUBKEYHASH
            return refuse("EINIT.17", SGX_INVALID_EINITTOKEN)
        return None
    if token.MASKEDATTRIBUTESLE & ATTR_DEBUG and not secs.ATTRIBUTES & ATTR_DEBUG:
        # token of a debug launch enclave for a production enclave
        return refuse("EINIT.18", SGX_INVALID_EINITTOKEN)
    reserved = token.VALID & ~EINITTOKEN_VALID
    if not lp.processor.part.cet:
        reserved |= token.CET_MASKED_ATTRIBUTES_LE
    if reserved or not EINITTOKEN.reserved_clear(raw):
        return refuse("EINIT.19", SGX_INVALID_EINITTOKEN)  # token: reserved field not zero
    if cpusvn_beyond(token.CPUSVNLE, lp.processor.part.cpusvn):
        return refuse("EINIT.20", SGX_INVALID_CPUSVN)  # token: CPUSVN beyond the current one
    key = keys.derive(token_material(keys, token, lp.lepubkeyhash))
    if cmac(key, raw[:EINITTOKEN_MACED]) != token.MAC:
        return refuse("EINIT.21", SGX_INVALID_EINITTOKEN)  # token: MAC wrong
    if mrenclave != token.MRENCLAVE or mrsigner != token.MRSIGNER:
        # token: MRENCLAVE or MRSIGNER of another enclave
        return refuse("EINIT.22", SGX_INVALID_MEASUREMENT)
    if (token.ATTRIBUTES, token.XFRM) != (secs.ATTRIBUTES, secs.XFRM):
        # token: ATTRIBUTES differ
        return refuse("EINIT.23", lp.processor.readings.einit_attribute_code)
    return None
