"""Page types and the packed word of an EPCM entry. SDM 3D, 38.19 "Enclave Page Cache Map (EPCM)".

The manual does not lay out an EPCM entry; it is not visible to memory. The packed word here keeps
R, W, X, PENDING, MODIFIED, PR and PT exactly where SECINFO.FLAGS has them, so that an EPCM entry
and a SECINFO compare with one mask; BLOCKED and VALID stand in two bits that SECINFO.FLAGS
reserves.
"""

from typing import Final

PT_SECS: Final = 0
PT_TCS: Final = 1
PT_REG: Final = 2
PT_VA: Final = 3
PT_TRIM: Final = 4
PT_SS_FIRST: Final = 5
PT_SS_REST: Final = 6

PT_NAMES: Final[dict[int, str]] = {
    PT_SECS: "SECS",
    PT_TCS: "TCS",
    PT_REG: "REG",
    PT_VA: "VA",
    PT_TRIM: "TRIM",
    PT_SS_FIRST: "SS_FIRST",
    PT_SS_REST: "SS_REST",
}

R: Final = 1 << 0
W: Final = 1 << 1
X: Final = 1 << 2
PENDING: Final = 1 << 3
MODIFIED: Final = 1 << 4
PR: Final = 1 << 5
BLOCKED: Final = 1 << 6  # EPCM only; reserved in SECINFO.FLAGS
VALID: Final = 1 << 7  # EPCM only; reserved in SECINFO.FLAGS
PT_SHIFT: Final = 8
PT_MASK: Final = 0xFF << PT_SHIFT
RWX: Final = R | W | X

# Page types already shifted to their place in the word.
SECS: Final = PT_SECS << PT_SHIFT
TCS: Final = PT_TCS << PT_SHIFT
REG: Final = PT_REG << PT_SHIFT
VA: Final = PT_VA << PT_SHIFT
TRIM: Final = PT_TRIM << PT_SHIFT
SS_FIRST: Final = PT_SS_FIRST << PT_SHIFT
SS_REST: Final = PT_SS_REST << PT_SHIFT

# What EWB stores in PCMD.SECINFO and ELD restores: everything but VALID and BLOCKED.
SAVED: Final = RWX | PENDING | MODIFIED | PR | PT_MASK

# What EACCEPT compares with its SECINFO.
EACCEPT_COMPARED: Final = RWX | PT_MASK | PENDING | MODIFIED

# A page can be used while VALID is 1 and BLOCKED, PENDING and MODIFIED are 0: under the mask the
# word is then VALID and the type, as USABLE_REG.
USABLE_MASK: Final = VALID | BLOCKED | PENDING | MODIFIED | PT_MASK
USABLE_REG: Final = VALID | REG
USABLE_TCS: Final = VALID | TCS

# The types of pages that have a parent SECS.
CHILD_TYPES: Final = frozenset({REG, TCS, TRIM, SS_FIRST, SS_REST})


def child_type(word: int) -> bool:
    """Whether the page has a parent SECS: PT_REG, PT_TCS, PT_TRIM, PT_SS_FIRST, PT_SS_REST."""
    return word & PT_MASK in CHILD_TYPES


def shadow_stack_type(word: int) -> bool:
    """Whether the page type is PT_SS_FIRST or PT_SS_REST."""
    return word & PT_MASK in (SS_FIRST, SS_REST)


def rwx_text(word: int) -> str:
    """Permissions as 'rw-'."""
    return "".join(c if word & bit else "-" for bit, c in ((R, "r"), (W, "w"), (X, "x")))


def word_text(word: int) -> str:
    """An EPCM word in words, e.g. 'r-- REG PR'; 'free' when VALID is 0."""
    return f"{rwx_text(word)} {state_text(word)}" if word & VALID else "free"


def state_text(word: int) -> str:
    """Page type and flags of an EPCM word or of SECINFO.FLAGS, e.g. 'REG PR'."""
    pt = (word & PT_MASK) >> PT_SHIFT
    flags = ((PENDING, "PENDING"), (MODIFIED, "MODIFIED"), (PR, "PR"), (BLOCKED, "BLOCKED"))
    return " ".join([PT_NAMES.get(pt, f"PT {pt}"), *(name for bit, name in flags if word & bit)])
