"""Register numbers. The order is the one x86 encodes and GPRSGX stores, then RFLAGS and RIP."""

from typing import Final

RAX: Final = 0
RCX: Final = 1
RDX: Final = 2
RBX: Final = 3
RSP: Final = 4
RBP: Final = 5
RSI: Final = 6
RDI: Final = 7
R8: Final = 8
R11: Final = 11
R15: Final = 15
RFLAGS: Final = 16
RIP: Final = 17

REGISTER_NAMES: Final = (
    *("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI"),
    *("R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"),
    *("RFLAGS", "RIP"),
)
