"""CPUID as a supervised program sees it: the real processor, with SGX and without the rest.

| leaf | what the program gets | because |
| --- | --- | --- |
| 0 | the highest leaf is at least 12H; the vendor by option | loaders look for 12H only up to it |
| 1 | reference engine: without AVX, FMA, F16C (`cpu_features`) | runtimes derive XFRM from these |
| 7.0 | EBX.SGX, ECX.SGX_LC as the part has them; EDX.SGX_KEYS clear | EUPDATESVN is not modelled |
| 7.0, 7.1 | reference engine: only what the emulator executes | hosts tell their enclaves |
| 0DH | reference engine: XCR0 = 3, 576 bytes, no XSAVEC | frames get sizes from it |
| 12H | the model's own, and its EPC | ECREATE and EINIT check against the same part |
| 1DH, 1EH, 24H | reference engine: nothing | AMX and AVX10 are hidden |
| above the real highest leaf | nothing, except 12H | a real one answers with another leaf's data |
| 80000000H | vendor by option; AMD repeats it, others have zeros | it must not contradict leaf 0 |
| 80000001H, 80000008H | reference engine: without XOP, FMA4, CLZERO and such | as leaf 1 |
| all others | the real one | topology, caches, frequencies and brand describe the host |

With the native engine enclaves run on the real processor: every feature stays whose registers are
in XFRM, and XFRM is what both processor and model know (`default_xfrm`, `--xfrm`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Final, Literal

from softsgx.cpu.part import DEFAULT_PART, SGX1_PART, XSAVE_COMPONENTS, Part, xsave_size
from softsgx.runner.cpuid.cpu_features import Word, visible, with_state
from softsgx.runner.host.native_code import MachineCode
from softsgx.spec.attributes import XFRM_AMX, XFRM_LEGACY
from softsgx.spec.bits import MASK32
from softsgx.spec.cpuid import (
    LEAF7_EBX_SGX,
    LEAF7_ECX_SGX_LC,
    LEAF7_EDX_SGX_KEYS,
    NOTHING,
    Registers,
)

Engine = Literal["unicorn", "native"]
Native = Callable[[int, int], Registers]

LEAF_SGX: Final = 0x12
_XSAVE_LEGACY_BYTES: Final = 576  # x87, SSE and the XSAVE header
_HYPERVISOR: Final = 0x4000_0000
_EXTENDED: Final = 0x8000_0000
_TILES_AND_AVX10: Final = (0x1D, 0x1E, 0x24)
_AMD: Final = (b"AuthenticAMD", b"HygonGenuine")
# Answers of these differ from one processor to the next, so they are asked each time.
_PER_PROCESSOR: Final = frozenset({1, 4, 0xB, 0x1A, 0x1F, 0x8000_001D, 0x8000_001E})

# push rbx; mov r8,rdx; mov eax,edi; mov ecx,esi; cpuid; store eax, ebx, ecx, edx at r8; pop rbx
_CPUID_CODE: Final = bytes.fromhex(
    "53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3"
)


@cache
def _cpuid_code() -> MachineCode:
    return MachineCode(_CPUID_CODE, None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)


def native_cpuid(leaf: int, subleaf: int) -> Registers:
    """Execute CPUID on the processor of this machine."""
    answer = (ctypes.c_uint32 * 4)()
    _cpuid_code().call(leaf, subleaf, ctypes.addressof(answer))
    return Registers(*answer)


def native_xfrm(native: Native = native_cpuid) -> int:
    """The XSAVE components that the processor has enabled and the model knows.

    A component that the processor keeps at another offset than the model is left out (PKRU on AMD):
    the two would not agree on the size of an SSA frame.
    """
    xfrm = XFRM_LEGACY
    if native(0, 0).eax < 0xD:
        return xfrm
    # Not AMX: each process must ask the kernel for tiles, and its signal frames grow by them.
    supported = native(0xD, 0).eax & ~XFRM_AMX
    for bit, place in XSAVE_COMPONENTS.items():
        if supported >> bit & 1 and native(0xD, bit)[:2] == place:
            xfrm |= 1 << bit
    # The three parts of AVX-512 come together, and only with AVX. SDM 1, 13.3 "Enabling the XSAVE
    # Feature Set and XSAVE-Enabled Features".
    if xfrm & 0b1110_0100 != 0b1110_0100:
        xfrm &= ~0b1110_0000
    return xfrm


def default_xfrm(native: Native = native_cpuid) -> int:
    """XFRM of the native engine, unless `--xfrm` says otherwise: `native_xfrm`, or x87 and SSE.

    Inside an enclave XCR0 is XFRM, so an area of that size holds all components. Here XCR0 stays
    the process's: if that has more, which the area has no room for (AMX), XSAVE writes beyond it.
    With x87 and SSE alone, runtimes use FXSAVE.
    """
    xfrm = native_xfrm(native)
    enabled = native(0xD, 0).ebx if native(0, 0).eax >= 0xD else 0
    return xfrm if enabled <= xsave_size(xfrm) else XFRM_LEGACY


def part_for(engine: Engine, sgx1: bool = False, native: Native = native_cpuid) -> Part:
    """The processor model for an engine; leaves that it lacks fault as on a real part."""
    xfrm = XFRM_LEGACY if engine == "unicorn" else default_xfrm(native)
    part = SGX1_PART if sgx1 else DEFAULT_PART
    return replace(part, xfrm=xfrm, absent_leaves_fault=True)


class CpuidPolicy:
    """Answers CPUID for supervised programs. `sections` of the EPC are (physical base, bytes)."""

    def __init__(
        self,
        part: Part,
        sections: Sequence[tuple[int, int]],
        engine: Engine,
        vendor: bytes | None = None,
        native: Native = native_cpuid,
    ) -> None:
        if engine == "unicorn" and part.xfrm != XFRM_LEGACY:
            raise ValueError(f"CpuidPolicy: XFRM {part.xfrm:#x}: the emulator saves 0x3 only")
        if vendor is not None and len(vendor) != 12:
            raise ValueError(f"CpuidPolicy: vendor {vendor!r} has {len(vendor)} bytes, not 12")
        self.part = part
        self.sections = tuple(sections)
        self.engine = engine
        self.vendor = vendor
        self.native = native
        self._native_max = native(0, 0).eax
        self._answers: dict[tuple[int, int], Registers] = {}

    def cpuid(self, leaf: int, subleaf: int) -> Registers:
        """What the program gets; executes the real CPUID only where its answer matters."""
        leaf, subleaf = leaf & MASK32, subleaf & MASK32
        if leaf == LEAF_SGX:  # probed thousands of times; CPUID may cost 30 us in a VM
            return self.apply(leaf, subleaf, NOTHING)
        if leaf in _PER_PROCESSOR:
            return self.apply(leaf, subleaf, self.native(leaf, subleaf))
        found = self._answers.get((leaf, subleaf))
        if found is None:
            if len(self._answers) >= 1024:  # a program that counts through all sub-leaves
                self._answers.clear()
            found = self.apply(leaf, subleaf, self.native(leaf, subleaf))
            self._answers[leaf, subleaf] = found
        return found

    def apply(self, leaf: int, subleaf: int, native: tuple[int, int, int, int]) -> Registers:
        """What the program gets if the real processor answers `native`."""
        leaf, subleaf = leaf & MASK32, subleaf & MASK32
        real = Registers(*native)
        if self._native_max < leaf < _HYPERVISOR:
            real = NOTHING
        if leaf == LEAF_SGX:
            return self.part.cpuid(LEAF_SGX, subleaf, self.sections)
        if leaf == 0:
            return self._with_vendor(real)._replace(eax=max(real.eax, LEAF_SGX))
        if leaf == _EXTENDED:
            return self._extended(real)
        if self.engine == "unicorn":
            real = _reference(leaf, subleaf, real)
        else:
            real = _words(
                leaf, subleaf, real, lambda at, word: with_state(at, word, self.part.xfrm)
            )
        if (leaf, subleaf) == (7, 0):
            return self._leaf7(real)
        return real

    def _leaf7(self, real: Registers) -> Registers:
        """Leaf 7 with the bits of SGX as the model has them, whatever the host's processor says.

        The bits of CET stay the host's: they say what code outside enclaves may do.
        """
        model = self.part.cpuid(7, 0, self.sections)
        return real._replace(
            ebx=real.ebx & ~LEAF7_EBX_SGX | model.ebx,
            ecx=real.ecx & ~LEAF7_ECX_SGX_LC | model.ecx & LEAF7_ECX_SGX_LC,
            edx=real.edx & ~LEAF7_EDX_SGX_KEYS | model.edx & LEAF7_EDX_SGX_KEYS,
        )

    def _with_vendor(self, real: Registers) -> Registers:
        """The registers with the vendor of the option in EBX, EDX, ECX."""
        if self.vendor is None:
            return real
        ebx, edx, ecx = (int.from_bytes(self.vendor[i : i + 4], "little") for i in (0, 4, 8))
        return real._replace(ebx=ebx, edx=edx, ecx=ecx)

    def _extended(self, real: Registers) -> Registers:
        if self.vendor is None or self.vendor in _AMD:
            return self._with_vendor(real)
        return Registers(real.eax, 0, 0, 0)


def _reference(leaf: int, subleaf: int, real: Registers) -> Registers:
    """An answer without what the reference engine cannot execute or save."""
    if leaf in _TILES_AND_AVX10:
        return NOTHING
    if leaf == 0xD and subleaf == 0:
        return Registers(XFRM_LEGACY, _XSAVE_LEGACY_BYTES, _XSAVE_LEGACY_BYTES, 0)
    if leaf == 0xD and subleaf == 1:
        return Registers(visible((0xD, 1, 0), real.eax), 0, 0, 0)
    if leaf == 0xD:
        return NOTHING
    return _words(leaf, subleaf, real, visible)


def _words(
    leaf: int, subleaf: int, real: Registers, shown: Callable[[Word, int], int]
) -> Registers:
    """An answer of which `shown` leaves some bits in each word."""
    # Leaves without sub-leaves give the same answer for any.
    where = subleaf if leaf == 7 else 0
    return Registers(*(shown((leaf, where, n), value) for n, value in enumerate(real)))
