"""EREPORT, ENCLU leaf 00H: a report of this enclave for another. SDM 3D, EREPORT."""

from softsgx.cpu.fault import GP
from softsgx.cpu.keys import cmac, report_material
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.operands import enclave_page, epc_read, in_elrange, usable_page
from softsgx.spec.bits import PAGE_MASK
from softsgx.spec.keys import (
    REPORT,
    REPORT_MACED,
    REPORTDATA_ALIGN,
    REPORTDATA_SIZE,
    TARGETINFO,
)


def ereport(lp: LogicalProcessor, rbx: int, rcx: int, rdx: int) -> None:
    """REPORT at RDX, over the REPORTDATA at RCX, with a MAC that the target at RBX can verify."""
    if rbx & (TARGETINFO.ALIGN - 1):
        raise GP("EREPORT.01")  # RBX (TARGETINFO) not 512-byte aligned
    if not in_elrange(lp, rbx):
        raise GP("EREPORT.02")  # RBX outside ELRANGE
    page = enclave_page(lp, rbx, False, "EREPORT.03")  # RBX is not in the EPC
    usable_page(lp, page, rbx, "EREPORT.04")  # TARGETINFO not in a readable PT_REG page
    raw = epc_read(lp, page, rbx, TARGETINFO.SIZE)
    target = TARGETINFO.unpack(raw)
    cet = lp.processor.part.cet
    if not TARGETINFO.reserved_clear(raw) or (target.CET_ATTRIBUTES and not cet):
        raise GP("EREPORT.05")  # TARGETINFO reserved field not zero
    if rcx & (REPORTDATA_ALIGN - 1):
        raise GP("EREPORT.06")  # RCX (REPORTDATA) not 128-byte aligned
    if not in_elrange(lp, rcx):
        raise GP("EREPORT.07")  # RCX outside ELRANGE
    data_page = enclave_page(lp, rcx, False, "EREPORT.08")  # RCX is not in the EPC
    usable_page(lp, data_page, rcx, "EREPORT.09")  # REPORTDATA not in a readable PT_REG page
    if rdx & (REPORT.ALIGN - 1):
        raise GP("EREPORT.10")  # RDX (output) not 512-byte aligned
    if not in_elrange(lp, rdx):
        raise GP("EREPORT.11")  # RDX outside ELRANGE
    out = enclave_page(lp, rdx, True, "EREPORT.12")  # RDX is not in the EPC
    usable_page(lp, out, rdx, "EREPORT.13", write=True)  # output not in a writable PT_REG page

    secs = lp.secs
    assert secs is not None
    processor = lp.processor
    keys, cpusvn = processor.keys, processor.part.cpusvn
    report = REPORT(
        CPUSVN=cpusvn,
        MISCSELECT=secs.MISCSELECT,
        CET_ATTRIBUTES=secs.CET_ATTRIBUTES,
        ISVEXTPRODID=secs.ISVEXTPRODID,
        ATTRIBUTES=secs.ATTRIBUTES,
        XFRM=secs.XFRM,
        MRENCLAVE=secs.MRENCLAVE,
        MRSIGNER=secs.MRSIGNER,
        CONFIGID=secs.CONFIGID,
        ISVPRODID=secs.ISVPRODID,
        ISVSVN=secs.ISVSVN,
        CONFIGSVN=secs.CONFIGSVN,
        ISVFAMILYID=secs.ISVFAMILYID,
        REPORTDATA=epc_read(lp, data_page, rcx, REPORTDATA_SIZE),
        KEYID=keys.report_keyid,
    )
    key = keys.derive(report_material(keys, target, report.KEYID, cpusvn))
    signed = report.replace(MAC=cmac(key, report.pack()[:REPORT_MACED]))
    processor.memory.write(processor.epc.physical(out) | rdx & PAGE_MASK, signed.pack())
