"""The options of a run, with their defaults. Light: the command line's help imports it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from softsgx.linux.version import VERSION_DEFAULT

HZ_DEFAULT: Final = 250  # CONFIG_HZ of most distributions' kernels
HZ_MAX: Final = 1000  # the highest that Kconfig offers
UNICORN: Final = "unicorn"
NATIVE: Final = "native"
ENGINES: Final = (UNICORN, NATIVE)
PTRACE: Final = "ptrace"
SYSTRAP: Final = "systrap"
SUPERVISORS: Final = (PTRACE, SYSTRAP)
AUTO: Final = "auto"
"""SYSTRAP where this machine has what it needs (`softsgx doctor`), else PTRACE."""
TEXT: Final = "text"
JSON: Final = "json"
FORMATS: Final = (TEXT, JSON)
CPUID_CHOICES: Final = (AUTO, "trap", "until-entry", "patch")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `softsgx run`, in the command line's words; not yet checked."""

    epc: str = "256M"
    linux: str = VERSION_DEFAULT
    driver: str | None = None
    coverage: str | None = None
    engine: str = UNICORN
    supervisor: str = AUTO
    sgx1: bool = False
    xfrm: str | None = None
    seed: int = 0
    tick_hz: int = HZ_DEFAULT
    vendor: str | None = None
    cpuid: str = AUTO
    cpu_options: Sequence[str] = ()
    inject: Sequence[str] = ()
    stats: str | None = None
    trace: str | None = None
    explain: bool = False
    sgxs_out: str | None = None
    junit: str | None = None
