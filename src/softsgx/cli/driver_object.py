"""--driver FILE: a driver object that takes the place of the driver in Python; what it can tell."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from softsgx.cli.declared import GIVEN, Option
from softsgx.cli.errors import UsageError
from softsgx.cli.outputs import file_output, output

if TYPE_CHECKING:
    from softsgx.cdriver.manifest import Manifest

DRIVER: Final = Option(
    name="--driver",
    metavar="FILE",
    help="the kernel's own driver: a driver object, from softsgx driver build",
)
_COVERAGE: Final = "write which lines of the driver were executed, as lcov"
COVERAGE: Final = Option(
    name="--coverage",
    metavar="FILE",
    type=output,
    help=f"{_COVERAGE}; -: to stdout",
    only=("--driver", GIVEN),
    instead=("--jobs",),
)
RUN_COVERAGE: Final = Option(
    name="--coverage",
    metavar="FILE",
    type=file_output,
    help=_COVERAGE,
    only=("--driver", GIVEN),
)
LOCKS: Final = "locks"
ACCESSES: Final = "accesses"
POINTS: Final = Option(
    name="--points",
    choices=(LOCKS, ACCESSES),
    default=LOCKS,
    help="where other tasks get in: at locks, leaves and what races by design, or also before each "
    "access of the driver to shared memory",
    only=("--driver", GIVEN),
)
DATA_RACES: Final = Option(
    name="--data-races",
    help="list accesses of the driver that nothing orders, one of them a write, one plain",
    only=("--driver", GIVEN),
    instead=("--jobs",),
)


def driver_manifest(file: str) -> Manifest:
    """What a driver object says of itself. UsageError if it cannot be used."""
    from softsgx.cdriver.errors import DriverError
    from softsgx.cdriver.manifest import fitting

    try:
        return fitting(Path(file))
    except DriverError as error:
        raise UsageError(f"--driver: {error}") from None


def expect_told(args: argparse.Namespace) -> None:
    """Refuse what only the process that runs the driver could tell, before the work."""
    for name, asked in (
        ("--coverage", args.coverage is not None),
        ("--data-races", getattr(args, "data_races", False)),
    ):
        if asked and (args.jobs is not None or args.cluster is not None):
            raise UsageError(f"{name}: not with --jobs or --cluster: other processes do not tell")
    if args.coverage is not None:
        from softsgx.cli import files  # not at the top: `run` has these options, too

        files.refuse_same([args.driver], [args.coverage])
        files.expect_write(args.coverage)


def write_coverage(driver: str | None, coverage: str | None) -> None:
    """Write what was executed in this process, if that was asked for."""
    if driver is None or coverage is None:
        return
    from softsgx.cdriver.coverage import lcov
    from softsgx.cli import files

    files.write(coverage, lcov(Path(driver)).encode())
