"""A processor: a package whose logical processors execute."""

from __future__ import annotations

from collections.abc import Sequence

from softsgx.cpu.dispatch import leaves_of
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.part import DEFAULT_PART, Part
from softsgx.cpu.readings import DEFAULT_READINGS, Readings
from softsgx.cpu.state import Package
from softsgx.sim.events import Log
from softsgx.spec import cpuid


def _check_arguments(
    epc_pages: object, lps: object, seed: object, part: object, readings: object
) -> None:
    for name, value, least in (("epc_pages", epc_pages, 1), ("lps", lps, 1), ("seed", seed, None)):
        if not isinstance(value, int):
            raise TypeError(f"Processor: {name}={value!r}, an integer is needed")
        if least is not None and value < least:
            raise ValueError(f"Processor: {name}={value}, at least {least} is needed")
    for name, value, kind in (("part", part, Part), ("readings", readings, Readings)):
        if not isinstance(value, kind):
            raise TypeError(f"Processor: {name}={value!r}, a {kind.__name__} is needed")


class Processor(Package):
    """A package with `lps` logical processors and `epc_pages` pages of EPC.

    `sections` gives EPC sections as (physical base, pages) pairs instead of one default section.
    `seed` determines every key of the machine. `part` is the features that it announces, `readings`
    how the open points of the manual are read. `space` is the address space all processors start
    in.
    """

    __slots__ = ()

    lps: list[LogicalProcessor]

    def __init__(
        self,
        epc_pages: int = 1024,
        *,
        lps: int = 2,
        seed: int = 0,
        part: Part = DEFAULT_PART,
        readings: Readings = DEFAULT_READINGS,
        sections: Sequence[tuple[int, int]] | None = None,
        log: Log | None = None,
    ) -> None:
        _check_arguments(epc_pages, lps, seed, part, readings)
        super().__init__(
            epc_pages, seed, part, readings, sections, log if log is not None else Log()
        )
        self.encls_leaves = leaves_of(part, "ENCLS")
        self.enclu_leaves = leaves_of(part, "ENCLU")
        self.lps = [LogicalProcessor(self, number, self.space) for number in range(lps)]

    def cpuid(self, leaf: int, subleaf: int = 0) -> cpuid.Registers:
        """CPUID leaf 7 or 12H."""
        return self.part.cpuid(leaf, subleaf, self.epc.cpuid_sections())
