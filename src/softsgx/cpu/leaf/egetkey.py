"""EGETKEY, ENCLU leaf 01H: derive a key of this enclave. SDM 3D, EGETKEY."""

from softsgx.cpu.fault import GP, SUCCESS, Status, refuse
from softsgx.cpu.keys import cpusvn_beyond, requested_material
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.operands import enclave_page, epc_read, in_elrange, usable_page
from softsgx.spec.attributes import ATTR_EINITTOKENKEY, ATTR_KSS, ATTR_PROVISIONKEY
from softsgx.spec.bits import PAGE_MASK
from softsgx.spec.keys import (
    EINITTOKEN_KEY,
    KEY_ALIGN,
    KEYREQUEST,
    POLICY_DEFINED,
    POLICY_KSS,
    PROVISION_KEY,
    PROVISION_SEAL_KEY,
    REPORT_KEY,
    SEAL_KEY,
)
from softsgx.spec.status import (
    SGX_INVALID_ATTRIBUTE,
    SGX_INVALID_CPUSVN,
    SGX_INVALID_ISVSVN,
    SGX_INVALID_KEYNAME,
)


def egetkey(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> Status:
    """Write to RCX the 16-byte key that the KEYREQUEST at RBX asks for."""
    if rbx & (KEYREQUEST.ALIGN - 1):
        raise GP("EGETKEY.01")  # RBX (KEYREQUEST) not 512-byte aligned
    if not in_elrange(lp, rbx):
        raise GP("EGETKEY.02")  # RBX outside ELRANGE
    page = enclave_page(lp, rbx, False, "EGETKEY.03")  # RBX is not in the EPC
    usable_page(lp, page, rbx, "EGETKEY.04")  # KEYREQUEST not in a readable PT_REG page
    if rcx & (KEY_ALIGN - 1):
        raise GP("EGETKEY.05")  # RCX (key) not 16-byte aligned
    if not in_elrange(lp, rcx):
        raise GP("EGETKEY.06")  # RCX outside ELRANGE
    out = enclave_page(lp, rcx, True, "EGETKEY.07")  # RCX is not in the EPC
    usable_page(lp, out, rcx, "EGETKEY.08", write=True)  # key not in a writable PT_REG page
    raw = epc_read(lp, page, rbx, KEYREQUEST.SIZE)
    request = KEYREQUEST.unpack(raw)
    processor = lp.processor
    if not KEYREQUEST.reserved_clear(raw):
        raise GP("EGETKEY.09")  # KEYREQUEST reserved field not zero
    if request.CET_ATTRIBUTES_MASK and not processor.part.cet:
        if processor.readings.keyrequest_cet_mask_reserved:
            # KEYREQUEST.CET_ATTRIBUTES_MASK on a part without CET (an open reading, on)
            raise GP("EGETKEY.10")
        request = request.replace(CET_ATTRIBUTES_MASK=0)
    if request.KEYPOLICY & ~POLICY_DEFINED:
        raise GP("EGETKEY.11")  # KEYPOLICY reserved bit
    secs = lp.secs
    assert secs is not None
    attributes = secs.ATTRIBUTES
    if not attributes & ATTR_KSS and (request.KEYPOLICY & POLICY_KSS or request.CONFIGSVN):
        raise GP("EGETKEY.12")  # KEYPOLICY or CONFIGSVN needs ATTRIBUTES.KSS
    name = request.KEYNAME
    if name > SEAL_KEY:
        return refuse("EGETKEY.13", SGX_INVALID_KEYNAME)  # KEYNAME unknown
    if name == EINITTOKEN_KEY and not attributes & ATTR_EINITTOKENKEY:
        return refuse("EGETKEY.14", SGX_INVALID_ATTRIBUTE)  # ATTRIBUTES.EINITTOKENKEY is 0
    if name in (PROVISION_KEY, PROVISION_SEAL_KEY) and not attributes & ATTR_PROVISIONKEY:
        return refuse("EGETKEY.15", SGX_INVALID_ATTRIBUTE)  # ATTRIBUTES.PROVISIONKEY is 0
    cpusvn = processor.part.cpusvn
    if name != REPORT_KEY:
        if cpusvn_beyond(request.CPUSVN, cpusvn):
            return refuse("EGETKEY.16", SGX_INVALID_CPUSVN)  # CPUSVN beyond the current one
        if request.ISVSVN > secs.ISVSVN:
            return refuse("EGETKEY.17", SGX_INVALID_ISVSVN)  # ISVSVN beyond the enclave's
    if name == SEAL_KEY and request.CONFIGSVN > secs.CONFIGSVN:
        return refuse("EGETKEY.18", SGX_INVALID_ISVSVN)  # CONFIGSVN beyond the enclave's

    key = processor.keys.derive(requested_material(processor.keys, secs, request, cpusvn))
    processor.memory.write(processor.epc.physical(out) | rcx & PAGE_MASK, key)
    return SUCCESS
