"""Which kernel is modelled: its user interface, and the races its code has.

A race is a field: True means that the kernel has it. Code that reads the field takes the racy or
the fixed path. Sources: the patches and mails named with each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from softsgx.linux.sgx.interface import SgxInterface, SgxInterfaceV2


def _race(name: str, what: str) -> Any:
    return field(default=False, metadata={"name": name, "what": what})


@dataclass(frozen=True, slots=True, kw_only=True)
class Races:
    """Known races of the driver, by their number in docs/kernel-races.md."""

    eaug_double_fault: bool = _race(
        "K1",
        "Two threads fault on the same hole: the loser of the insertion gets SIGBUS for a page "
        "that exists. Fixed by looking again under the enclave mutex.",
    )
    remove_vs_fault: bool = _race(
        "K2",
        "REMOVE_PAGES drops the mutex to zap PTEs while the page is still in the array: a fault "
        "maps it again. Fixed by marking the page busy.",
    )
    modify_vs_fault: bool = _race(
        "K3",
        "MODIFY_TYPES to TCS drops the mutex to zap PTEs: a fault maps the page again before "
        "EMODT. Fixed by marking the page busy.",
    )
    eaug_without_secs: bool = _race(
        "K5",
        "The EAUG path uses the SECS without loading it: the reclaimer may just have evicted it. "
        "NULL pointer dereference.",
    )
    va_shortage_is_sigbus: bool = _race(
        "K6",
        "No VA page to be had without reclaim in the EAUG path gives SIGBUS instead of a retry.",
    )
    direct_reclaim_in_fault: bool = _race(
        "K8",
        "The EAUG path reclaims pages while it holds mmap_lock for reading; the reclaimer takes "
        "that of enclave processes again. Deadlock as soon as a writer waits in between.",
    )
    pcmd_truncated: bool = _race(
        "K9",
        "A PCMD page that looks empty is punched out although a page sharing it is about to be "
        "written by the reclaimer: that page is lost.",
    )
    backing_without_lock: bool = _race(
        "K10",
        "The reclaimer looks up backing pages without the enclave mutex, so a fault may punch "
        "the PCMD page out between.",
    )
    range_overflow: bool = _race(
        "K11",
        "offset + length may wrap around 64 bits in the range check of every ioctl.",
    )
    poisoned_reclaimed: bool = _race(
        "K15",
        "A page with a hardware error stays on the reclaimer's list: EWB reads it, the processor "
        "shuts down. Fixed in Linux 6.16, and in 6.1 and 6.12 as Debian has them; 6.12.0 has it.",
    )
    etrack_failure_uncounted: bool = _race(
        "L4",
        "ETRACK fails after a good EMODPR: count leaves out a page whose EPCM entry has changed. "
        "No fix was proposed; without the race such a page is counted.",
    )
    lookup_before_removal: bool = _race(
        "L7",
        "A fault looks a page up and waits for the mutex while REMOVE_PAGES erases the page: "
        "SIGBUS, where a later fault would add one. Found by exploring; the fix of K2 leaves it. "
        "Without the race the fault is tried again.",
    )


NO_RACES: Final = {race.name: False for race in fields(Races)}
"""Switches for a kernel with all known races fixed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelVersion:
    """A kernel: its name, its SGX2 interface, what else differs, and its races.

    `aexnotify`: ATTRIBUTES.AEXNOTIFY is allowed. `restrict_requires_read`: RESTRICT_PERMISSIONS
    without R is -EINVAL, the rule of the V3 and V4 series. `eaug_cap` is the upper bound of VMA
    permissions for pages added by EAUG. `key_hash_allocates`: INIT allocates to hash the signer's
    key. `guard_advice`: madvise() knows MADV_GUARD_INSTALL and MADV_GUARD_REMOVE.
    `mremap_checks_first`: a move to a fixed address is refused before anything is unmapped there,
    and may concern several areas.

    What `--linux 6.18` has since 6.12 is of Linux 6.13 (guard pages), Linux 6.16 (the key's hash)
    and Linux 6.17 (mremap); docs/sources.md has the commits. The open of a node executes EUPDATESVN
    from Linux 6.19 on only.
    """

    name: str
    interface: SgxInterface = field(default_factory=SgxInterface)
    aexnotify: bool = True
    restrict_requires_read: bool = False
    eaug_cap: int = 0b111
    key_hash_allocates: bool = True
    guard_advice: bool = False
    mremap_checks_first: bool = False
    races: Races = Races()


# Reported in 2024 with patches that were not merged; the windows are still there in 6.12.117, and
# no commit of the driver up to 6.18 closes them (docs/sources.md).
_OPEN = Races(
    eaug_double_fault=True,
    remove_vs_fault=True,
    modify_vs_fault=True,
    etrack_failure_uncounted=True,
    lookup_before_removal=True,
)

VERSION_DEFAULT: Final = "6.12"
"""The kernel that is modelled where none is named."""

VERSIONS: dict[str, KernelVersion] = {
    "6.18": KernelVersion(
        name="6.18",
        key_hash_allocates=False,
        guard_advice=True,
        mremap_checks_first=True,
        races=_OPEN,
    ),
    VERSION_DEFAULT: KernelVersion(
        name=VERSION_DEFAULT,
        races=_OPEN,
    ),
    "6.1": KernelVersion(
        name="6.1",
        aexnotify=False,
        races=_OPEN,
    ),
    "v2": KernelVersion(
        name="v2",
        interface=SgxInterfaceV2(),
        aexnotify=False,
        eaug_cap=0b011,
        races=replace(
            _OPEN,
            eaug_without_secs=True,
            direct_reclaim_in_fault=True,
            pcmd_truncated=True,
            backing_without_lock=True,
            range_overflow=True,
            poisoned_reclaimed=True,
        ),
    ),
}

EXPLORED: Final = ("6.12", "6.1", "v2")
"""Kernels of `explore --shipped` where none is named.

6.18 differs from 6.12 only in calls that no shipped scenario makes: `KernelVersion`."""


def kernel_version(
    name: str, *, restrict_requires_read: bool = False, races: dict[str, bool] | None = None
) -> KernelVersion:
    """The named version, with single races switched on or off.

    ValueError names an unknown version or race and lists the known ones.
    """
    if name not in VERSIONS:
        raise ValueError(f"linux={name!r}: known versions are {', '.join(VERSIONS)}")
    version = VERSIONS[name]
    known = [f.name for f in fields(Races)]
    for race in races or {}:
        if race not in known:
            raise ValueError(f"race {race!r}: known races are {', '.join(known)}")
    changed = replace(version.races, **(races or {}))
    return replace(version, races=changed, restrict_requires_read=restrict_requires_read)
