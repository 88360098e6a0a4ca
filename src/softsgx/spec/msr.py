"""Model-specific registers and control-register bits that SGX consults.

SDM 3D, 42.2 "IA32_FEATURE_CONTROL"; SDM 4, "Model-Specific Registers (MSRs)".
"""

from typing import Final

IA32_FEATURE_CONTROL: Final = 0x3A
IA32_SGXLEPUBKEYHASH: Final = (0x8C, 0x8D, 0x8E, 0x8F)

FEATURE_LOCK: Final = 1 << 0
FEATURE_SGX_LC: Final = 1 << 17
FEATURE_SGX_ENABLE: Final = 1 << 18

# SHA-256 of the modulus of Intel's launch enclave key, MSR 8CH first (the reset value).
INTEL_LEPUBKEYHASH: Final = b"".join(
    word.to_bytes(8, "little")
    for word in (
        0xA6053E051270B7AC,
        0x6CFBE8BA8B3B413D,
        0xC4916D99F2B3735D,
        0xD4F8C05909F9BB3B,
    )
)

CR0_PE: Final = 1 << 0
CR0_TS: Final = 1 << 3
CR0_NE: Final = 1 << 5
CR0_PG: Final = 1 << 31
CR4_OSFXSR: Final = 1 << 9
CR4_OSXSAVE: Final = 1 << 18
CR4_CET: Final = 1 << 23

RFLAGS_CF: Final = 1 << 0
RFLAGS_FIXED: Final = 1 << 1
RFLAGS_PF: Final = 1 << 2
RFLAGS_AF: Final = 1 << 4
RFLAGS_ZF: Final = 1 << 6
RFLAGS_SF: Final = 1 << 7
RFLAGS_TF: Final = 1 << 8
RFLAGS_IF: Final = 1 << 9
RFLAGS_DF: Final = 1 << 10
RFLAGS_OF: Final = 1 << 11
RFLAGS_IOPL: Final = 3 << 12
RFLAGS_NT: Final = 1 << 14
RFLAGS_RF: Final = 1 << 16
RFLAGS_VM: Final = 1 << 17
RFLAGS_AC: Final = 1 << 18
RFLAGS_ID: Final = 1 << 21
RFLAGS_STATUS: Final = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF
