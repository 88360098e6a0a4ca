"""EMODPE, ENCLU leaf 06H: the enclave extends the permissions of a page. SDM 3D, EMODPE."""

from softsgx.cpu.fault import ENCLU_PFEC, GP, PF
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.operands import enclave_page, enclave_secinfo, usable_page
from softsgx.spec.concurrency import BUSY_TARGET_M
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PT_MASK, REG, RWX, VALID, R, W


def emodpe(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> None:
    """Add R, W, X of the SECINFO at RBX to the page at RCX, in the EPCM alone.

    Needs no kernel, no tracking, no acceptance. PR is neither tested nor changed. No RAX, no flags.
    """
    if rbx & 63:
        raise GP("EMODPE.01")  # RBX (SECINFO) not 64-byte aligned
    if rcx & 4095:
        raise GP("EMODPE.02")  # RCX not 4 KiB aligned
    if not lp.elrange_base <= rbx < lp.elrange_end:
        raise GP("EMODPE.03")  # RBX outside ELRANGE
    if not lp.elrange_base <= rcx < lp.elrange_end:
        raise GP("EMODPE.04")  # RCX outside ELRANGE
    info = enclave_page(lp, rbx, False, "EMODPE.05")  # RBX is not in the EPC
    page = enclave_page(lp, rcx, False, "EMODPE.06")  # RCX is not in the EPC
    usable_page(lp, info, rbx, "EMODPE.07")  # SECINFO not in a readable PT_REG page of the enclave
    flags = enclave_secinfo(
        lp,
        info,
        rbx,
        "EMODPE.08",  # SECINFO reserved field not zero
        lp.processor.secinfo_reserved,
    )
    epcm = lp.processor.epcm
    word = epcm.state[page]
    if not word & VALID:
        raise PF(rcx, "EMODPE.09", ENCLU_PFEC)  # EPCM: VALID = 0
    if word & (PENDING | MODIFIED | BLOCKED):
        raise PF(rcx, "EMODPE.10", ENCLU_PFEC)  # EPCM: PENDING, MODIFIED or BLOCKED is 1
    if word & PT_MASK != REG:
        raise PF(rcx, "EMODPE.11", ENCLU_PFEC)  # EPCM: the page type is not PT_REG
    if epcm.secs[page] != lp.secs_page:
        raise PF(rcx, "EMODPE.12", ENCLU_PFEC)  # EPCM: ENCLAVESECS is another enclave
    if not word & R and lp.processor.readings.emodpe_needs_read:
        raise PF(rcx, "EMODPE.13", ENCLU_PFEC)  # EPCM: R = 0 (an open reading, off by default)
    if lp.busy & BUSY_TARGET_M:
        raise GP("EMODPE.14")  # another SGX2 leaf uses the page
    # The listing repeats its tests here; only ENCLAVEADDRESS is new.
    if epcm.address[page] != rcx:
        raise PF(rcx, "EMODPE.15", ENCLU_PFEC)  # EPCM: ENCLAVEADDRESS is not RCX
    if not word & R and flags & (R | W) == W:
        raise GP("EMODPE.16")  # the page would have W without R

    epcm.put(page, word | flags & RWX)
