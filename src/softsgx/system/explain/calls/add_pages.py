"""EADD refused a TCS: which field of the page."""

from __future__ import annotations

from softsgx.report.explanation import Layer
from softsgx.spec.tcs import TCS, tcs_size
from softsgx.system.explain.calls.refused_call import RefusedCall


def tcs_layers(call: RefusedCall, rule: str, page: bytes) -> tuple[list[Layer], str] | None:
    """What is wrong with a TCS page, and what would be right; None for other refusals."""
    tcs = TCS.unpack(page)
    if rule == "EADD.15":
        own = tcs_size(call.kernel.processor.part.cet)
        wrong = next(at for at in range(own, len(page)) if page[at])
        found = f"byte {wrong} is {page[wrong]:#x}"
        return [Layer("TCS", found, "")], f"zero the bytes {own} to 4095 of the page"
    if rule == "EADD.16":
        found = f"FSLIMIT {tcs.FSLIMIT:#x}, GSLIMIT {tcs.GSLIMIT:#x}"
        way = f"FSLIMIT {tcs.FSLIMIT | 0xFFF:#x}, GSLIMIT {tcs.GSLIMIT | 0xFFF:#x}"
        return [Layer("TCS", found, "")], way
    if rule == "EADD.17":
        return [Layer("TCS", f"FLAGS {tcs.FLAGS:#x}", "")], "FLAGS with DBGOPTIN and AEXNOTIFY only"
    if rule == "CET.09":
        return [Layer("TCS", f"PREVSSP {tcs.PREVSSP:#x}", "")], "PREVSSP 0"
    return None
