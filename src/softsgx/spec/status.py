"""Error and information codes in RAX. SDM 3D, 41.1.3 "Information and Error Codes"."""

from typing import Final

SGX_SUCCESS: Final = 0
SGX_INVALID_SIG_STRUCT: Final = 1
SGX_INVALID_ATTRIBUTE: Final = 2
SGX_BLKSTATE: Final = 3
SGX_INVALID_MEASUREMENT: Final = 4
SGX_NOTBLOCKABLE: Final = 5
SGX_PG_INVLD: Final = 6
SGX_EPC_PAGE_CONFLICT: Final = 7  # SGX_LOCKFAIL in the first editions of the manual
SGX_INVALID_SIGNATURE: Final = 8
SGX_MAC_COMPARE_FAIL: Final = 9
SGX_PAGE_NOT_BLOCKED: Final = 10
SGX_NOT_TRACKED: Final = 11
SGX_PAGE_NOT_TRACKED: Final = 11  # EACCEPT's name for code 11
SGX_VA_SLOT_OCCUPIED: Final = 12
SGX_CHILD_PRESENT: Final = 13
SGX_ENCLAVE_ACT: Final = 14
SGX_ENTRYEPOCH_LOCKED: Final = 15
SGX_INVALID_EINITTOKEN: Final = 16
SGX_PREV_TRK_INCMPL: Final = 17
SGX_PG_IS_SECS: Final = 18
SGX_PAGE_ATTRIBUTES_MISMATCH: Final = 19
SGX_PAGE_NOT_MODIFIABLE: Final = 20
SGX_PAGE_NOT_DEBUGGABLE: Final = 21
SGX_INVALID_COUNTER: Final = 25
SGX_PG_NONEPC: Final = 26
SGX_TRACK_NOT_REQUIRED: Final = 27
SGX_INVALID_REPORTMACSTRUCT: Final = 28
SGX_INSUFFICIENT_ENTROPY: Final = 29
SGX_EPC_NOT_READY: Final = 30
SGX_NO_UPDATE: Final = 31
SGX_INVALID_CPUSVN: Final = 32
SGX_INVALID_ISVSVN: Final = 64
SGX_UNMASKED_EVENT: Final = 128
SGX_INVALID_KEYNAME: Final = 256

# Of the two names of code 11 the one in the error table is shown.
STATUS_NAMES: Final[dict[int, str]] = {
    value: name
    for name, value in globals().copy().items()
    if name.startswith("SGX_") and name != "SGX_PAGE_NOT_TRACKED"
}


def status_name(code: int) -> str:
    """The manual's name of a code, or the number when the manual has none."""
    return STATUS_NAMES.get(code, str(code))
