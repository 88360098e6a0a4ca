"""The published orders of a permission change, adapted to how each design restricts.

If a design restricts by an ioctl, the orders are those of `system.runtimes`. Otherwise one call
restricts and changes the VMA, and a runtime must call twice to keep its own order, or cannot keep
it: then EACCEPT fails in the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from softsgx.lab.designs.base import BY_IOCTL, BY_MPROTECT, BY_V2, TO_READ, Design
from softsgx.lab.designs.ioctl_v2 import IoctlV2
from softsgx.linux.errno import errno_text
from softsgx.spec.epcm import R, rwx_text
from softsgx.system.enclave import EnclaveAbort
from softsgx.system.runtimes import ORDERS, TrustedManager, order_of
from softsgx.system.runtimes.manager import Order
from softsgx.system.runtimes.untrusted import Answer, Untrusted, retry

if TYPE_CHECKING:
    from softsgx.sim import Steps
    from softsgx.system.enclave import EnclaveThread
    from softsgx.system.host import HostThread
    from softsgx.system.loaded_enclave import Enclave

Pages = list[int]


class LabUntrusted(Untrusted):
    """The host's side for a design. `errors` collects the failures of mprotect()."""

    def __init__(self, enclave: Enclave, design: Design) -> None:
        super().__init__(enclave)
        self.design = design
        self.errors: list[str] = []

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        """The design's ioctl, in the usual retry loop."""

        def call(host: Any, address: int, length: int, rights: int) -> Steps[tuple[int, Any]]:
            return (yield from self.design.restrict(host, self.enclave, address, length, rights))

        return (yield from retry(host, call, address, length, rights))

    def relax(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        """RELAX_PERMISSIONS of the V2 series."""
        design = self.design
        assert isinstance(design, IoctlV2)

        def call(host: Any, address: int, length: int, rights: int) -> Steps[tuple[int, Any]]:
            return (yield from design.relax(host, self.enclave, address, length, rights))

        return (yield from retry(host, call, address, length, rights))

    def mprotect(self, host: HostThread, address: int, length: int, rights: int) -> Steps[int]:
        """mprotect(2); an error is kept for the report."""
        ret = yield from super().mprotect(host, address, length, rights)
        if ret:
            self.errors.append(f"mprotect({rwx_text(rights)}) at {address:#x}: {errno_text(ret)}")
        return ret


class _Adapted:
    """An order adapted to one way of restricting."""

    def __init__(self, name: str) -> None:
        self.name = name


class _IntelMprotect(_Adapted):
    """mprotect(new), EMODPE if rights are added, EACCEPT if some were removed."""

    def change(
        self, m: TrustedManager, t: EnclaveThread, pages: Pages, old: int, new: int
    ) -> Steps[None]:
        """Rights old -> new."""
        yield from m.mprotect(t, pages, new)
        if new & ~old:
            yield from m.extend(t, pages, new)
        if old & ~new:
            yield from m.accept_restricted(t, pages, new)


class _GramineMprotect(_Adapted):
    """EMODPE, mprotect(new), EACCEPT, whatever the direction."""

    def change(
        self, m: TrustedManager, t: EnclaveThread, pages: Pages, old: int, new: int
    ) -> Steps[None]:
        """Rights old -> new."""
        if new:
            yield from m.extend(t, pages, new)
        yield from m.mprotect(t, pages, new)
        yield from m.accept_restricted(t, pages, new)


class _EnarxMprotect(_Adapted):
    """mprotect(R), EACCEPT, EMODPE, and mprotect(new) for the VMA: two calls."""

    def change(
        self, m: TrustedManager, t: EnclaveThread, pages: Pages, old: int, new: int
    ) -> Steps[None]:
        """Rights old -> new | R."""
        yield from m.mprotect(t, pages, R)
        yield from m.accept_restricted(t, pages, R)
        if new & ~R:
            yield from m.extend(t, pages, new | R)
            yield from m.mprotect(t, pages, new | R)


class _IntelRead(_Adapted):
    """mprotect(new), which leaves R; EMODPE to new; EACCEPT of new."""

    def change(
        self, m: TrustedManager, t: EnclaveThread, pages: Pages, old: int, new: int
    ) -> Steps[None]:
        """Rights old -> new."""
        yield from m.mprotect(t, pages, new)
        if new & ~R:
            yield from m.extend(t, pages, new)
        yield from m.accept_restricted(t, pages, new)


class _EnarxRead(_Adapted):
    """mprotect(new), which leaves R; EACCEPT of R; EMODPE to new: its own order, in one call."""

    def change(
        self, m: TrustedManager, t: EnclaveThread, pages: Pages, old: int, new: int
    ) -> Steps[None]:
        """Rights old -> new | R."""
        yield from m.mprotect(t, pages, new | R)
        yield from m.accept_restricted(t, pages, R)
        if new & ~R:
            yield from m.extend(t, pages, new | R)


RUNTIMES: Final = ("intel-emm", "gramine", "enarx")

_ORDERS: Final[dict[tuple[str, str], Order]] = {
    **{(name, BY_IOCTL): ORDERS[name] for name in RUNTIMES},
    **{(name, BY_V2): order_of(name, relax=True) for name in RUNTIMES},
    ("intel-emm", BY_MPROTECT): _IntelMprotect("intel-emm"),
    ("gramine", BY_MPROTECT): _GramineMprotect("gramine"),
    ("enarx", BY_MPROTECT): _EnarxMprotect("enarx"),
    ("intel-emm", TO_READ): _IntelRead("intel-emm"),
    # Gramine's EMODPE comes first, and mprotect() undoes it: EACCEPT fails.
    ("gramine", TO_READ): _GramineMprotect("gramine"),
    ("enarx", TO_READ): _EnarxRead("enarx"),
}


def order(runtime: str, design: Design) -> Order:
    """The order of a runtime, adapted to a design."""
    return _ORDERS[runtime, design.asks]


def abort_text(error: EnclaveAbort, untrusted: LabUntrusted) -> str:
    """An abort in one line, with the refusal of mprotect() before it."""
    return "; ".join([*untrusted.errors[-1:], str(error)])
