"""Design `fault-always`: as `fault-once`, but every fault restricts.

It answers the question how the handler knows whether EMODPE has run since the last fault. If it
applied to every page of the enclave, the first fault on an SSA frame would take its W, and no
thread could enter. So it applies only to pages for which mprotect() was ever called; with
`literally` it applies to every page.
"""

from softsgx.lab.designs.fault_once import FaultOnce
from softsgx.linux.process import Thread
from softsgx.linux.sgx.encl import SgxEncl, SgxEnclPage
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SHIFT


class FaultAlways(FaultOnce):
    """mprotect(prot) as in fault-once; the mark stays, so each later fault runs EMODPR(R) again."""

    name = "fault-always"
    about = "as fault-once, but the mark stays: EMODPR(R) on every later fault, too"
    forgets = False

    def __init__(self, *, literally: bool = False) -> None:
        super().__init__()
        self.literally = literally

    def before_pte(self, current: Thread, encl: SgxEncl, entry: SgxEnclPage) -> Steps[int]:
        """EMODPR(R), even if an earlier fault has restricted the page."""
        if self.literally:
            self.marked[encl, entry.address >> PAGE_SHIFT] = None
        return (yield from super().before_pte(current, encl, entry))
