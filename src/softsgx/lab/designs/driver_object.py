"""A driver object as a design: the kernel's own driver, with whatever patches are in it.

Named `driver:FILE` if a host restricts by the ioctl, `driver-mprotect:FILE` if mprotect() does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from softsgx.cdriver.manifest import fitting
from softsgx.lab.designs.base import BY_IOCTL, BY_MPROTECT, Design

if TYPE_CHECKING:
    from softsgx.lab.measured import MeasuredHost
    from softsgx.sim import Steps
    from softsgx.system.loaded_enclave import Enclave

_ASKS: Final = {"driver": BY_IOCTL, "driver-mprotect": BY_MPROTECT}


def named(file: str, *, mprotect: bool) -> str:
    """The name of the design of a driver object."""
    return f"{'driver-mprotect' if mprotect else 'driver'}:{file}"


def driver_of(name: str) -> str | None:
    """The driver object that a design is named for."""
    how, _, file = name.partition(":")
    return file if how in _ASKS and file else None


class DriverDesign(Design):
    """What the code of the object does. DriverError if it does not fit this softsgx."""

    def __init__(self, name: str) -> None:
        how, _, file = name.partition(":")
        manifest = fitting(Path(file))
        self.driver = file
        self.linux = manifest.kernel
        self.name = name
        self.asks = _ASKS[how]
        way = "mprotect() restricts" if self.asks == BY_MPROTECT else "the ioctl restricts"
        self.about = f"the driver of Linux {manifest.linux}, compiled: {way}"

    def restrict(
        self, host: MeasuredHost, enclave: Enclave, address: int, length: int, rights: int
    ) -> Steps[tuple[int, Any]]:
        """The ioctl, or mprotect(2)."""
        if self.asks == BY_MPROTECT:
            return (yield from host.mprotect(address, length, rights)), None
        return (yield from super().restrict(host, enclave, address, length, rights))
