"""A processor without an operating system: put operands into memory, execute leaves, look.

`Bare` plays the ring-0 software that builds enclaves, and `BareEnclave` the code inside. Neither is
a kernel: nothing is locked, tracked or retried for the caller. They exist so that a few lines of
Python reach every leaf, in tests, benchmarks and at the prompt:

    bare = Bare(epc_pages=64)
    enclave = bare.enclave(pages=4)
    page = enclave.eaug(enclave.heap)
    enclave.enter()
    enclave.eaccept(enclave.heap, REG | PENDING | R | W)
"""

from __future__ import annotations

from typing import Final

from softsgx.cpu.bare_enclave import AEP, EXIT, BareEnclave
from softsgx.cpu.ring0 import Backing, Ring0
from softsgx.spec.attributes import ATTR_CET, ATTR_DEBUG, ATTR_MODE64BIT, MISC_EXINFO, XFRM_LEGACY
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import TCS
from softsgx.spec.secs import SECS
from softsgx.spec.tcs import TCS as TCS_PAGE

__all__ = ["AEP", "ENCLAVE_BASE", "EXIT", "Backing", "Bare", "BareEnclave"]

ENCLAVE_BASE: Final = 0x7F00_0000_0000


class Bare(Ring0):
    """Ring 0 that builds whole enclaves."""

    def _exinfo(self) -> int:
        """MISCSELECT of an enclave that wants EXINFO, where the part has it."""
        return self.processor.part.miscselect & MISC_EXINFO

    def enclave(
        self,
        *,
        pages: int = 1,
        threads: int = 1,
        nssa: int = 2,
        base: int = ENCLAVE_BASE,
        size: int = 1 << 20,
        attributes: int = ATTR_MODE64BIT | ATTR_DEBUG,
        xfrm: int = XFRM_LEGACY,
        miscselect: int | None = None,
        cet: int = 0,
        init: bool = True,
        measure: bool = False,
        secs: dict[str, int | bytes] | None = None,
        tcs: dict[str, int | bytes] | None = None,
    ) -> BareEnclave:
        """Build an enclave: per thread a TCS and `nssa` SSA pages; one scratch page; `pages` RW.

        With `cet`, SECS.CET_ATTRIBUTES, each thread has a PT_SS_REST page for the CET state save
        area and a PT_SS_FIRST page as shadow stack after its SSA. `secs` and `tcs` override fields
        of the source pages. All pages are mapped RWX in the page tables of the processor's first
        address space, shadow-stack pages as such.
        """
        fields: dict[str, int | bytes] = {
            "SIZE_": size,
            "BASEADDR": base,
            "SSAFRAMESIZE": 1,
            "MISCSELECT": self._exinfo() if miscselect is None else miscselect,
            "ATTRIBUTES": attributes | (ATTR_CET if cet else 0),
            "CET_ATTRIBUTES": cet,
            "XFRM": xfrm,
        }
        fields.update(secs or {})
        enclave = BareEnclave(self, self.ecreate(SECS(**fields)), base, size)
        address = base
        for _ in range(threads):
            ssa = address + PAGE_SIZE
            block: dict[str, int | bytes] = {"OSSA": ssa - base, "NSSA": nssa, "OENTRY": 0x100}
            block["OCETSSA"] = ssa + nssa * PAGE_SIZE - base if cet else 0
            block.update(tcs or {})
            enclave.tcs.append(address)
            enclave.add(address, TCS_PAGE(**block).pack(), TCS, measure=measure)
            for frame in range(nssa):
                enclave.add(ssa + frame * PAGE_SIZE, measure=measure)
            address = ssa + nssa * PAGE_SIZE
            if cet:
                enclave.add_shadow_stack(address + PAGE_SIZE, address, measure=measure)
                address += 2 * PAGE_SIZE
        enclave.scratch = address
        enclave.add(address, measure=measure)
        for _ in range(pages):
            address += PAGE_SIZE
            enclave.data.append(address)
            enclave.add(address, measure=measure)
        enclave.heap = address + PAGE_SIZE
        if init:
            status = self.einit(enclave.secs, self.sigstruct(enclave.secs))
            assert status == 0, f"EINIT: {status!r}"
        return enclave
