"""Prices in cycles, as named profiles, and what each kind of point costs.

The columns `default`, `low` and `high` are for an Ice Lake-class server with mitigations. There is
no published table of the SGX2 leaves, so a conclusion is worth stating only if it holds with every
column. A user's own profile is a file with the same entries.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from softsgx.sim.schedulers.virtual_time import Price

if TYPE_CHECKING:
    from softsgx.cpu import Processor
    from softsgx.sim import Task

# wakeup: to leave C1E takes 4 us on Ice Lake, C1 1 us, Skylake's C1E 10 us (Linux 6.12,
# drivers/idle/intel_idle.c); to switch to a thread of the same process takes 1.3 us
# (albertnetymk.github.io, "Context Switch on Linux", 2022).

# entry: default, low, high; what it is, and the grade of its source: A read, B secondary,
# C derived, D remembered, E assumed.
ENTRIES: Final[dict[str, tuple[int, int, int, str]]] = {
    "clock_mhz": (2900, 2900, 2900, "clock by which cycles become time; E"),
    "EENTER": (5_000, 3_300, 14_000, "with EEXIT the measured round trip of 9,400; A, split D"),
    "EEXIT": (4_400, 2_500, 6_000, "as EENTER; A, split D"),
    "ERESUME": (8_200, 5_200, 13_300, "from the timer intervals of SGX-Step; C"),
    "AEX": (8_000, 3_500, 10_000, "save and exit to the handler; C/E"),
    "fault": (5_000, 1_500, 8_000, "the kernel's part of a #PF on an enclave area; E"),
    "irq": (1_200, 1_200, 1_200, "handler of an interrupt, without AEX and ERESUME; C"),
    "ipi": (2_500, 1_500, 4_000, "broadcast, sender: base; B/A"),
    "ipi_receiver": (600, 200, 2_750, "broadcast, sender: for each receiver; B/A"),
    "syscall": (250, 200, 2_200, "entry of a system call; high: with page-table isolation; A"),
    "ioctl": (1_500, 500, 3_000, "body of an ioctl without its leaves; E"),
    "mprotect": (3_000, 1_200, 7_000, "one page, nobody to interrupt; E"),
    "ocall": (12_500, 8_000, 17_000, "a call out of the Intel SDK, EEXIT and EENTER included; A/B"),
    "wakeup": (15_400, 6_700, 32_800, "of a futex: an idle processor, a thread switch; A/B"),
    "exitless": (2_100, 1_700, 2_400, "a call out that does not exit, 0.6 to 0.83 us; B"),
    "EACCEPT": (5_100, 2_000, 10_000, "PIE, scaled; D/E"),
    "EACCEPTCOPY": (6_200, 3_000, 12_000, "EACCEPT and a copy of 4 KiB; E"),
    "EMODPE": (4_600, 2_000, 9_000, "PIE, scaled; D/E"),
    "EMODPR": (4_100, 2_000, 8_000, "PIE, scaled; D/E"),
    "EMODT": (3_100, 1_500, 6_000, "PIE, scaled; D/E"),
    "EAUG": (5_100, 3_000, 10_000, "PIE, scaled; D/E"),
    "ETRACK": (1_000, 400, 2_500, "E"),
    "EBLOCK": (1_000, 400, 2_500, "E"),
    "EWB": (12_000, 8_000, 20_000, "Eleos; D"),
    "ELDU": (12_000, 8_000, 20_000, "Eleos; D"),
    "reclaim": (16_000, 10_000, 22_000, "software for each evicted page; C"),
    "ECREATE": (28_500, 14_000, 30_000, "PIE; D"),
    "EINIT": (88_000, 45_000, 100_000, "PIE; D"),
    "EADD": (6_400, 5_000, 12_500, "PIE, scaled; C on D"),
    "EEXTEND": (5_500, 2_800, 6_800, "256 bytes; PIE; D"),
    "EREMOVE": (2_300, 1_500, 4_500, "PIE, scaled; C on D"),
    "EPA": (2_300, 1_500, 4_500, "as EREMOVE; E"),
    "add_driver": (6_100, 3_000, 9_000, "driver, for each page added and removed; C"),
    "add_loader": (7_900, 0, 8_000, "loader in user space, for each page; C"),
}
COLUMNS: Final = ("default", "low", "high")

# Points where other tasks can run, and that have no cost themselves.
_FREE: Final = (
    *("lock", "trylock", "srcu", "wait", "retry", "xa_load", "pte", "epc", "mm_list"),
    *("load", "store", "fetch", "oom", "ioctl", "spin", "bit"),
)
_LEAVES: Final = (
    *("EENTER", "EEXIT", "ERESUME", "EACCEPT", "EACCEPTCOPY", "EMODPE", "EMODPR", "EMODT"),
    *("EAUG", "ETRACK", "EBLOCK", "ELDU", "ECREATE", "EINIT", "EEXTEND", "EREMOVE", "EPA"),
)
_EINIT_SLEEP_MS: Final = 20


class PriceError(ValueError):
    """A profile that cannot be used; the text names the entry."""


@dataclass(frozen=True)
class Profile:
    """A named column of prices; `file` is where it was read from, empty if it is built in."""

    name: str
    cycles: Mapping[str, int]
    file: str = ""

    def us(self, cycles: float) -> float:
        """Cycles as microseconds."""
        return cycles / self.cycles["clock_mhz"]

    def prices(self, processor: Processor) -> dict[str, Price]:
        """The price of each kind of point; other kinds have no price."""
        c = self.cycles
        interrupt: int = c["irq"]
        interrupt_inside: int = c["irq"] + c["AEX"]

        lps = processor.lps

        def irq(task: Task) -> int:
            assert task.cpu is not None
            inside: bool = lps[task.cpu].secs is not None
            return interrupt_inside if inside else interrupt

        def broadcast(task: Task) -> int:
            cpus: Any = task.point[1]
            receivers = len([cpu for cpu in cpus if cpu != task.cpu])
            return c["ipi"] + c["ipi_receiver"] * receivers

        def named(task: Task) -> int:
            what: Any = task.point[1]
            return c["syscall"] + int(c.get(what, 0))

        def compute(task: Task) -> int:
            cycles: Any = task.point[1]
            return int(cycles)

        prices: dict[str, Price] = {
            **dict.fromkeys(_FREE, 0),
            **{leaf: c[leaf] for leaf in _LEAVES},
            "EADD": c["EADD"] + c["add_driver"] + c["add_loader"],
            "EWB": c["EWB"] + c["reclaim"],
            "sleep": _EINIT_SLEEP_MS * 1000 * c["clock_mhz"],
            # Of the lab: see measured.py.
            "fault": c["AEX"] + c["fault"],
            "wakeup": c["wakeup"],
            "ocall": max(0, c["ocall"] - c["EENTER"] - c["EEXIT"]),
            "irq": irq,
            "ipi": broadcast,
            "syscall": named,
            "compute": compute,
        }
        return prices


PROFILES: Final = {
    column: Profile(column, {name: int(row[at]) for name, row in ENTRIES.items()})
    for at, column in enumerate(COLUMNS)
}


def corners(profile: Profile) -> tuple[Profile, Profile]:
    """These prices, as far below and above as `low` and `high` are from `default`."""

    def scaled(column: str) -> Profile:
        scale = PROFILES[column].cycles
        cycles = {
            name: price * scale[name] // PROFILES["default"].cycles[name]
            for name, price in profile.cycles.items()
        }
        return Profile(f"{profile.name}, {column}", cycles, profile.file)

    return scaled("low"), scaled("high")


def profile(name: str) -> Profile:
    """A built-in profile by name, or one from a file (.toml or .json). PriceError if neither."""
    if name in PROFILES:
        return PROFILES[name]
    path = Path(name)
    if path.suffix not in (".toml", ".json"):
        raise PriceError(
            f"{name}: no profile; known are {', '.join(PROFILES)}, or a .toml or .json file"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PriceError(f"{name}: {error.strerror}") from None
    try:
        text = data.decode()
        table = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise PriceError(f"{name}: {error}") from None
    return Profile(path.stem, checked(name, table), name)


def checked(name: str, table: object) -> dict[str, int]:
    """The entries of a user's profile: all of them, whole cycles, none negative, none unknown."""
    if not isinstance(table, dict):
        raise PriceError(f"{name}: a table of entries is needed")
    for entry in table:
        if entry not in ENTRIES:
            raise PriceError(f"{name}: {entry}: unknown entry; known are {', '.join(ENTRIES)}")
    for entry in ENTRIES:
        value = table.get(entry)
        if value is None:
            raise PriceError(f"{name}: {entry}: missing")
        if not isinstance(value, int) or isinstance(value, bool):
            raise PriceError(f"{name}: {entry}: {value!r} is no whole number of cycles")
        if value < 0 or (entry == "clock_mhz" and not value):
            raise PriceError(f"{name}: {entry}: {value} is {'negative' if value < 0 else 'zero'}")
    return {entry: table[entry] for entry in ENTRIES}
