"""The three published orders of a permission change.

Sources: intel/confidential-computing.sgx.emm, gramineproject/gramine, enarx/enarx.

An order brings pages from rights `old` to rights `new`. Afterwards the EPCM has exactly `new`,
verified by EACCEPT, and no processor holds a wider translation. The host's answers only decide
whether it is asked again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.spec.epcm import R

if TYPE_CHECKING:
    from softsgx.sim import Steps
    from softsgx.system.enclave import EnclaveThread
    from softsgx.system.runtimes.manager import Order, TrustedManager


class IntelEmm:
    """Intel SDK, EMM: EMODPR, EMODPE, EACCEPT. Passes through old AND new.

    EMODPE only if rights are added, EACCEPT only if some were removed; mprotect to nothing comes
    after EACCEPT, which needs the page mapped.
    """

    name = "intel-emm"

    def change(
        self, m: TrustedManager, t: EnclaveThread, pages: list[int], old: int, new: int
    ) -> Steps[None]:
        """Rights old -> new, as emm does it."""
        removes, adds = old & ~new, new & ~old
        if removes:
            yield from m.restrict(t, pages, new)
        if new:
            yield from m.mprotect(t, pages, new | R)
        if adds:
            yield from m.extend(t, pages, new)
        if removes:
            yield from m.accept_restricted(t, pages, new)
        if not new:
            yield from m.mprotect(t, pages, 0)


class Gramine:
    """Gramine: EMODPE, EMODPR, EACCEPT, whatever the direction. Passes through old OR new."""

    name = "gramine"

    def change(
        self, m: TrustedManager, t: EnclaveThread, pages: list[int], old: int, new: int
    ) -> Steps[None]:
        """Rights old -> new, as Gramine does it."""
        if new:
            yield from m.extend(t, pages, new)
        yield from m.restrict(t, pages, new)
        yield from m.accept_restricted(t, pages, new)
        # Never to nothing: EMODPE and EACCEPT of the next change need the page mapped.
        yield from m.mprotect(t, pages, new | R)


class Enarx:
    """Enarx: mprotect, RESTRICT to R, EACCEPT, EMODPE. Always passes through R, which is kept."""

    name = "enarx"

    def change(
        self, m: TrustedManager, t: EnclaveThread, pages: list[int], old: int, new: int
    ) -> Steps[None]:
        """Rights old -> new | R, as Enarx does it."""
        yield from m.mprotect(t, pages, new | R)
        yield from m.restrict(t, pages, R)
        for page in pages:
            yield from m.accept_restricted(t, [page], R)
            if new & ~R:
                yield from m.extend(t, [page], new | R)


ORDERS: dict[str, Order] = {order.name: order for order in (IntelEmm(), Gramine(), Enarx())}
