"""Numbers of the manual, written down a second time: leaves, codes, page types, bits, MSRs."""

import re
from types import ModuleType

import pytest

from softsgx.spec import attributes, epcm, faults, keys, leaves, msr, paging, status, tcs
from softsgx.spec.bits import canonical

SGX1, SGX2, OVERSUB = "SGX1", "SGX2", "OVERSUB"

ENCLS = [
    (0x00, "ECREATE", SGX1),
    (0x01, "EADD", SGX1),
    (0x02, "EINIT", SGX1),
    (0x03, "EREMOVE", SGX1),
    (0x04, "EDBGRD", SGX1),
    (0x05, "EDBGWR", SGX1),
    (0x06, "EEXTEND", SGX1),
    (0x07, "ELDB", SGX1),
    (0x08, "ELDU", SGX1),
    (0x09, "EBLOCK", SGX1),
    (0x0A, "EPA", SGX1),
    (0x0B, "EWB", SGX1),
    (0x0C, "ETRACK", SGX1),
    (0x0D, "EAUG", SGX2),
    (0x0E, "EMODPR", SGX2),
    (0x0F, "EMODT", SGX2),
    (0x10, "ERDINFO", OVERSUB),
    (0x11, "ETRACKC", OVERSUB),
    (0x12, "ELDBC", OVERSUB),
    (0x13, "ELDUC", OVERSUB),
    (0x18, "EUPDATESVN", "EUPDATESVN"),
]
ENCLU = [
    (0x00, "EREPORT", SGX1),
    (0x01, "EGETKEY", SGX1),
    (0x02, "EENTER", SGX1),
    (0x03, "ERESUME", SGX1),
    (0x04, "EEXIT", SGX1),
    (0x05, "EACCEPT", SGX2),
    (0x06, "EMODPE", SGX2),
    (0x07, "EACCEPTCOPY", SGX2),
    (0x08, "EVERIFYREPORT2", "EVERIFYREPORT2"),
    (0x09, "EDECCSSA", "EDECCSSA"),
]
ENCLV = [(0, "EDECVIRTCHILD"), (1, "EINCVIRTCHILD"), (2, "ESETCONTEXT")]

STATUS = {
    0: "SGX_SUCCESS",
    1: "SGX_INVALID_SIG_STRUCT",
    2: "SGX_INVALID_ATTRIBUTE",
    3: "SGX_BLKSTATE",
    4: "SGX_INVALID_MEASUREMENT",
    5: "SGX_NOTBLOCKABLE",
    6: "SGX_PG_INVLD",
    7: "SGX_EPC_PAGE_CONFLICT",
    8: "SGX_INVALID_SIGNATURE",
    9: "SGX_MAC_COMPARE_FAIL",
    10: "SGX_PAGE_NOT_BLOCKED",
    11: "SGX_NOT_TRACKED",
    12: "SGX_VA_SLOT_OCCUPIED",
    13: "SGX_CHILD_PRESENT",
    14: "SGX_ENCLAVE_ACT",
    15: "SGX_ENTRYEPOCH_LOCKED",
    16: "SGX_INVALID_EINITTOKEN",
    17: "SGX_PREV_TRK_INCMPL",
    18: "SGX_PG_IS_SECS",
    19: "SGX_PAGE_ATTRIBUTES_MISMATCH",
    20: "SGX_PAGE_NOT_MODIFIABLE",
    21: "SGX_PAGE_NOT_DEBUGGABLE",
    25: "SGX_INVALID_COUNTER",
    26: "SGX_PG_NONEPC",
    27: "SGX_TRACK_NOT_REQUIRED",
    28: "SGX_INVALID_REPORTMACSTRUCT",
    29: "SGX_INSUFFICIENT_ENTROPY",
    30: "SGX_EPC_NOT_READY",
    31: "SGX_NO_UPDATE",
    32: "SGX_INVALID_CPUSVN",
    64: "SGX_INVALID_ISVSVN",
    128: "SGX_UNMASKED_EVENT",
    256: "SGX_INVALID_KEYNAME",
}

PAGE_TYPES = ["SECS", "TCS", "REG", "VA", "TRIM", "SS_FIRST", "SS_REST"]

