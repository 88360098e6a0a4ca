"""ELDBC, ENCLS leaf 12H: load an evicted page, blocked. SDM 3D, ELDB/ELDU/ELDBC/ELDUC."""

from softsgx.cpu.fault import Status
from softsgx.cpu.leaf.eld import load_page
from softsgx.cpu.lp import LogicalProcessor


def eldbc(lp: LogicalProcessor, rbx: int, rcx: int, rdx: int) -> Status:
    """Load the page as BLOCKED; a conflict is SGX_EPC_PAGE_CONFLICT."""
    return load_page(lp, rbx, rcx, rdx, blocked=True, codes=True)
