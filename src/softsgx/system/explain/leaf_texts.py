"""Advice for refused leaves that is text only: contents of operands, and the machine."""

from typing import Final

_SETTINGS: Final = "the kernel of a 64-bit system takes care of that; a program cannot"
_CET_AREA: Final = "the CET state save area must be PT_SS_REST pages of the enclave, accepted, RW"
_CET_FRAME: Final = "rebuild the enclave: only the enclave itself can have changed its CET frame"

# About the machine, the mode, or how the enclave was built.
WORDS: Final[dict[str, str]] = {
    "CET.20": "begin with ENDBR64 where an indirect branch or EEXIT leads",
    "CET.21": "the kernel must set CR4.CET for an enclave with CET_ATTRIBUTES",
    "CET.22": "OCETSSA of the TCS must be a multiple of 16",
    **dict.fromkeys(("CET.23", "CET.24"), _CET_AREA),
    **dict.fromkeys(("CET.25", "CET.26", "CET.27", "CET.28"), _CET_FRAME),
    **dict.fromkeys(
        ("ENCLU.01", "ENCLU.02", "ENCLU.03", "ENCLU.06", "ENCLU.07", "ENTRY.07", "ENTRY.08"),
        _SETTINGS,
    ),
    "ENCLU.04": "set and lock IA32_FEATURE_CONTROL.SGX_ENABLE",
    "ENCLU.05": "check CPUID leaf 12H first; `--sgx1` and --cpu-option remove leaves",
    "ENCLU.08": "EEXIT first: enclaves do not nest",
    "ENCLU.09": "EENTER first: this leaf is for use inside",
    "ENTRY.01": "build with a TCS whose OSSA is a multiple of 4096",
    "ENTRY.02": "build with a TCS whose OFSBASGX is a multiple of 4096",
    "ENTRY.03": "build with a TCS whose OGSBASGX is a multiple of 4096",
    "ENTRY.04": "build with a TCS whose FLAGS has no bit but DBGOPTIN and AEXNOTIFY",
    "ENTRY.05": "SGX_IOC_ENCLAVE_INIT comes before the first EENTER",
    "ENTRY.06": "build with ATTRIBUTES.MODE64BIT",
    "ENTRY.09": "enable in XCR0 what SECS.XFRM asks for, or build with a smaller XFRM",
    "ENTRY.10": "set AEXNOTIFY in both TCS.FLAGS and SECS.ATTRIBUTES, or in neither",
    "ENTRY.11": "BASEADDR + OENTRY of the TCS, or RIP in the SSA frame, must be canonical",
    "ENTRY.12": "BASEADDR + OFSBASGX of the TCS, or FSBASE in the SSA frame, must be canonical",
    "ENTRY.13": "BASEADDR + OGSBASGX of the TCS, or GSBASE in the SSA frame, must be canonical",
    "EDECCSSA.02": "use it in a handler that was entered with CSSA above 0, once for each frame",
    "ERESUME.09": "nothing was interrupted on this TCS: EENTER",
    "ERESUME.10": "build with more NSSA: AEX-Notify needs a free frame for the handler",
    "ERESUME.11": "correct the XSAVE area of the SSA frame, by a handler at CSSA above 0:"
    " XSTATE_BV within XFRM, reserved bits of header and MXCSR 0",
}

# What the memory at an operand must hold.
CONTENTS: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("EACCEPT.05", "EMODPE.08", "EACCEPTCOPY.08"),
        "the reserved bits of FLAGS and bytes 8 to 63 of the SECINFO must be 0",
    ),
    "EREPORT.05": "the reserved bytes of TARGETINFO must be 0, and without CET its CET attributes",
    "EGETKEY.09": "the reserved bytes of KEYREQUEST must be 0",
    "EGETKEY.10": "CET_ATTRIBUTES_MASK of KEYREQUEST must be 0 on a part without CET",
    "EGETKEY.11": "the reserved bits of KEYPOLICY must be 0",
    "EGETKEY.12": "build with ATTRIBUTES.KSS, or leave out CONFIGSVN and the policies that need it",
    "EGETKEY.13": "KEYNAME must be one of 0 to 4",
    "EGETKEY.14": "build with ATTRIBUTES.EINITTOKENKEY, or ask for another key",
    "EGETKEY.15": "build with ATTRIBUTES.PROVISIONKEY, or ask for another key",
    "EGETKEY.16": "CPUSVN must be that of the processor or an older one: take it from a REPORT",
    "EGETKEY.17": "ISVSVN must not be above that of the enclave: take it from a REPORT",
    "EGETKEY.18": "CONFIGSVN must not be above that of the enclave: take it from a REPORT",
}

# What a page must hold before it becomes a TCS; after that, software cannot write it.
TCS_CONTENTS: Final[dict[str, str]] = {
    "EACCEPT.22": "set all bytes after the fields of the TCS to 0",
    "EACCEPT.23": "set FLAGS.DBGOPTIN of the TCS to 0",
    "EACCEPT.24": "set NSSA of the TCS above CSSA",
    "EACCEPT.25": "set AEP of the TCS to 0",
    "EACCEPT.26": "set STATE of the TCS to 0",
    "EACCEPT.27": "set FSLIMIT and GSLIMIT of the TCS to whole pages (FFFH at the end)",
    "EACCEPT.28": "set the reserved bits of FLAGS of the TCS to 0",
    "CET.19": "set PREVSSP of the TCS to 0",
}
