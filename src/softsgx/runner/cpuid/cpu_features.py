"""Which features a program may see: the CPUID bits, their names in /proc/cpuinfo, and the reasons.

A program chooses code by CPUID, its enclave by what the host told it, and XFRM by both. So what
the emulator lacks must not be announced. Bits are those of SDM 2A, CPUID, and of AMD's manual,
volume 3, appendix E; names are written as in Linux. tests/runner executes an instruction of every
feature in the emulator, whether shown or hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from softsgx.spec.attributes import XFRM_AMX, XFRM_AVX, XFRM_AVX512, XFRM_MPX, XFRM_PKRU
from softsgx.spec.bits import MASK32

EAX, EBX, ECX, EDX = range(4)
REGISTERS: Final = ("EAX", "EBX", "ECX", "EDX")

# Leaf, sub-leaf, register.
Word = tuple[int, int, int]


class Rule(NamedTuple):
    """Names of bits of one word by bit number, and why these bits are treated alike."""

    word: Word
    bits: Mapping[int, str]
    why: str


def _bits(text: str) -> Mapping[int, str]:
    """`number name, number name, ...`"""
    pairs = (pair.split() for pair in text.split(",") if pair)
    return {int(number): name for number, name in pairs}


_VEX: Final = "the emulator executes VEX.128 forms wrongly and refuses VEX.256 and EVEX"
_STATE: Final = "its registers are not in XFRM 3, the only one the emulator can save"
_LACKS: Final = "the emulator raises #UD"
_CET: Final = "the emulator has no shadow stacks, and no kernel gives them to enclaves"
_SILENT: Final = "the emulator executes it as something else"

# What the reference engine cannot execute.
HIDDEN: Final = (
    Rule((1, 0, ECX), _bits("12 fma, 28 avx, 29 f16c"), _VEX),
    Rule((1, 0, ECX), _bits("3 monitor"), _LACKS),
    Rule(
        (7, 0, EBX),
        _bits(
            "5 avx2, 16 avx512f, 17 avx512dq, 21 avx512ifma, 26 avx512pf, 27 avx512er, "
            "28 avx512cd, 30 avx512bw, 31 avx512vl"
        ),
        _VEX,
    ),
    Rule((7, 0, EBX), _bits("19 adx, 23 clflushopt, 24 clwb, 29 sha_ni"), _LACKS),
    Rule((7, 0, EBX), _bits("14 mpx"), _STATE),
    Rule((7, 0, EBX), _bits("4 hle, 11 rtm"), "XBEGIN does not abort, XTEST raises #UD"),
    Rule((7, 0, EBX), _bits("25 intel_pt"), "PTWRITE raises #UD"),
    Rule(
        (7, 0, ECX),
        _bits(
            "1 avx512vbmi, 6 avx512_vbmi2, 9 vaes, 10 vpclmulqdq, 11 avx512_vnni, "
            "12 avx512_bitalg, 14 avx512_vpopcntdq"
        ),
        _VEX,
    ),
    Rule((7, 0, ECX), _bits("8 gfni, 22 rdpid, 27 movdiri, 28 movdir64b"), _LACKS),
    Rule((7, 0, ECX), _bits("23 aeskle, 29 enqcmd"), _LACKS),
    Rule((7, 0, ECX), _bits("5 waitpkg"), _SILENT),
    Rule((7, 0, ECX), _bits("3 pku, 4 ospke"), _STATE),
    Rule((7, 0, ECX), _bits("7 user_shstk"), _CET),
    Rule((7, 0, EDX), _bits("20 ibt"), _CET),
    Rule(
        (7, 0, EDX),
        _bits("2 avx512_4vnniw, 3 avx512_4fmaps, 8 avx512_vp2intersect, 23 avx512_fp16"),
        _VEX,
    ),
    Rule((7, 0, EDX), _bits("22 amx_bf16, 24 amx_tile, 25 amx_int8"), _STATE),
    Rule((7, 0, EDX), _bits("5 uintr, 14 serialize, 16 tsxldtrk"), _LACKS),
    Rule(
        (7, 1, EAX),
        _bits("0 sha512, 1 sm3, 2 sm4, 4 avx_vnni, 5 avx512_bf16, 23 avx_ifma"),
        _VEX,
    ),
    Rule((7, 1, EAX), _bits("3 raoint, 7 cmpccxadd, 21 amx_fp16"), _LACKS),
    Rule(
        (7, 1, EDX),
        _bits("4 avx_vnni_int8, 5 avx_ne_convert, 10 avx_vnni_int16, 19 avx10"),
        _VEX,
    ),
    Rule((7, 1, EDX), _bits("8 amx_complex, 15 user_msr, 21 apx"), _LACKS),
    Rule((0xD, 1, EAX), _bits("1 xsavec, 3 xsaves"), _LACKS),
    Rule((0xD, 1, EAX), _bits("2 xgetbv1, 4 xfd"), "the emulator has no XINUSE and no XFD"),
    Rule((0x8000_0001, 0, ECX), _bits("16 fma4"), _LACKS),
    Rule((0x8000_0001, 0, ECX), _bits("11 xop, 15 lwp, 21 tbm"), _SILENT),
    Rule((0x8000_0001, 0, ECX), _bits("29 mwaitx"), _LACKS),
    Rule((0x8000_0001, 0, EDX), _bits("30 3dnowext, 31 3dnow"), _LACKS),
    Rule((0x8000_0008, 0, EBX), _bits("0 clzero, 4 rdpru, 8 mcommit"), _LACKS),
)

_EXECUTED: Final = "the emulator executes it"
_SYSTEM: Final = "not for code outside the kernel, or no instruction belongs to it"

# Bits that stay as they are. In these words a bit that is in neither list is hidden: it belongs to
# a processor newer than the emulator.
SHOWN: Final = (
    Rule(
        (1, 0, ECX),
        _bits(
            "0 pni, 1 pclmulqdq, 9 ssse3, 13 cx16, 19 sse4_1, 20 sse4_2, 22 movbe, "
            "23 popcnt, 25 aes, 26 xsave, 27 osxsave, 30 rdrand"
        ),
        _EXECUTED,
    ),
    Rule(
        (1, 0, ECX),
        _bits(
            "2 dtes64, 4 ds_cpl, 5 vmx, 6 smx, 7 est, 8 tm2, 10 cid, 11 sdbg, 14 xtpr, "
            "15 pdcm, 17 pcid, 18 dca, 21 x2apic, 24 tsc_deadline_timer, 31 hypervisor"
        ),
        _SYSTEM,
    ),
    Rule((7, 0, EBX), _bits("0 fsgsbase, 3 bmi1, 8 bmi2, 9 erms, 18 rdseed"), _EXECUTED),
    Rule(
        (7, 0, EBX),
        _bits(
            "1 tsc_adjust, 6 fdp_excptn_only, 7 smep, 10 invpcid, 12 cqm, "
            "13 zero_fcs_fds, 15 rdt_a, 20 smap"
        ),
        _SYSTEM,
    ),
    Rule((7, 0, ECX), _bits("25 cldemote"), "a hint, which the emulator ignores"),
    Rule(
        (7, 0, ECX),
        _bits(
            "2 umip, 13 tme, 16 la57, 24 bus_lock_detect, 31 pks, 17 mawau_0, "
            "18 mawau_1, 19 mawau_2, 20 mawau_3, 21 mawau_4"
        ),
        _SYSTEM,
    ),
    Rule((7, 0, EDX), _bits("4 fsrm"), "REP MOVSB is only said to be fast"),
    Rule(
        (7, 0, EDX),
        _bits(
            "9 srbds_ctrl, 10 md_clear, 11 rtm_always_abort, 13 tsx_force_abort, "
            "15 hybrid_cpu, 18 pconfig, 19 arch_lbr, 26 spec_ctrl, 27 intel_stibp, "
            "28 flush_l1d, 29 arch_capabilities, 30 core_capabilities, "
            "31 spec_ctrl_ssbd"
        ),
        _SYSTEM,
    ),
    Rule((7, 1, EAX), _bits("10 fzrm, 11 fsrs, 12 fsrc"), "strings are only said to be fast"),
    Rule((7, 1, EAX), _bits("17 fred, 18 lkgs, 19 wrmsrns, 22 hreset, 26 lam"), _SYSTEM),
    Rule((7, 1, EBX), _bits("0 intel_ppin"), _SYSTEM),
    Rule((7, 1, ECX), _bits(""), "nothing known in it"),
    Rule((7, 1, EDX), _bits("14 prefetchi, 18 cet_sss"), _SYSTEM),
    Rule((0xD, 1, EAX), _bits("0 xsaveopt"), _EXECUTED),
)


def _masks(rules: tuple[Rule, ...]) -> dict[Word, int]:
    masks: dict[Word, int] = {}
    for rule in rules:
        bits = sum(1 << bit for bit in rule.bits)
        masks[rule.word] = masks.get(rule.word, 0) | bits
    return masks


_SHOWN_MASKS: Final = _masks(SHOWN)
_HIDDEN_MASKS: Final = _masks(HIDDEN)


def visible(word: Word, value: int) -> int:
    """The bits of a word that a program under the reference engine sees."""
    if word in _SHOWN_MASKS:
        return value & _SHOWN_MASKS[word]
    return value & ~_HIDDEN_MASKS.get(word, 0)


HIDDEN_FLAGS: Final = frozenset(flag for rule in HIDDEN for flag in rule.bits.values())


def flag_is_hidden(flag: str) -> bool:
    """Whether a flag of /proc/cpuinfo names a hidden feature; all flags of AVX and AMX do."""
    return flag in HIDDEN_FLAGS or flag.startswith(("avx", "amx"))


def _state_of(feature: str, rule: Rule) -> int:
    """The bits of XFRM that a hidden feature needs; 0 if it has no registers of its own."""
    if feature.startswith("amx"):
        return XFRM_AMX
    if feature.startswith(("avx512", "avx10")):
        return XFRM_AVX512 | XFRM_AVX
    if feature in ("pku", "ospke"):
        return XFRM_PKRU
    if feature == "mpx":
        return XFRM_MPX
    return XFRM_AVX if rule.why is _VEX or feature in ("fma4", "xop") else 0


def with_state(word: Word, value: int, xfrm: int) -> int:
    """The bits of a word without features whose registers are not in XFRM.

    Runtimes choose the XFRM of an enclave by these bits, and ECREATE refuses what the part lacks.
    """
    lacking = (
        1 << bit
        for rule in HIDDEN
        if rule.word == word
        for bit, feature in rule.bits.items()
        if _state_of(feature, rule) & ~xfrm
    )
    return value & MASK32 & ~sum(lacking)
