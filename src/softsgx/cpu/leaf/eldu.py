"""ELDU, ENCLS leaf 08H: load an evicted page, unblocked. SDM 3D, ELDB/ELDU/ELDBC/ELDUC."""

from softsgx.cpu.fault import Status
from softsgx.cpu.leaf.eld import load_page
from softsgx.cpu.lp import LogicalProcessor


def eldu(lp: LogicalProcessor, rbx: int, rcx: int, rdx: int) -> Status:
    """Load the page as unblocked; a conflict is #GP(0)."""
    return load_page(lp, rbx, rcx, rdx, blocked=False, codes=False)
