"""`softsgx driver build --debian VERSION`: from an installed source package."""

import argparse

from softsgx.cdriver import debian
from softsgx.cli.driver.making import make


def run(args: argparse.Namespace) -> int:
    """Build from the package that was named, unpacked once."""
    return make(args, lambda: debian.source(args.debian))
