"""The concurrency tables as data: what each leaf holds while it runs, what a conflict yields.

SDM 3D, 41.1.5 "Concurrent Operation Restrictions"; later editions have the tables on the page of
each leaf. A leaf takes a resource concurrently (not listed here), SHARED or EXCLUSIVE; two holders
conflict unless both are SHARED. A group excludes only its own members: M, the leaves that
change an accepted page; B, measurement and INIT; T, tracking. The result of a conflict is a fault
(GP) or the code that RAX receives.

Where the manual contradicts itself the operation listing is followed; `NOTE` says where.
"""

from typing import Final, NamedTuple

from softsgx.spec.status import SGX_ENTRYEPOCH_LOCKED, SGX_EPC_PAGE_CONFLICT

GP: Final = "#GP(0)"
SHARED: Final = "shared"
EXCLUSIVE: Final = "exclusive"
# The leaf is refused while another one holds the resource, but does not hold it itself.
REFUSED: Final = "refused"

# Lock kinds: the base lock of an EPC page, and the three groups.
BASE: Final = "base"
M: Final = "M"  # EACCEPT EACCEPTCOPY EMODPE EMODPR EMODT
B: Final = "B"  # EADD EEXTEND EINIT
T: Final = "T"  # ETRACK ETRACKC

# Where the resource is found.
RBX: Final = "RBX"
RCX: Final = "RCX"
RDX: Final = "RDX"
PAGEINFO_SECS: Final = "PAGEINFO.SECS"
PARENT: Final = "SECS of RCX"
OWNER: Final = "SECS of RCX, or RCX itself"
CURRENT_TCS: Final = "current TCS"

# The bits of `lp.busy`: which resources of the leaf other leaves hold.
BUSY_TARGET: Final = 1 << 0
BUSY_TARGET_M: Final = 1 << 1
BUSY_SECS: Final = 1 << 2
BUSY_SECS_B: Final = 1 << 3
BUSY_SECS_T: Final = 1 << 4
BUSY_VA: Final = 1 << 5


class Claim(NamedTuple):
    """One resource of one leaf: operand, lock kind, mode, busy bit, result of a conflict."""

    operand: str
    kind: str
    mode: str
    busy: int
    result: str | int


