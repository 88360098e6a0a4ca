"""EDECCSSA, ENCLU leaf 09H: drop the topmost SSA frame. SDM 3D, EDECCSSA."""

from softsgx.cpu import cet
from softsgx.cpu.entry import check_frame, frame_address
from softsgx.cpu.fault import GP
from softsgx.cpu.lp import LogicalProcessor
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.concurrency import BUSY_TARGET
from softsgx.spec.tcs import TCS, TCS_OFF_CSSA


def edeccssa(lp: LogicalProcessor, _rbx: int, _rcx: int, _rdx: int) -> None:
    """CSSA := CSSA - 1; the next AEX saves to that frame. No RAX, no flags."""
    if lp.busy & BUSY_TARGET:
        raise GP("EDECCSSA.01")  # another leaf uses the TCS
    secs = lp.secs
    assert secs is not None
    processor = lp.processor
    physical = processor.epc.physical(lp.tcs_page)
    tcs = TCS.unpack(processor.memory.read(physical, PAGE_SIZE))
    if tcs.CSSA == 0:
        raise GP("EDECCSSA.02")  # TCS.CSSA = 0
    frame = check_frame(lp, secs, frame_address(secs, tcs, tcs.CSSA - 1))
    has_cet = processor.part.cet
    save_area = cet.check_save_area(lp, secs, tcs, tcs.CSSA - 1) if has_cet else 0

    processor.memory.write(physical + TCS_OFF_CSSA, (tcs.CSSA - 1).to_bytes(4, "little"))
    lp.ssa_frame = frame
    lp.cet_save_area = save_area
