"""What a real processor answered to ENCLU outside of enclaves, and the kernel to its exception.

Part: Xeon, Emerald Rapids (family 6, model 207), a virtual machine whose hypervisor hides SGX;
Linux 6.18, CPL 3, no enclave and no EPC in reach. Data, independent of the model; what the model
reads otherwise is a switch (docs/readings.md). Error codes are those of the signal frame.
"""

from typing import Final, NamedTuple

GP: Final = 13
PF: Final = 14
SI_KERNEL: Final = "SI_KERNEL"
ACCERR: Final = "SEGV_ACCERR"
MAPERR: Final = "SEGV_MAPERR"

# Every leaf number that was tried and is neither EENTER nor ERESUME: #GP(0), SI_KERNEL, whatever
# RBX and RCX.
OTHER_LEAVES: Final = (0, 1, *range(4, 16), 0x7FFF_FFFF, 0xFFFF_FFFF)
ENTRIES: Final = {"EENTER": 2, "ERESUME": 3}


class Row(NamedTuple):
    """EENTER and ERESUME answer alike. A #PF has the address of the last byte of RBX's page."""

    operands: str
    vector: int
    code: int
    si_code: str


ROWS: Final = (
    Row("RBX not page-aligned, mapped", GP, 0, SI_KERNEL),
    Row("RBX not page-aligned, unmapped", GP, 0, SI_KERNEL),
    Row("RBX not canonical", GP, 0, SI_KERNEL),
    Row("RBX a misaligned kernel address", GP, 0, SI_KERNEL),
    Row("RBX ordinary memory, RCX (AEP) not canonical", GP, 0, SI_KERNEL),
    Row("RBX unmapped, RCX (AEP) not canonical", GP, 0, SI_KERNEL),
    Row("RBX ordinary memory, present and writable", PF, 0x8007, ACCERR),
    Row("RBX ordinary memory, never touched", PF, 0x8007, ACCERR),
    Row("RBX read-only", PF, 7, ACCERR),
    Row("RBX read and execute", PF, 7, ACCERR),
    Row("RBX PROT_NONE", PF, 6, ACCERR),
    Row("RBX unmapped", PF, 6, MAPERR),
    Row("RBX 0", PF, 6, MAPERR),
    Row("RBX a kernel address, page-aligned", PF, 7, MAPERR),
    Row("RBX read-only, never touched", PF, 6, ACCERR),
    Row("RBX write-only", PF, 0x8007, ACCERR),
    Row("RBX past the last user page", PF, 7, MAPERR),
)
ROW: Final = {row.operands: row for row in ROWS}
