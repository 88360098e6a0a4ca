"""One instruction for each feature that CPUID announces or hides, and an emulator to try it in.

Encodings from SDM 2 and AMD's manual, volume 3; memory operands are at RAX, RDI, RCX, or RSP.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

# The package has no types.
unicorn: Any = import_module("unicorn")
x86: Any = import_module("unicorn.x86_const")

# By the flag's name in /proc/cpuinfo.
EXECUTED: Final = {
    "pni": "f20fd0c1",  # addsubps
    "pclmulqdq": "660f3a44c100",
    "ssse3": "660f3800c1",  # pshufb
    "cx16": "480fc70f",
    "sse4_1": "660f3817c1",  # ptest
    "sse4_2": "f20f38f1c1",  # crc32
    "movbe": "0f38f000",
    "popcnt": "f30fb8c1",
    "aes": "660f38dcc1",
    "xsave": "0fae27",
    "osxsave": "0f01d0",  # xgetbv
    "rdrand": "0fc7f0",
    "fsgsbase": "f30faec0",
    "bmi1": "c4e270f2c0",  # andn
    "bmi2": "c4e2fbf6c1",  # mulx
    "erms": "f3a4",
    "rdseed": "0fc7f8",
    "xsaveopt": "0fae37",
}

REFUSED: Final = {
    "fma": "c4e27198c1",
    "f16c": "c4e27913c1",
    "monitor": "0f01c8",
    "avx2": "c5f5fec1",  # vpaddd ymm
    "avx512f": "62f17c4858c1",
    "adx": "660f38f6c1",
    "clflushopt": "660fae38",
    "clwb": "660fae30",
    "sha_ni": "0f38cbc1",
    "intel_pt": "f3480faee0",  # ptwrite
    "vaes": "c4e275dcc1",
    "vpclmulqdq": "c4e37544c100",
    "gfni": "660f38cfc1",
    "rdpid": "f30fc7f8",
    "movdiri": "0f38f908",
    "movdir64b": "660f38f808",
    "aeskle": "f30f38dcc1",
    "enqcmd": "f20f38f808",
    "pku": "0f01ee",
    "serialize": "0f01e8",
    "avx_vnni": "c4e27550c1",
    "raoint": "0f38fc08",
    "cmpccxadd": "c4e271e000",
    "amx_tile": "c4e27b4904250000",
    "xsavec": "0fc727",
    "xsaves": "480fc72f",
    "fma4": "c4e3f96bc100",
    "mwaitx": "0f01fb",
    "3dnow": "0f0fc19e",
    "clzero": "0f01fc",
    "rdpru": "0f01fd",
    "mcommit": "f30f01fa",
}

# Executed by the emulator as something else: the registers do not change as they should.
WRONG: Final = {
    "avx": "c5f1fed0",  # vpaddd xmm2, xmm1, xmm0 adds to xmm2
    "waitpkg": "f20faef0",
    "rtm": "c7f800000000",  # xbegin must abort: nothing is transactional
    "xop": "8fe978c2c1",
    "lwp": "8fe97812c0",
    "tbm": "8fe97801c8",
}

CODE: Final = 0x1000
DATA: Final = 0x18000


def execute(encoding: str) -> int | None:
    """How many bytes the emulator takes the instruction for; None if it raises #UD."""
    code = bytes.fromhex(encoding)
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    engine.mem_map(CODE, 0x1000)
    engine.mem_map(0x10000, 0x10000)
    engine.mem_write(CODE, code + b"\x90" * 32)
    cr4 = 1 << 9 | 1 << 10 | 1 << 16 | 1 << 18  # OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE
    engine.reg_write(x86.UC_X86_REG_CR4, cr4)
    for register in (x86.UC_X86_REG_RDI, x86.UC_X86_REG_RSI, x86.UC_X86_REG_RSP):
        engine.reg_write(register, DATA)
    # EDX:EAX is the mask of XSAVE, or RAX an address.
    saves = encoding in (EXECUTED["xsave"], EXECUTED["xsaveopt"])
    engine.reg_write(x86.UC_X86_REG_RAX, 3 if saves else DATA)
    engine.reg_write(x86.UC_X86_REG_RCX, 0)
    try:
        engine.emu_start(CODE, CODE + len(code), count=1)
    except unicorn.UcError as error:
        if error.errno != unicorn.UC_ERR_INSN_INVALID:
            raise
        return None
    taken: int = engine.reg_read(x86.UC_X86_REG_RIP) - CODE
    return taken
