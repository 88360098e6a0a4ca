"""The shipped scenarios, and the scenario that shows each known race."""

from __future__ import annotations

from os import PathLike
from typing import NamedTuple

from softsgx.linux.version import NO_RACES, VERSION_DEFAULT, VERSIONS
from softsgx.system.scenarios.first_touch import FirstTouch
from softsgx.system.scenarios.fork_share import ForkShare
from softsgx.system.scenarios.hostile_host import HostileHost
from softsgx.system.scenarios.lazy_stack import LazyStack
from softsgx.system.scenarios.pcmd_sharing import PcmdSharing
from softsgx.system.scenarios.protect import (
    ExtendRestrict,
    ProtectAccess,
    ProtectReclaim,
    TrimReuse,
    TwoProtects,
)
from softsgx.system.scenarios.remove_touch import RemoveTouch
from softsgx.system.scenarios.restrict_refused import RestrictRefused
from softsgx.system.scenarios.restrict_report import RestrictReport
from softsgx.system.scenarios.scenario import MachineScenario
from softsgx.system.scenarios.secs_eviction import SecsEviction
from softsgx.system.scenarios.tcs_touch import TcsTouch
from softsgx.system.scenarios.thread_creation import ThreadCreation
from softsgx.system.scenarios.va_shortage import VaShortage

SCENARIOS: tuple[type[MachineScenario], ...] = (
    FirstTouch,
    RemoveTouch,
    TcsTouch,
    SecsEviction,
    VaShortage,
    PcmdSharing,
    RestrictReport,
    RestrictRefused,
    ProtectAccess,
    ProtectReclaim,
    TwoProtects,
    ExtendRestrict,
    TrimReuse,
    ForkShare,
    LazyStack,
    ThreadCreation,
    HostileHost,
)


class KnownRace(NamedTuple):
    """A race, by number and field of `linux.version.Races`, and the scenario that shows it.

    `rule` is what is violated where the other races of mainline are there, too.
    """

    number: str
    race: str
    scenario: type[MachineScenario]
    rule: str = ""

    def alone(self, on: bool) -> MachineScenario:
        """The scenario on a kernel with this race `on` or off, and no other."""
        return self.scenario(races={**NO_RACES, self.race: on})

    def on(self, driver: str | PathLike[str]) -> MachineScenario:
        """The scenario on a driver object; nothing but this race violates the rule."""
        return self.scenario().only(self.rule).on(driver)

    @property
    def mainline(self) -> str:
        """Whether the default kernel, Linux 6.12, has it."""
        return "present" if getattr(VERSIONS[VERSION_DEFAULT].races, self.race) else "fixed"


KNOWN_RACES: tuple[KnownRace, ...] = (
    KnownRace("K1", "eaug_double_fault", FirstTouch, "spurious fault"),
    KnownRace("K2", "remove_vs_fault", RemoveTouch, "stale mapping"),
    KnownRace("K3", "modify_vs_fault", TcsTouch, "mapped while its type changes"),
    KnownRace("K5", "eaug_without_secs", SecsEviction),
    KnownRace("K6", "va_shortage_is_sigbus", VaShortage),
    KnownRace("K9", "pcmd_truncated", PcmdSharing),
    KnownRace("K10", "backing_without_lock", PcmdSharing),
    KnownRace("L4", "etrack_failure_uncounted", RestrictReport, "caller misinformed"),
    KnownRace("L7", "lookup_before_removal", RemoveTouch, "spurious fault"),
)
