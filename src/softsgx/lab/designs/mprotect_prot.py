"""Design `mprotect-prot`: EMODPR with the requested rights inside mprotect().

The kernel cannot raise EPCM rights and does not know them, so every call counts as a restriction.
A failure is -EIO; VMA splits and the pages before the failure stay changed.
"""

from softsgx.lab.designs.base import BY_MPROTECT, MprotectDesign, restrict_in_mprotect
from softsgx.linux.process import Thread
from softsgx.linux.sgx.encl import SgxEncl
from softsgx.sim import Steps


class MprotectProt(MprotectDesign):
    """mprotect(prot): VMA := prot, EPCM := EPCM and prot."""

    name = "mprotect-prot"
    about = "mprotect() restricts the EPCM to the rights asked for"
    asks = BY_MPROTECT

    def after_mprotect(
        self, current: Thread, encl: SgxEncl, start: int, end: int, prot: int
    ) -> Steps[int]:
        """EMODPR(prot) of every page in the area."""
        return (yield from restrict_in_mprotect(current, encl, start, end, prot))
