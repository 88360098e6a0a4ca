"""CET: IA32_U_CET, SECS.CET_ATTRIBUTES, and the frame of the CET state save area.

SDM 1, "Control-flow Enforcement Technology (CET)"; SDM 4 for the MSR; SDM 3D, 38.7 "SGX Enclave
Control Structure (SECS)" and 38.8 "Thread Control Structure (TCS)". CET_ATTRIBUTES holds bits 5:0
of the IA32_U_CET that the enclave runs with.
"""

from typing import Final

from softsgx.spec.structure import Structure, u64

IA32_U_CET: Final = 0x6A0

SH_STK_EN: Final = 1 << 0
WR_SHSTK_EN: Final = 1 << 1
ENDBR_EN: Final = 1 << 2
LEG_IW_EN: Final = 1 << 3
NO_TRACK_EN: Final = 1 << 4
SUPPRESS_DIS: Final = 1 << 5
CET_ATTRIBUTES_DEFINED: Final = 0x3F
# State of the indirect-branch tracker.
U_CET_SUPPRESS: Final = 1 << 10
U_CET_TRACKER: Final = 1 << 11  # WAIT_FOR_ENDBRANCH; 0 is IDLE
U_CET_RESERVED: Final = 0xF << 6


# Error code of #CP where an ENDBRANCH is missing. SDM 3A, "Control Protection Exception (#CP)".
CP_ENDBRANCH: Final = 3

CETSSA_FRAME_SIZE: Final = 16


class CETSSA_FRAME(Structure, size=CETSSA_FRAME_SIZE, align=16):
    """One frame of the CET state save area: frame CSSA lies at BASEADDR + OCETSSA + 16 * CSSA.

    SDM 3D, "CET State Save Area Frame".
    """

    SSP: int = u64(0)
    IB_TRACK_STATE: int = u64(8)


IB_SUPPRESS: Final = 1 << 0
IB_TRACKER: Final = 1 << 1


def restore_token(linaddr: int, wide: bool) -> int:
    """The RSTORSSP token in the last 8 bytes of the PT_SS_FIRST page at `linaddr`.

    It holds the address of the end of the page; bit 0 is set for a 64-bit enclave.
    """
    return linaddr + 4096 | wide
