"""ATTRIBUTES, XFRM and MISCSELECT bits.

SDM 3D, 38.7 "SGX Enclave Control Structure (SECS)".
"""

from typing import Final

ATTR_INIT: Final = 1 << 0
ATTR_DEBUG: Final = 1 << 1
ATTR_MODE64BIT: Final = 1 << 2
ATTR_PROVISIONKEY: Final = 1 << 4
ATTR_EINITTOKENKEY: Final = 1 << 5
ATTR_CET: Final = 1 << 6
ATTR_KSS: Final = 1 << 7
ATTR_AEXNOTIFY: Final = 1 << 10

XFRM_X87: Final = 1 << 0
XFRM_SSE: Final = 1 << 1
XFRM_AVX: Final = 1 << 2
XFRM_LEGACY: Final = XFRM_X87 | XFRM_SSE  # must both be set
XFRM_MPX: Final = 0b11 << 3  # BNDREGS, BNDCSR
XFRM_AVX512: Final = 0b111 << 5  # opmask, ZMM_Hi256, Hi16_ZMM
XFRM_PKRU: Final = 1 << 9
XFRM_AMX: Final = 0b11 << 17  # XTILECFG, XTILEDATA

MISC_EXINFO: Final = 1 << 0
MISC_CPINFO: Final = 1 << 1


def legal_xcr0(value: int) -> bool:
    """Whether XSETBV accepts `value`: AVX-512 is all or none, and needs AVX; AMX is all or none.

    SDM 1, 13.3 "Enabling the XSAVE Feature Set and XSAVE-Enabled Features".
    """
    avx512, amx = value & XFRM_AVX512, value & XFRM_AMX
    if avx512 and (avx512 != XFRM_AVX512 or not value & XFRM_AVX):
        return False
    return value & XFRM_LEGACY == XFRM_LEGACY and amx in (0, XFRM_AMX)
