"""Restricting permissions: the loop of the ioctl, and 4 GiB in February 2022."""

from __future__ import annotations

from typing import Final

from softsgx.lab.law import law
from softsgx.lab.prices import Profile, corners
from softsgx.lab.validate.memory import GIB4_PAGES
from softsgx.lab.validate.target import EXACT, Target

_COUNTED: Final = 512
# Pages over which a cost per page is measured before it is multiplied.
_SAMPLE: Final = 128
# Of the process, in the measurement of 2022, which does not tell them: up to a socket of Ice Lake.
_PROCESSORS: Final = (1, 16, 80)


def law_counts(profile: Profile) -> list[Target]:
    """What the ioctl does for each page."""
    measured = law(profile, 4, _COUNTED)
    what, source = f"RESTRICT of {_COUNTED} pages", "Linux 6.12"
    kinds = {"EMODPR": "EMODPR", "ETRACK": "ETRACK", "ipi": "broadcasts", "EACCEPT": "EACCEPT"}
    return [
        Target(what, source, name, _COUNTED, measured.count(kind), EXACT)
        for kind, name in kinds.items()
    ]


def gib4(profile: Profile) -> list[Target]:
    """4 GiB, in the series of February 2022.

    RELAX of 4 GiB took less than 1 s there. It zaps PTEs, and to do that it interrupts every other
    processor for each page; so there were no PTEs, or no other processors.
    """
    source, design = "LKML, 23 Feb 2022", "ioctl-v2"
    few, some, many = (
        _gib4_seconds(profile, law(profile, n, _SAMPLE, design).ioctl) for n in _PROCESSORS
    )
    default, least, most = (
        _gib4_seconds(prices, law(prices, 1, _SAMPLE, design).accepting)
        for prices in (profile, *corners(profile))
    )
    return [
        Target(
            "RESTRICT of 4 GiB", source, "s", 20.0, few, model_to=many,
            note=f"V2 series, on {_PROCESSORS[0]} to {_PROCESSORS[2]} processors, all in the "
            "enclave: the message tells neither the machine nor on how many processors the "
            f"process had run. On {_PROCESSORS[1]} the model takes {some:.1f} s. The pages have no "
            "PTE: from 2 processors on, RELAX would have taken more than its 1 s to zap them.",
        ),
        Target(
            "EACCEPT of 4 GiB, an entry each", source, "s", 20.0, least, model_to=most,
            note="V2 series: no page has a PTE, so each EACCEPT faults first. The "
            "machine is not told: prices as far apart as the built-in low and high; with "
            f"these prices {default:.1f} s.",
        ),
    ]  # fmt: skip


def _gib4_seconds(profile: Profile, cycles: int) -> float:
    return profile.us(cycles / _SAMPLE * GIB4_PAGES) / 1e6