# Bit number -> name, for every register or field of flags: (module, prefix, bits).
BITS: list[tuple[ModuleType, str, dict[int, str]]] = [
    (faults, "PFEC_", {0: "P", 1: "W", 2: "U", 3: "RSVD", 4: "I", 5: "PK", 6: "SS", 15: "SGX"}),
    (epcm, "", {0: "R", 1: "W", 2: "X", 3: "PENDING", 4: "MODIFIED", 5: "PR"}),
    (
        attributes,
        "ATTR_",
        {
            0: "INIT",
            1: "DEBUG",
            2: "MODE64BIT",
            4: "PROVISIONKEY",
            5: "EINITTOKENKEY",
            6: "CET",
            7: "KSS",
            10: "AEXNOTIFY",
        },
    ),
    (attributes, "MISC_", {0: "EXINFO", 1: "CPINFO"}),
    (attributes, "XFRM_", {0: "X87", 1: "SSE", 2: "AVX"}),
    (tcs, "TCS_", {0: "DBGOPTIN", 1: "AEXNOTIFY"}),
    (
        keys,
        "POLICY_",
        {
            0: "MRENCLAVE",
            1: "MRSIGNER",
            2: "NOISVPRODID",
            3: "CONFIGID",
            4: "ISVFAMILYID",
            5: "ISVEXTPRODID",
        },
    ),
    (msr, "FEATURE_", {0: "LOCK", 17: "SGX_LC", 18: "SGX_ENABLE"}),
    (msr, "CR0_", {0: "PE", 3: "TS", 5: "NE", 31: "PG"}),
    (msr, "CR4_", {9: "OSFXSR", 18: "OSXSAVE"}),
    (
        msr,
        "RFLAGS_",
        {
            0: "CF",
            1: "FIXED",
            2: "PF",
            4: "AF",
            6: "ZF",
            7: "SF",
            8: "TF",
            9: "IF",
            10: "DF",
            11: "OF",
            14: "NT",
            16: "RF",
            17: "VM",
            18: "AC",
            21: "ID",
        },
    ),
]
VECTORS = {
    0: "#DE",
    1: "#DB",
    2: "NMI",
    3: "#BP",
    5: "#BR",
    6: "#UD",
    7: "#NM",
    12: "#SS",
    13: "#GP",
    14: "#PF",
    16: "#MF",
    17: "#AC",
    18: "#MC",
    19: "#XM",
    21: "#CP",
}


def test_encls_leaf_numbers() -> None:
    assert {n: (name, by) for n, name, by in ENCLS} == leaves.ENCLS_LEAVES
    assert [getattr(leaves, name) for _, name, _ in ENCLS] == [n for n, _, _ in ENCLS]


def test_enclu_leaf_numbers() -> None:
    assert {n: (name, by) for n, name, by in ENCLU} == leaves.ENCLU_LEAVES
    assert [getattr(leaves, name) for _, name, _ in ENCLU] == [n for n, _, _ in ENCLU]


def test_enclv_leaf_numbers() -> None:
    assert dict(ENCLV) == leaves.ENCLV_LEAVES
    assert [getattr(leaves, name) for _, name in ENCLV] == [n for n, _ in ENCLV]


def test_opcodes() -> None:
    opcodes = (leaves.ENCLS_OPCODE, leaves.ENCLU_OPCODE, leaves.ENCLV_OPCODE)
    assert opcodes == (b"\x0f\x01\xcf", b"\x0f\x01\xd7", b"\x0f\x01\xc0")


def test_status_codes() -> None:
    assert status.STATUS_NAMES == STATUS
    assert {code: getattr(status, name) for code, name in STATUS.items()} == {c: c for c in STATUS}


def test_status_codes_with_a_second_name() -> None:
    assert status.SGX_PAGE_NOT_TRACKED == 11


@pytest.mark.parametrize(("code", "name"), [*STATUS.items(), (22, "22"), (23, "23"), (24, "24")])
def test_status_name(code: int, name: str) -> None:
    assert status.status_name(code) == name


def test_page_types() -> None:
    assert dict(enumerate(PAGE_TYPES)) == epcm.PT_NAMES
    for number, name in enumerate(PAGE_TYPES):
        assert getattr(epcm, f"PT_{name}") == number
        assert getattr(epcm, name) == number << 8


def test_child_types_have_a_parent_secs() -> None:
    child = [name for name in PAGE_TYPES if epcm.child_type(epcm.VALID | getattr(epcm, name))]
    assert child == ["TCS", "REG", "TRIM", "SS_FIRST", "SS_REST"]


@pytest.mark.parametrize(("module", "prefix", "bits"), BITS, ids=lambda x: x if x else None)
def test_bit_positions(module: ModuleType, prefix: str, bits: dict[int, str]) -> None:
    assert {bit: getattr(module, prefix + name) for bit, name in bits.items()} == {
        bit: 1 << bit for bit in bits
    }


