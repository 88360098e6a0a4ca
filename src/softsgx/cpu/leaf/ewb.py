"""EWB, ENCLS leaf 0BH: evict an EPC page, encrypted, to main memory. SDM 3D, EWB."""

from softsgx.cpu.eviction import fresh_version, pcmd_metadata, seal
from softsgx.cpu.fault import ENCLS_PFEC, GP, PF, SUCCESS, Status, inform, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.tracking import clear_stamp, tracked
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.concurrency import BUSY_TARGET, BUSY_VA
from softsgx.spec.epcm import BLOCKED, PT_MASK, SAVED, SECS, VA, VALID, child_type
from softsgx.spec.paging import PAGEINFO, PCMD
from softsgx.spec.status import (
    SGX_CHILD_PRESENT,
    SGX_NOT_TRACKED,
    SGX_PAGE_NOT_BLOCKED,
    SGX_VA_SLOT_OCCUPIED,
)


def ewb(lp: LogicalProcessor, rbx: int, rcx: int, rdx: int) -> Status:
    """Encrypt the page at RCX to PAGEINFO.SRCPGE; metadata to the PCMD, version to the slot at RDX.

    A child page must be BLOCKED and tracked; SECS and VA pages need neither. PAGEINFO.LINADDR is
    written. An occupied slot is only reported: the eviction still happens.
    """
    if rbx & 31:
        raise GP("EWB.01")  # RBX (PAGEINFO) not 32-byte aligned
    if rcx & 4095:
        raise GP("EWB.02")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "EWB.03", ENCLS_PFEC)  # RCX is not in the EPC
    if rdx & 7:
        raise GP("EWB.04")  # RDX (VA slot) not 8-byte aligned
    va_page = lp.system_epc_page(rdx, write=True)
    if va_page < 0:
        raise PF(rdx, "EWB.05", ENCLS_PFEC)  # RDX is not in the EPC
    if va_page == page:
        raise GP("EWB.06")  # RCX and RDX lie in the same EPC page
    linaddr, srcpge, pcmd_address, secs_address = PAGEINFO.S.unpack(lp.system_read(rbx, 32))
    if linaddr or secs_address:
        raise GP("EWB.07")  # PAGEINFO.LINADDR or PAGEINFO.SECS not zero
    if pcmd_address & 127:
        raise GP("EWB.08")  # PAGEINFO.PCMD not 128-byte aligned
    if srcpge & 4095:
        raise GP("EWB.09")  # PAGEINFO.SRCPGE not 4 KiB aligned
    if lp.busy & BUSY_TARGET:
        raise GP("EWB.10")  # another leaf uses the page
    if lp.busy & BUSY_VA:
        raise GP("EWB.11")  # another leaf uses the VA page
    processor = lp.processor
    epcm = processor.epcm
    word = epcm.state[page]
    if not word & VALID:
        raise PF(rcx, "EWB.12", ENCLS_PFEC)  # EPCM: VALID = 0
    if epcm.state[va_page] & (VALID | PT_MASK) != VALID | VA:
        raise PF(rdx, "EWB.13", ENCLS_PFEC)  # RDX is not in a valid VA page
    secs = processor.secs_of(page)
    if child_type(word):
        assert secs is not None
        if not word & BLOCKED:
            return refuse("EWB.14", SGX_PAGE_NOT_BLOCKED)  # child page with BLOCKED = 0
        if not tracked(processor, secs, page):
            return refuse("EWB.15", SGX_NOT_TRACKED)  # tracking is not complete
    elif secs is not None and secs.children:
        return refuse("EWB.16", SGX_CHILD_PRESENT)  # SECS with pages in the EPC
    # The output pages must be writable before anything changes.
    for address, size in ((srcpge, 4096), (pcmd_address, PCMD.SIZE), (rbx, 8)):
        lp.system_write_check(address, size)
    slot = processor.epc.pfn(va_page) << PAGE_SHIFT | rdx & 4095
    occupied = processor.memory.read_int(slot, 8) != 0

    linaddr = epcm.address[page]
    eid = 0 if secs is None else secs.EID
    bound_eid = eid if child_type(word) else 0
    version = fresh_version(processor)
    content = _content(lp, page, word)
    sealed, mac = seal(processor, version, bound_eid, linaddr, pcmd_metadata(word & SAVED), content)
    lp.system_write(srcpge, sealed)
    lp.system_write(pcmd_address, PCMD.S.pack(word & SAVED, eid, mac))
    lp.system_write(rbx, linaddr.to_bytes(8, "little"))
    processor.memory.write(slot, version.to_bytes(8, "little"))
    _free(lp, page, word)
    return inform("EWB.17", SGX_VA_SLOT_OCCUPIED) if occupied else SUCCESS  # slot was in use


def _content(lp: LogicalProcessor, page: int, word: int) -> bytes | bytearray:
    """The 4096 bytes to encrypt; a SECS is encoded from what the processor keeps of it."""
    processor = lp.processor
    if word & PT_MASK == SECS:
        return processor.secs[page].encode()
    return processor.memory.page_view(processor.epc.pfn(page))


def _free(lp: LogicalProcessor, page: int, word: int) -> None:
    """VALID := 0; the enclave has one child less."""
    processor = lp.processor
    if word & PT_MASK == SECS:
        secs = processor.secs.pop(page)
        if secs.measurement is not None:
            # SHA-256 in progress cannot be encoded. It is kept here by EID, until ELD of this very
            # version brings the SECS back.
            processor.hashes[secs.EID] = secs.measurement
    elif child_type(word):
        processor.parent(page).children -= 1
        clear_stamp(processor, page)
    processor.memory.clear_page(processor.epc.pfn(page))
    processor.epcm.free(page)
