"""`softsgx driver build --source TREE`: from a source tree of the kernel."""

import argparse
from pathlib import Path

from softsgx.cli.driver.making import make


def run(args: argparse.Namespace) -> int:
    """Build from the tree that was named."""
    return make(args, lambda: Path(args.source))
