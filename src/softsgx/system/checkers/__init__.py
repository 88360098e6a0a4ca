"""Invariants: what must hold under every schedule, without naming any bug. One file each.

A checker is asked at the end of an execution and raises `Violation`; from `start` on it may also
watch. Each file says what is verified and what is not.
"""

from softsgx.system.checkers.checker import Checker
from softsgx.system.checkers.epc_leak import EpcLeak
from softsgx.system.checkers.kernel_warning import KernelWarning
from softsgx.system.checkers.lock_order import LockOrder
from softsgx.system.checkers.lost_page import LostPage
from softsgx.system.checkers.stale_mapping import StaleMapping
from softsgx.system.checkers.wider_right import WiderRight

CHECKERS: tuple[type[Checker], ...] = (
    KernelWarning,
    LockOrder,
    StaleMapping,
    WiderRight,
    EpcLeak,
    LostPage,
)
"""In the order in which they are asked. The last one changes the machine."""

__all__ = ["CHECKERS", "Checker", "WiderRight"]
