"""The listing that ELDB, ELDU, ELDBC and ELDUC share. SDM 3D, ELDB/ELDU/ELDBC/ELDUC.

B leaves the page blocked, U unblocked; with C a conflict is reported in RAX instead of a fault. The
rules are numbered once, under ELD.
"""

from __future__ import annotations

from softsgx.cpu.eviction import stored_metadata, unseal
from softsgx.cpu.fault import ENCLS_PFEC, GP, PF, SUCCESS, Status, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.secs import Secs
from softsgx.cpu.tracking import stamp
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.concurrency import BUSY_SECS, BUSY_TARGET, BUSY_VA
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PR,
    PT_MASK,
    SAVED,
    SECS,
    VA,
    VALID,
    child_type,
)
from softsgx.spec.paging import PAGEINFO, PCMD
from softsgx.spec.secs import SECS as SECS_PAGE
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_MAC_COMPARE_FAIL


def _conflict(rule: str, codes: bool) -> Status:
    if codes:
        return refuse(rule, SGX_EPC_PAGE_CONFLICT)
    raise GP(rule)


def load_page(
    lp: LogicalProcessor, rbx: int, rcx: int, rdx: int, *, blocked: bool, codes: bool
) -> Status:
    """Decrypt and verify PAGEINFO.SRCPGE into the free EPC page at RCX; the slot at RDX is cleared.

    `blocked` and `codes` distinguish the four leaves.
    """
    if rbx & 31:
        raise GP("ELD.01")  # RBX (PAGEINFO) not 32-byte aligned
    if rcx & 4095:
        raise GP("ELD.02")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "ELD.03", ENCLS_PFEC)  # RCX is not in the EPC
    if rdx & 7:
        raise GP("ELD.04")  # RDX (VA slot) not 8-byte aligned
    va_page = lp.system_epc_page(rdx, write=True)
    if va_page < 0:
        raise PF(rdx, "ELD.05", ENCLS_PFEC)  # RDX is not in the EPC
    linaddr, srcpge, pcmd_address, secs_address = PAGEINFO.S.unpack(lp.system_read(rbx, 32))
    if pcmd_address & 127:
        raise GP("ELD.06")  # PAGEINFO.PCMD not 128-byte aligned
    if srcpge & 4095:
        raise GP("ELD.07")  # PAGEINFO.SRCPGE not 4 KiB aligned
    if lp.busy & BUSY_TARGET:
        return _conflict("ELD.08", codes)  # another leaf uses the page
    if lp.busy & BUSY_VA:
        return _conflict("ELD.09", codes)  # another leaf uses the VA page
    processor = lp.processor
    epcm = processor.epcm
    if epcm.state[page] & VALID:
        raise PF(rcx, "ELD.10", ENCLS_PFEC)  # EPCM: VALID = 1
    if epcm.state[va_page] & (VALID | PT_MASK) != VALID | VA:
        raise PF(rdx, "ELD.11", ENCLS_PFEC)  # RDX is not in a valid VA page
    raw = lp.system_read(pcmd_address, PCMD.SIZE)
    pcmd = PCMD.unpack(raw)
    secs: Secs | None = None
    if child_type(pcmd.FLAGS):
        if secs_address & 4095:
            raise GP("ELD.12")  # PAGEINFO.SECS not 4 KiB aligned
        secs_page = lp.system_epc_page(secs_address, write=True)
        if secs_page < 0:
            raise PF(secs_address, "ELD.13", ENCLS_PFEC)  # PAGEINFO.SECS is not in the EPC
        if lp.busy & BUSY_SECS:
            return _conflict("ELD.14", codes)  # another leaf uses the SECS
        if epcm.state[secs_page] & (VALID | PT_MASK) == VALID | SECS:
            secs = processor.secs[secs_page]
        elif processor.readings.eld_checks_secs:
            # PAGEINFO.SECS is no valid SECS page (an open reading, on by default)
            raise PF(secs_address, "ELD.15", ENCLS_PFEC)
    elif secs_address:
        raise GP("ELD.16")  # PAGEINFO.SECS not zero for a page without a parent
    slot = processor.epc.pfn(va_page) << PAGE_SHIFT | rdx & 4095
    version = processor.memory.read_int(slot, 8)
    sealed = lp.system_read(srcpge, 4096) + pcmd.MAC
    eid = 0 if secs is None else secs.EID
    content = unseal(processor, version, eid, linaddr, stored_metadata(raw), sealed)
    if content is None:
        return refuse("ELD.17", SGX_MAC_COMPARE_FAIL)  # page, metadata, enclave or version altered

    processor.memory.write(slot, bytes(8))
    word = VALID | pcmd.FLAGS & SAVED
    if secs is not None:
        word |= BLOCKED if blocked else 0
        secs.children += 1
    _install(lp, page, word, secs, linaddr, content)
    return SUCCESS


def _install(
    lp: LogicalProcessor, page: int, word: int, secs: Secs | None, linaddr: int, content: bytes
) -> None:
    """Contents and EPCM entry of the loaded page."""
    processor = lp.processor
    epcm = processor.epcm
    if word & PT_MASK == SECS:
        loaded = Secs(page, SECS_PAGE.unpack(content))
        loaded.ENCLAVECONTEXT = processor.epc.physical(page)
        loaded.measurement = processor.hashes.pop(loaded.EID, None)
        processor.secs[page] = loaded
        epcm.install(page, word, 0, linaddr)
        return
    processor.memory.write_page(processor.epc.pfn(page), content)
    epcm.install(page, word, 0 if secs is None else secs.page, linaddr)
    readings = processor.readings
    if secs is not None and (
        (word & (PR | MODIFIED) and not readings.reloaded_tracked)
        or (word & BLOCKED and not readings.reloaded_blocked_tracked)
    ):
        stamp(processor, secs, page)
