"""Enclaves built and destroyed in virtual time."""

from __future__ import annotations

from typing import NamedTuple

from softsgx.image.image import EnclaveImage
from softsgx.lab.enclaves import all_measured, static_heap
from softsgx.lab.measured import run_timed
from softsgx.lab.prices import Profile
from softsgx.linux.version import NO_RACES
from softsgx.sim import Steps, VirtualTime
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system.loader import load
from softsgx.system.machine import Machine


class Layout(NamedTuple):
    """The pages of an enclave: with EEXTEND, without it, and those of the heap, without it too."""

    measured: int
    plain: int
    heap: int


def built(
    profile: Profile, enclave: EnclaveImage, epc_pages: int, destroy: bool = True
) -> VirtualTime:
    """Build an enclave, and destroy it."""
    machine = Machine(cpus=1, epc=epc_pages * PAGE_SIZE, races=NO_RACES)
    host = machine.thread()
    time = VirtualTime(profile.prices(machine.processor))

    def body() -> Steps[None]:
        yield from load(host, enclave)
        if destroy:
            yield from host.exit()

    run_timed(machine, time, [(body(), 0)])
    return time


def loading(profile: Profile, layout: Layout, *, edmm: bool) -> float:
    """Cycles of loading, by the cost of a page of each kind; with EDMM the heap is not added."""
    plain, start = _line(profile, [static_heap(n) for n in (64, 192)], 64)
    measured, _ = _line(profile, [all_measured(n) for n in (64, 192)], 64)
    pages = layout.plain + (0 if edmm else layout.heap)
    return start + plain * pages + measured * layout.measured


def _line(profile: Profile, enclaves: list[EnclaveImage], pages: int) -> tuple[float, float]:
    """(cycles per page, cycles at 0 pages) of two enclaves of `pages` and of three times that."""
    low, high = (built(profile, enclave, 1024, destroy=False).elapsed for enclave in enclaves)
    slope = (high - low) / (2 * pages)
    return slope, low - slope * pages
