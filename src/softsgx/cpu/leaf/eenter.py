"""EENTER, ENCLU leaf 02H: enter an enclave. SDM 3D, EENTER."""

from softsgx.cpu.entry import check_tcs, enter_at_oentry, tcs_operand, tcs_refusal
from softsgx.cpu.fault import GP
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.reentry import entered_again, remember_entry, what_tests_read
from softsgx.spec.bits import canonical
from softsgx.spec.concurrency import BUSY_TARGET
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PT_MASK, TCS, VALID
from softsgx.spec.tcs import TCS as TCS_PAGE


def eenter(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> None:
    """Enter at the TCS at RBX, with RCX as AEP. RAX := CSSA, RCX := the address after ENCLU.

    RSP, RBP and all other registers keep their outside values.
    """
    if entered_again(lp, rbx, rcx):
        return
    if rbx & 4095:
        raise GP("EENTER.01")  # RBX (TCS) not 4 KiB aligned
    if not canonical(rcx) and lp.processor.readings.aep_before_tcs:
        raise GP("EENTER.02")  # RCX (AEP) not canonical
    page = tcs_operand(lp, rbx, rcx, "EENTER.03")  # RBX is not in the EPC
    if lp.busy & BUSY_TARGET:
        raise GP("EENTER.04")  # another leaf uses the TCS
    processor = lp.processor
    epcm = processor.epcm
    word = epcm.state[page]
    if not word & VALID:
        raise tcs_refusal(lp, rbx, "EENTER.05")  # EPCM: VALID = 0
    if word & BLOCKED:
        raise tcs_refusal(lp, rbx, "EENTER.06")  # EPCM: BLOCKED = 1
    if epcm.address[page] != rbx or word & PT_MASK != TCS:
        raise tcs_refusal(lp, rbx, "EENTER.07")  # EPCM: ENCLAVEADDRESS is not RBX, or no TCS
    if word & (PENDING | MODIFIED):
        raise tcs_refusal(lp, rbx, "EENTER.08")  # EPCM: PENDING or MODIFIED is 1
    tcs = TCS_PAGE.unpack(processor.memory.page_view(processor.epc.pfn(page)))
    secs = processor.parent(page)
    check_tcs(lp, tcs, secs)
    if tcs.CSSA >= tcs.NSSA:
        raise GP("EENTER.09")  # TCS.CSSA >= TCS.NSSA
    read = what_tests_read(lp, secs, rbx, rcx)
    frame = enter_at_oentry(lp, secs, tcs, page, rbx, rcx, resumed=False)
    remember_entry(lp, read, secs, page, frame)
