"""EMODPR, ENCLS leaf 0EH: restrict the permissions of an EPC page. SDM 3D, EMODPR."""

from softsgx.cpu.fault import ENCLS_PFEC, GP, PF, SUCCESS, Status, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.operands import system_secinfo
from softsgx.cpu.tracking import stamp
from softsgx.spec.concurrency import BUSY_TARGET, BUSY_TARGET_M
from softsgx.spec.epcm import MODIFIED, PENDING, PR, PT_MASK, REG, RWX, VALID, R, W
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_PAGE_NOT_MODIFIABLE


def emodpr(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> Status:
    """Mask R, W, X of the page at RCX by the SECINFO at RBX, and set PR.

    Never widens. Acts in the EPCM at once; processors inside the enclave keep their translations
    until tracking is complete, which EACCEPT verifies.
    """
    if rbx & 63:
        raise GP("EMODPR.01")  # RBX (SECINFO) not 64-byte aligned
    if rcx & 4095:
        raise GP("EMODPR.02")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "EMODPR.03", ENCLS_PFEC)  # RCX is not in the EPC
    mask = system_secinfo(
        lp,
        rbx,
        "EMODPR.04",  # SECINFO reserved field not zero
        lp.processor.secinfo_reserved,
    )
    if mask & (R | W) == W:
        raise GP("EMODPR.05")  # SECINFO asks for W without R
    if lp.busy & BUSY_TARGET:
        raise GP("EMODPR.06")  # a leaf that adds, loads, evicts or removes uses the page
    processor = lp.processor
    epcm = processor.epcm
    word = epcm.state[page]
    if not word & VALID:
        raise PF(rcx, "EMODPR.07", ENCLS_PFEC)  # EPCM: VALID = 0
    if lp.busy & BUSY_TARGET_M:
        return refuse("EMODPR.08", SGX_EPC_PAGE_CONFLICT)  # another SGX2 leaf uses the page
    if word & (PENDING | MODIFIED):
        return refuse("EMODPR.09", SGX_PAGE_NOT_MODIFIABLE)  # EPCM: PENDING or MODIFIED is 1
    if word & PT_MASK != REG:
        raise PF(rcx, "EMODPR.10", ENCLS_PFEC)  # EPCM: the page type is not PT_REG
    secs = processor.secs[epcm.secs[page]]
    if not secs.initialised:
        raise GP("EMODPR.11")  # the enclave is not initialised

    restricted = word & (mask | ~RWX) | PR
    readings = processor.readings
    if (readings.repeated_emodpr_restamps or not word & PR) and (
        readings.noop_emodpr_restamps or restricted & RWX != word & RWX
    ):
        stamp(processor, secs, page)
    epcm.put(page, restricted)
    return SUCCESS
