"""Exception vectors, page-fault error code bits.

SDM 3A, 4.7 "Page-Fault Exceptions", 6.3 "Sources of Interrupts"; SDM 3D for bit 15.
"""

from typing import Final

DE: Final = 0
DB: Final = 1
NMI: Final = 2
BP: Final = 3
OF: Final = 4
BR: Final = 5
UD: Final = 6
NM: Final = 7
OLD_MF: Final = 9  # coprocessor segment overrun; no processor with SGX raises it
TS: Final = 10
NP: Final = 11
SS: Final = 12
GP: Final = 13
PF: Final = 14
MF: Final = 16
AC: Final = 17
MC: Final = 18
XM: Final = 19
CP: Final = 21

VECTOR_NAMES: Final[dict[int, str]] = {
    DE: "#DE",
    DB: "#DB",
    NMI: "NMI",
    BP: "#BP",
    BR: "#BR",
    UD: "#UD",
    NM: "#NM",
    SS: "#SS",
    GP: "#GP",
    PF: "#PF",
    MF: "#MF",
    AC: "#AC",
    MC: "#MC",
    XM: "#XM",
    CP: "#CP",
}

# Page-fault error code (PFEC).
PFEC_P: Final = 1 << 0  # the translation was present
PFEC_W: Final = 1 << 1  # a write
PFEC_U: Final = 1 << 2  # user mode
PFEC_RSVD: Final = 1 << 3
PFEC_I: Final = 1 << 4  # an instruction fetch
PFEC_PK: Final = 1 << 5
PFEC_SS: Final = 1 << 6  # a shadow-stack access
PFEC_SGX: Final = 1 << 15  # the EPCM refused, not the page tables


def pfec_text(code: int) -> str:
    """The error code in words, e.g. 0x8007 as 'P W U SGX'."""
    names = (
        (PFEC_P, "P"),
        (PFEC_W, "W"),
        (PFEC_U, "U"),
        (PFEC_RSVD, "RSVD"),
        (PFEC_I, "I"),
        (PFEC_PK, "PK"),
        (PFEC_SS, "SS"),
        (PFEC_SGX, "SGX"),
    )
    return " ".join(name for bit, name in names if code & bit) or "-"
