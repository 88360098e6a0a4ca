"""--driver FILE: a driver object that takes the place of the driver in Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from softsgx.cli.errors import UsageError
from softsgx.cli.modes import Option

if TYPE_CHECKING:
    from softsgx.cdriver.manifest import Manifest

DRIVER: Final = Option(
    name="--driver",
    metavar="FILE",
    help="the kernel's own driver: a driver object, from softsgx driver build",
)


def driver_manifest(file: str) -> Manifest:
    """What a driver object says of itself. UsageError if it cannot be used."""
    from softsgx.cdriver.errors import DriverError
    from softsgx.cdriver.manifest import fitting

    try:
        return fitting(Path(file))
    except DriverError as error:
        raise UsageError(f"--driver: {error}") from None
