"""Design `mprotect-read`: mprotect() changes the VMA and resets the EPCM to R.

The enclave accepts R and extends with EMODPE. This is the final form of the proposal of 17 to 20
March 2022. A partial failure is -EIO, after which the runtime was expected to rebuild the enclave.
"""

from softsgx.lab.designs.base import TO_READ, MprotectDesign, restrict_in_mprotect
from softsgx.linux.process import Thread
from softsgx.linux.sgx.encl import SgxEncl
from softsgx.sim import Steps
from softsgx.spec.epcm import R


class MprotectRead(MprotectDesign):
    """mprotect(prot): VMA := prot, EPCM := EPCM and R."""

    name = "mprotect-read"
    about = "mprotect() resets the EPCM to R; the enclave extends by EMODPE"
    asks = TO_READ

    def after_mprotect(
        self, current: Thread, encl: SgxEncl, start: int, end: int, prot: int
    ) -> Steps[int]:
        """EMODPR(R) of every page in the area."""
        return (yield from restrict_in_mprotect(current, encl, start, end, R))
