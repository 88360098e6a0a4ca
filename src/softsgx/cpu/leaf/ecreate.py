"""ECREATE, ENCLS leaf 00H: create an enclave, which is its SECS page. SDM 3D, ECREATE."""

from softsgx.cpu import cet, measurement
from softsgx.cpu.fault import ENCLS_PFEC, GP, PF
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.operands import system_secinfo
from softsgx.cpu.part import Part, xsave_size
from softsgx.cpu.secs import Secs
from softsgx.spec.attributes import ATTR_KSS, ATTR_MODE64BIT, XFRM_LEGACY, legal_xcr0
from softsgx.spec.bits import PAGE_SIZE, canonical
from softsgx.spec.concurrency import BUSY_TARGET
from softsgx.spec.epcm import PT_MASK, SECS, VALID
from softsgx.spec.paging import PAGEINFO
from softsgx.spec.secs import SECS as SECS_PAGE
from softsgx.spec.secs import SECS_SOURCE_RESERVED, SECS_SOURCE_RESERVED_CET
from softsgx.spec.ssa import GPRSGX_SIZE, misc_size


def ecreate(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> None:
    """Turn the free EPC page at RCX into the SECS that PAGEINFO.SRCPGE describes."""
    if rbx & 31:
        raise GP("ECREATE.01")  # RBX (PAGEINFO) not 32-byte aligned
    if rcx & 4095:
        raise GP("ECREATE.02")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "ECREATE.03", ENCLS_PFEC)  # RCX is not in the EPC
    linaddr, srcpge, secinfo, secs_address = PAGEINFO.S.unpack(lp.system_read(rbx, 32))
    if srcpge & 4095:
        raise GP("ECREATE.04")  # PAGEINFO.SRCPGE not 4 KiB aligned
    if secinfo & 63:
        raise GP("ECREATE.05")  # PAGEINFO.SECINFO not 64-byte aligned
    if linaddr or secs_address:
        raise GP("ECREATE.06")  # PAGEINFO.LINADDR or PAGEINFO.SECS not zero
    flags = system_secinfo(lp, secinfo, "ECREATE.07")  # SECINFO reserved not zero
    if flags & PT_MASK != SECS:
        raise GP("ECREATE.08")  # SECINFO.PT is not PT_SECS
    if lp.busy & BUSY_TARGET:
        raise GP("ECREATE.09")  # another leaf uses the page
    processor = lp.processor
    if processor.epcm.state[page] & VALID:
        raise PF(rcx, "ECREATE.10", ENCLS_PFEC)  # EPCM: VALID = 1
    source = lp.system_read(srcpge, PAGE_SIZE)
    check_source(processor.part, source)

    secs = Secs(page, SECS_PAGE.unpack(source))
    secs.MRENCLAVE = bytes(32)
    secs.ISVPRODID = secs.ISVSVN = 0
    secs.EID = processor.next_eid
    processor.next_eid += 1
    secs.ENCLAVECONTEXT = processor.epc.physical(page)
    measurement.begin(secs, bitmap=processor.readings.ecreate_measures_bitmap)
    processor.secs[page] = secs
    processor.epcm.install(page, VALID | SECS, 0, 0)


def check_source(part: Part, source: bytes) -> None:
    """The tests on the copied SECS; a fault names the first that it fails."""
    secs = SECS_PAGE.unpack(source)
    if secs.XFRM & XFRM_LEGACY != XFRM_LEGACY:
        raise GP("ECREATE.11")  # XFRM[1:0] not both 1
    if secs.XFRM & ~part.xfrm or not legal_xcr0(secs.XFRM):
        raise GP("ECREATE.12")  # XFRM not supported, or no legal value of XCR0
    if part.cet:
        cet.check_ecreate(secs)
    if secs.MISCSELECT & ~part.miscselect:
        raise GP("ECREATE.13")  # MISCSELECT has a bit that CPUID.12H.0:EBX lacks
    needed = xsave_size(secs.XFRM) + GPRSGX_SIZE
    if needed + misc_size(secs.MISCSELECT) > secs.SSAFRAMESIZE * PAGE_SIZE:
        raise GP("ECREATE.14")  # SSAFRAMESIZE too small for XFRM and MISCSELECT
    wide = secs.ATTRIBUTES & ATTR_MODE64BIT
    if wide and not canonical(secs.BASEADDR):
        raise GP("ECREATE.15")  # BASEADDR not canonical (64-bit enclave)
    if not wide and secs.BASEADDR >> 32:
        raise GP("ECREATE.16")  # BASEADDR above 4 GiB (32-bit enclave)
    if 1 << (part.max_size_64 if wide else part.max_size_32) <= secs.SIZE_:
        raise GP("ECREATE.17")  # SIZE not below the limit of CPUID.12H.0:EDX
    if secs.SIZE_ < 2 * PAGE_SIZE:
        raise GP("ECREATE.18")  # SIZE smaller than two pages
    if secs.SIZE_ & (secs.SIZE_ - 1):
        raise GP("ECREATE.19")  # SIZE not a power of two
    if secs.BASEADDR & (secs.SIZE_ - 1):
        raise GP("ECREATE.20")  # BASEADDR not a multiple of SIZE
    if secs.ATTRIBUTES & ~part.attributes:
        raise GP("ECREATE.21")  # ATTRIBUTES has a bit that CPUID.12H.1 does not permit
    reserved = SECS_SOURCE_RESERVED_CET if part.cet else SECS_SOURCE_RESERVED
    if any(any(source[start:end]) for start, end in reserved):
        raise GP("ECREATE.22")  # SECS reserved field not zero
    if (any(secs.CONFIGID) or secs.CONFIGSVN) and not secs.ATTRIBUTES & ATTR_KSS:
        raise GP("ECREATE.23")  # CONFIGID or CONFIGSVN set without ATTRIBUTES.KSS