CONCURRENCY: Final[dict[str, tuple[Claim, ...]]] = {
    "ECREATE": (Claim(RCX, BASE, EXCLUSIVE, BUSY_TARGET, GP),),
    "EADD": (
        Claim(RCX, BASE, EXCLUSIVE, BUSY_TARGET, GP),
        Claim(PAGEINFO_SECS, BASE, SHARED, BUSY_SECS, GP),
        Claim(PAGEINFO_SECS, B, EXCLUSIVE, BUSY_SECS_B, GP),
    ),
    "EEXTEND": (
        Claim(RCX, BASE, SHARED, BUSY_TARGET, GP),
        Claim(RBX, B, EXCLUSIVE, BUSY_SECS_B, GP),
    ),
    "EINIT": (
        Claim(RCX, BASE, SHARED, BUSY_SECS, GP),
        Claim(RCX, B, EXCLUSIVE, BUSY_SECS_B, GP),
    ),
    "EAUG": (
        Claim(RCX, BASE, EXCLUSIVE, BUSY_TARGET, GP),
        Claim(PAGEINFO_SECS, BASE, SHARED, BUSY_SECS, GP),
    ),
    "EBLOCK": (
        Claim(RCX, BASE, SHARED, BUSY_TARGET, SGX_EPC_PAGE_CONFLICT),
        # NOTE: listed only in the error table: the entry epoch is locked while ETRACK runs.
        Claim(PARENT, T, REFUSED, BUSY_SECS_T, SGX_ENTRYEPOCH_LOCKED),
    ),
    "ETRACK": (
        Claim(RCX, BASE, SHARED, BUSY_SECS, GP),
        # NOTE: the concurrency table prints code 7 for this one, the operation listing #GP(0).
        Claim(RCX, T, EXCLUSIVE, BUSY_SECS_T, GP),
    ),
    "ETRACKC": (
        Claim(RCX, BASE, SHARED, BUSY_TARGET, SGX_EPC_PAGE_CONFLICT),
        Claim(OWNER, T, EXCLUSIVE, BUSY_SECS_T, SGX_EPC_PAGE_CONFLICT),
    ),
    "EWB": (
        # NOTE: one concurrency table adds RDX exclusive vs T, and the exceptions list a tracking
        # resource in use; the operation listing tests neither.
        Claim(RCX, BASE, EXCLUSIVE, BUSY_TARGET, GP),
        Claim(RDX, BASE, SHARED, BUSY_VA, GP),
    ),
    "ELDB": (
        Claim(RCX, BASE, EXCLUSIVE, BUSY_TARGET, GP),
        Claim(RDX, BASE, SHARED, BUSY_VA, GP),
        Claim(PAGEINFO_SECS, BASE, SHARED, BUSY_SECS, GP),
    ),
    "ELDU": (
        Claim(RCX, BASE, EXCLUSIVE, BUSY_TARGET, GP),
        Claim(RDX, BASE, SHARED, BUSY_VA, GP),
        Claim(PAGEINFO_SECS, BASE, SHARED, BUSY_SECS, GP),
    ),
    "ELDBC": (
        Claim(RCX, BASE, EXCLUSIVE, BUSY_TARGET, SGX_EPC_PAGE_CONFLICT),
        Claim(RDX, BASE, SHARED, BUSY_VA, SGX_EPC_PAGE_CONFLICT),
        Claim(PAGEINFO_SECS, BASE, SHARED, BUSY_SECS, SGX_EPC_PAGE_CONFLICT),
    ),
    "ELDUC": (
        Claim(RCX, BASE, EXCLUSIVE, BUSY_TARGET, SGX_EPC_PAGE_CONFLICT),
        Claim(RDX, BASE, SHARED, BUSY_VA, SGX_EPC_PAGE_CONFLICT),
        Claim(PAGEINFO_SECS, BASE, SHARED, BUSY_SECS, SGX_EPC_PAGE_CONFLICT),
    ),
    "EPA": (Claim(RCX, BASE, EXCLUSIVE, BUSY_TARGET, GP),),
    "EREMOVE": (Claim(RCX, BASE, EXCLUSIVE, BUSY_TARGET, GP),),
    "EMODPR": (
        # NOTE: the return-value table ties code 7 to this class; flow and base table give #GP(0).
        Claim(RCX, BASE, SHARED, BUSY_TARGET, GP),
        Claim(RCX, M, EXCLUSIVE, BUSY_TARGET_M, SGX_EPC_PAGE_CONFLICT),
    ),
    "EMODT": (
        # NOTE: #GP(0) in the 2016 edition.
        Claim(RCX, BASE, EXCLUSIVE, BUSY_TARGET, SGX_EPC_PAGE_CONFLICT),
        Claim(RCX, M, EXCLUSIVE, BUSY_TARGET_M, SGX_EPC_PAGE_CONFLICT),
    ),
    "EDBGRD": (Claim(RCX, BASE, SHARED, BUSY_TARGET, GP),),
    "EDBGWR": (Claim(RCX, BASE, SHARED, BUSY_TARGET, GP),),
    "ERDINFO": (Claim(RCX, BASE, SHARED, BUSY_TARGET, SGX_EPC_PAGE_CONFLICT),),
    "EACCEPT": (
        Claim(RCX, BASE, SHARED, BUSY_TARGET, GP),
        Claim(RCX, M, EXCLUSIVE, BUSY_TARGET_M, GP),
    ),
    "EACCEPTCOPY": (Claim(RCX, M, EXCLUSIVE, BUSY_TARGET_M, GP),),
    "EMODPE": (Claim(RCX, M, EXCLUSIVE, BUSY_TARGET_M, GP),),
    "EENTER": (Claim(RBX, BASE, SHARED, BUSY_TARGET, GP),),
    "ERESUME": (Claim(RBX, BASE, SHARED, BUSY_TARGET, GP),),
    "EDECCSSA": (Claim(CURRENT_TCS, BASE, SHARED, BUSY_TARGET, GP),),
    "EEXIT": (),
    "EGETKEY": (),
    "EREPORT": (),
}
