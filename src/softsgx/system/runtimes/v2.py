"""The orders of a permission change, adapted to the V2 series.

There RELAX_PERMISSIONS announces an extension, because PTEs follow the kernel's mirror of the EPCM;
mprotect() may not exceed the mirror, so it comes after RELAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.spec.epcm import R
from softsgx.system.runtimes.orders import ORDERS

if TYPE_CHECKING:
    from softsgx.sim import Steps
    from softsgx.system.enclave import EnclaveThread
    from softsgx.system.runtimes.manager import Order, TrustedManager


class IntelEmmV2:
    """Intel EMM: EMODPR, EMODPE and RELAX if rights are added, EACCEPT."""

    name = "intel-emm"

    def change(
        self, m: TrustedManager, t: EnclaveThread, pages: list[int], old: int, new: int
    ) -> Steps[None]:
        """Rights old -> new."""
        removes, adds = old & ~new, new & ~old
        if removes:
            yield from m.restrict(t, pages, new)
        if adds:
            yield from m.extend(t, pages, new)
            yield from m.relax(t, pages, new)
        if new:
            yield from m.mprotect(t, pages, new | R)
        if removes:
            yield from m.accept_restricted(t, pages, new)
        if not new:
            yield from m.mprotect(t, pages, 0)


class EnarxV2:
    """Enarx: RESTRICT to R, EACCEPT, EMODPE, RELAX; mprotect last, once the mirror permits it."""

    name = "enarx"

    def change(
        self, m: TrustedManager, t: EnclaveThread, pages: list[int], old: int, new: int
    ) -> Steps[None]:
        """Rights old -> new | R."""
        yield from m.restrict(t, pages, R)
        for page in pages:
            yield from m.accept_restricted(t, [page], R)
            if new & ~R:
                yield from m.extend(t, [page], new | R)
        if new & ~R:
            yield from m.relax(t, pages, new | R)
        yield from m.mprotect(t, pages, new | R)


V2_ORDERS: Final[dict[str, Order]] = {
    "intel-emm": IntelEmmV2(),
    # RESTRICT(new) comes after EMODPE and sets the mirror as well: nothing to adapt.
    "gramine": ORDERS["gramine"],
    "enarx": EnarxV2(),
}


def order_of(name: str, *, relax: bool) -> Order:
    """A runtime's order for a kernel with RELAX_PERMISSIONS, or without."""
    return (V2_ORDERS if relax else ORDERS)[name]