def test_combined_bits() -> None:
    assert msr.RFLAGS_STATUS == 0b1000_1101_0101  # CF PF AF ZF SF OF
    assert msr.RFLAGS_IOPL == 0b11 << 12
    assert attributes.XFRM_LEGACY == 0b11
    assert tcs.TCS_FLAGS_DEFINED == 0b11
    assert (keys.POLICY_DEFINED, keys.POLICY_KSS) == (0x3F, 0x3C)
    assert epcm.RWX == 0b111


def test_secinfo_reserves_bits_7_6_and_63_16_and_not_pending_modified_pr() -> None:
    # Of the whole SECINFO read as one integer: FLAGS, then bytes 8..63.
    reserved = [bit for bit in range(8 * 64) if paging.SECINFO_RESERVED >> bit & 1]
    assert reserved == [6, 7, *range(16, 512)]


def test_epcm_word_keeps_its_own_bits_where_secinfo_reserves() -> None:
    assert epcm.BLOCKED | epcm.VALID == 0b1100_0000
    # PCMD.SECINFO: PT, R, W, X, PENDING, MODIFIED, PR, and not BLOCKED.
    assert epcm.SAVED == 0xFF3F


def test_keynames() -> None:
    names = ["EINITTOKEN", "PROVISION", "PROVISION_SEAL", "REPORT", "SEAL"]
    assert [getattr(keys, f"{name}_KEY") for name in names] == [0, 1, 2, 3, 4]
    assert keys.KEY_ALIGN == 16
    assert (keys.REPORT_MACED, keys.REPORTDATA_SIZE, keys.REPORTDATA_ALIGN) == (384, 64, 128)


def test_msr_numbers_and_the_reset_value_of_the_hash() -> None:
    assert msr.IA32_FEATURE_CONTROL == 0x3A
    assert msr.IA32_SGXLEPUBKEYHASH == (0x8C, 0x8D, 0x8E, 0x8F)
    words = re.findall("." * 16, msr.INTEL_LEPUBKEYHASH.hex())
    assert [bytes.fromhex(word)[::-1].hex() for word in words] == [
        "a6053e051270b7ac",
        "6cfbe8ba8b3b413d",
        "c4916d99f2b3735d",
        "d4f8c05909f9bb3b",
    ]


def test_vectors() -> None:
    assert faults.VECTOR_NAMES == VECTORS
    short = {number: name.lstrip("#") for number, name in VECTORS.items()}
    assert {number: getattr(faults, name) for number, name in short.items()} == {
        number: number for number in VECTORS
    }


def test_tcs_states_and_limit() -> None:
    assert (tcs.TCS_INACTIVE, tcs.TCS_ACTIVE) == (0, 1)
    assert tcs.SGX_TCS_LIMIT == 72


def test_version_array_has_512_slots_of_8_bytes() -> None:
    assert paging.VA_SLOTS == 512


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "-"),
        (0x8005, "P U SGX"),
        (0x8007, "P W U SGX"),
        (0x8015, "P U I SGX"),
        (0x8003, "P W SGX"),
        (0x7F, "P W U RSVD I PK SS"),
    ],
)
def test_page_fault_error_code_in_words(code: int, text: str) -> None:
    assert faults.pfec_text(code) == text


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (0, "free"),
        (epcm.REG | epcm.R, "free"),
        (0x80 | 0x200 | 0b011, "rw- REG"),
        (0x80 | 0x200 | 0b100 | 0x20, "--x REG PR"),
        (0x80 | 0x100, "--- TCS"),
        (0x80 | 0x400 | 0x10 | 0x40, "--- TRIM MODIFIED BLOCKED"),
        (0x80 | 0x200 | 0b111 | 0x8, "rwx REG PENDING"),
        (0x80 | 0x900, "--- PT 9"),
    ],
)
def test_epcm_word_in_words(word: int, text: str) -> None:
    assert epcm.word_text(word) == text


@pytest.mark.parametrize(
    ("address", "is_canonical"),
    [
        (0, True),
        ((1 << 47) - 1, True),
        (1 << 47, False),
        ((1 << 64) - (1 << 47) - 1, False),
        ((1 << 64) - (1 << 47), True),
        ((1 << 64) - 1, True),
        (1 << 64, False),
        (-1, False),
    ],
)
def test_canonical_addresses(address: int, is_canonical: bool) -> None:
    assert canonical(address) is is_canonical
