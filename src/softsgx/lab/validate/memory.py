"""Enclaves that are built, measured, loaded, and that touch their heap."""

from __future__ import annotations

from typing import Final

from softsgx.lab.building import Layout, built, loading
from softsgx.lab.enclaves import all_measured, static_heap
from softsgx.lab.heaps import grow, heap_touched
from softsgx.lab.join import THREADS
from softsgx.lab.prices import Profile
from softsgx.lab.timer import timer_exits
from softsgx.lab.validate.target import EXACT, Target

GIB4_PAGES: Final = 1 << 20
_GIB1_PAGES: Final = 1 << 18
_SAMPLE: Final = 512
_GRAPHENE: Final = "graphene PR 2154"

# The join of EDBT'25 with CHUNKED_TABLE and FORCE_2_PHASES, means of ten runs, cycles of the TSC:
# join_total of slow-malloc.csv with a heap that grows, and with a static one.
_JOIN_GROWING: Final = 5_478_627_803
_JOIN_STATIC: Final = 122_525_576
# 52,428,800 rows of 12 bytes, in chunks of 16 KiB, by 16 threads.
_OUTPUT_PAGES: Final = 153_600
_CHUNK_PAGES: Final = 4

# Bootstrap of graphene issue 583, as its loader lists it: manifest, code and data are measured;
# SSA, TCS, TLS, stacks and .bss are not, nor is the heap ("free").
_BOOTSTRAP: Final = Layout(measured=51, plain=8 + 4 + 4 + 64 + 16_387, heap=46_963 + 1_008)

# graphene PR 2154: AEX in all and after the start with memset, seconds of user time without it.
_AEX: Final = 1_026_071
_AEX_AFTER: Final = 16_260
_USER_S: Final = 29.4
_HZ: Final = (250, 1000)


def _per_page(profile: Profile, epc_pages: int) -> float:
    """Cycles of building and destroying, per additional page."""
    low, high = (built(profile, static_heap(n), epc_pages).elapsed for n in (_SAMPLE, 3 * _SAMPLE))
    return (high - low) / (2 * _SAMPLE)


def building(profile: Profile) -> list[Target]:
    """Create and destroy, in the EPC and beyond it."""
    in_epc = _per_page(profile, 4 * _SAMPLE)
    over = _per_page(profile, _SAMPLE // 2)
    source = "VXAPPS"
    return [
        Target(
            "create and destroy 1 GB, 3.2 GHz", source, "s", 1.878,
            in_epc * _GIB1_PAGES / 3.2e9, 1.1, "calibrated on this figure",
        ),
        Target("beyond EPC, extra, 3.8 GHz", source, "us per page", 8.0, (over - in_epc) / 3800),
    ]  # fmt: skip


def measuring(profile: Profile) -> list[Target]:
    """Leaves of a small enclave, and EEXTEND of a large one."""
    pages = 357
    chunks = built(profile, all_measured(pages), 1024, destroy=False).counts
    leaves_run = sum(chunks[kind] for kind in ("ECREATE", "EADD", "EEXTEND", "EINIT"))
    what, source = "hello world of 357 pages", "OpenSGX tutorial"
    per_page = chunks["EEXTEND"] / chunks["EADD"]
    seconds = profile.us(per_page * profile.cycles["EEXTEND"] * GIB4_PAGES) / 1e6
    return [
        Target(what, source, "EADD", 357, chunks["EADD"], EXACT),
        Target(what, source, "EEXTEND", 5712, chunks["EEXTEND"], EXACT),
        Target(
            what, source, "ENCLS", 6071, leaves_run, EXACT,
            f"plus {chunks['EPA']} EPA, which OpenSGX does not have",
        ),
        Target("EEXTEND in 4 GiB", _GRAPHENE, "leaves", 16_777_216, per_page * GIB4_PAGES, EXACT),
        Target("measuring 4 GiB", _GRAPHENE, "s", 35.7, seconds, note="clock not told"),
    ]  # fmt: skip


def loading_less(profile: Profile) -> list[Target]:
    """How much sooner an enclave is loaded whose heap is added later."""
    whole, less = (loading(profile, _BOOTSTRAP, edmm=edmm) for edmm in (False, True))
    return [
        Target(
            "load time saved by EDMM", "arXiv 2504.16251", "%", 28, 100 * (whole - less) / whole,
            published_to=93,
            note="28 to 93 by program, whose sizes the abstract does not tell. The model loads a "
            "program whose pages are published: Bootstrap, 256 MB, graphene issue 583.",
        )
    ]  # fmt: skip


def growing(profile: Profile) -> list[Target]:
    """A heap that grows while 16 threads write their results."""
    cycles = round(_JOIN_STATIC * THREADS / _OUTPUT_PAGES)
    chunks = 8
    pages = THREADS * chunks * _CHUNK_PAGES
    time = grow(profile, THREADS, chunks, _CHUNK_PAGES, cycles)
    what, sdk = "heap that grows, 16 threads", "linux-sgx 2.24"
    return [
        Target(what, sdk, "EAUG per page", 1, time.counts["EAUG"] / pages, EXACT),
        Target(what, sdk, "AEX per page", 1, time.counts["fault"] / pages, EXACT),
        Target(
            what, "EDBT'25", "cycles per page", _JOIN_GROWING / _OUTPUT_PAGES,
            time.elapsed / pages,
            note="slow-malloc.csv, the phase of the join by its pages; sbrk() of the SDK commits "
            "inside the lock of malloc(), so 16 threads add one page at a time",
        ),
    ]  # fmt: skip


def preheating(profile: Profile) -> list[Target]:
    """A static heap touched at start-up, or later; what is left then is the timer."""
    lazily, early = (heap_touched(profile, _SAMPLE, first) for first in (False, True))
    what, source = "pre-heating of a static heap", _GRAPHENE
    faults = _AEX - _AEX_AFTER
    ms = 200
    few, many = (timer_exits(profile, hz, ms) * _USER_S * 1000 / ms for hz in _HZ)
    return [
        Target(what, source, "AEX, with / without", 1, sum(early) / sum(lazily), EXACT),
        Target(
            "timer AEX after pre-heating", source, "% of all AEX", 100 * _AEX_AFTER / _AEX,
            100 * few / (few + faults), model_to=100 * many / (many + faults),
            note=f"{_USER_S} s of user time at HZ = {_HZ[0]} to {_HZ[1]}, which is not told; other "
            "interrupts are not modelled",
        ),
    ]  # fmt: skip
