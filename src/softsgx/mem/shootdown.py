"""TLB shootdown: other processors are interrupted so that they drop translations.

SDM 3A, 4.10.5 "Propagation of Paging-Structure Changes to Multiple Processors".

A page-table or EPCM entry that lost rights keeps working on every processor that has it in its TLB.
Software therefore interrupts those processors and waits. Inside an enclave every interrupt is an
asynchronous exit, and that alone drops all translations; this is what tracking counts on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from softsgx.sim import Steps, ipi


class ShootdownTarget(Protocol):
    """A processor whose TLB can be shot down; `cpu.LogicalProcessor` is one."""

    @property
    def cpu(self) -> int:
        """Its number."""

    def interruptible(self) -> bool:
        """Whether it would take an interrupt now: it is not in the middle of a leaf."""

    def shootdown(self, pages: Sequence[int] | None, /) -> None:
        """Take the interrupt: AEX if inside an enclave, else drop the pages, or all if None."""


def shootdown(
    targets: Iterable[ShootdownTarget], pages: Iterable[int] | None = None
) -> Steps[None]:
    """Have every target drop its translations, and wait until all have.

    `pages` holds a linear address in each page to drop; None drops all. With no page at all it is
    the bare interrupt, which flushes the processors that are inside an enclave and no other: what
    Linux sends after ETRACK (Linux 6.12, sgx/main.c, sgx_ipi_cb).

    The points are those of `sim.ipi`; the sender's own processor needs no interrupt.
    """
    dropped = None if pages is None else tuple(pages)
    yield from ipi(targets, lambda target: target.shootdown(dropped))
