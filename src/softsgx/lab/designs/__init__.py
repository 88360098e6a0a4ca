"""The designs of restricting enclave page permissions, by name."""

from typing import Final

from softsgx.lab.designs.base import Design
from softsgx.lab.designs.driver_object import DriverDesign
from softsgx.lab.designs.fault_always import FaultAlways
from softsgx.lab.designs.fault_once import FaultOnce
from softsgx.lab.designs.ioctl import Ioctl
from softsgx.lab.designs.ioctl_batched import IoctlBatched
from softsgx.lab.designs.ioctl_v2 import IoctlV2
from softsgx.lab.designs.mprotect_prot import MprotectProt
from softsgx.lab.designs.mprotect_read import MprotectRead

DESIGNS: Final[dict[str, type[Design]]] = {
    design.name: design
    for design in (
        Ioctl,
        IoctlV2,
        FaultOnce,
        FaultAlways,
        MprotectProt,
        MprotectRead,
        IoctlBatched,
    )
}


def design_named(name: str) -> Design:
    """One of DESIGNS, or that of a driver object (`driver_object`)."""
    return DESIGNS[name]() if name in DESIGNS else DriverDesign(name)
