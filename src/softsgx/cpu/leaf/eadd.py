"""EADD, ENCLS leaf 01H: add a page to an enclave that is being built. SDM 3D, EADD."""

from softsgx.cpu import cet, measurement
from softsgx.cpu.fault import ENCLS_PFEC, GP, PF
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.operands import system_secinfo, tcs_limits_end_in_fff
from softsgx.spec.attributes import ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.concurrency import BUSY_SECS, BUSY_SECS_B, BUSY_TARGET
from softsgx.spec.epcm import PT_MASK, REG, RWX, SECS, TCS, VALID, R, W, shadow_stack_type
from softsgx.spec.paging import PAGEINFO
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.spec.tcs import TCS_DBGOPTIN, TCS_FLAGS_DEFINED, tcs_reserved_clear


def eadd(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> None:
    """Copy PAGEINFO.SRCPGE to the free EPC page at RCX; measure its offset, type and rights."""
    if rbx & 31:
        raise GP("EADD.01")  # RBX (PAGEINFO) not 32-byte aligned
    if rcx & 4095:
        raise GP("EADD.02")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "EADD.03", ENCLS_PFEC)  # RCX is not in the EPC
    linaddr, srcpge, secinfo, secs_address = PAGEINFO.S.unpack(lp.system_read(rbx, 32))
    if srcpge & 4095:
        raise GP("EADD.04")  # PAGEINFO.SRCPGE not 4 KiB aligned
    if secs_address & 4095:
        raise GP("EADD.05")  # PAGEINFO.SECS not 4 KiB aligned
    if secinfo & 63:
        raise GP("EADD.06")  # PAGEINFO.SECINFO not 64-byte aligned
    if linaddr & 4095:
        raise GP("EADD.07")  # PAGEINFO.LINADDR not 4 KiB aligned
    secs_page = lp.system_epc_page(secs_address, write=True)
    if secs_page < 0:
        raise PF(secs_address, "EADD.08", ENCLS_PFEC)  # PAGEINFO.SECS is not in the EPC
    flags = system_secinfo(
        lp,
        secinfo,
        "EADD.09",  # SECINFO reserved field not zero
        lp.processor.secinfo_reserved,
    )
    pt = flags & PT_MASK
    shadow_stack = shadow_stack_type(flags) and lp.processor.part.cet
    if pt not in (REG, TCS) and not shadow_stack:
        raise GP("EADD.10")  # SECINFO.PT is neither PT_REG nor PT_TCS, nor with CET a PT_SS type
    cet.check_eadd_enabled(lp, flags)
    if lp.busy & BUSY_TARGET:
        raise GP("EADD.11")  # another leaf uses the page
    processor = lp.processor
    epcm = processor.epcm
    if epcm.state[page] & VALID:
        raise PF(rcx, "EADD.12", ENCLS_PFEC)  # EPCM: VALID = 1
    if lp.busy & BUSY_SECS:
        raise GP("EADD.13")  # another leaf uses the SECS
    if epcm.state[secs_page] & (VALID | PT_MASK) != VALID | SECS:
        raise PF(secs_address, "EADD.14", ENCLS_PFEC)  # PAGEINFO.SECS is no valid SECS page
    secs = processor.secs[secs_page]
    content = lp.system_read(srcpge, PAGE_SIZE)
    if pt == TCS:
        content = _tcs(lp, content, bool(secs.ATTRIBUTES & ATTR_MODE64BIT))
        flags &= ~RWX
    elif shadow_stack:
        cet.check_eadd_page(secs, linaddr, flags, content)
    elif flags & (R | W) == W:
        raise GP("EADD.18")  # SECINFO asks for W without R
    if not secs.BASEADDR <= linaddr < secs.elrange_end:
        raise GP("EADD.19")  # PAGEINFO.LINADDR outside ELRANGE
    if lp.busy & BUSY_SECS_B:
        raise GP("EADD.20")  # the enclave is being measured or initialised by another leaf
    if secs.initialised:
        raise GP("EADD.21")  # the enclave is initialised

    processor.memory.write_page(processor.epc.pfn(page), content)
    measurement.add(secs, linaddr - secs.BASEADDR, flags)
    epcm.install(page, VALID | flags & (RWX | PT_MASK), secs_page, linaddr)
    secs.children += 1


def _tcs(lp: LogicalProcessor, content: bytes, wide: bool) -> bytes:
    """Check a TCS page and force DBGOPTIN, CSSA, AEP and STATE to 0 in the copy."""
    tcs = TCS_PAGE.unpack(content)
    has_cet = lp.processor.part.cet
    if not tcs_reserved_clear(content, has_cet):
        raise GP("EADD.15")  # TCS: reserved area not zero
    if not wide and not tcs_limits_end_in_fff(tcs):
        raise GP("EADD.16")  # TCS of a 32-bit enclave: FSLIMIT or GSLIMIT does not end in FFFH
    if has_cet:
        cet.check_eadd_tcs(tcs)
    if tcs.FLAGS & ~TCS_FLAGS_DEFINED and lp.processor.readings.tcs_flags_reserved_at_eadd:
        raise GP("EADD.17")  # TCS: reserved FLAGS bit (an open reading, off by default)
    return tcs.replace(FLAGS=tcs.FLAGS & ~TCS_DBGOPTIN, CSSA=0, AEP=0, STATE=0).pack()
