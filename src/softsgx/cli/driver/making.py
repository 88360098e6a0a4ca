"""Making a driver object, whatever its tree comes from."""

import argparse
from collections.abc import Callable
from pathlib import Path

from softsgx.cdriver import tree
from softsgx.cdriver.build import build
from softsgx.cdriver.errors import CompileError, DriverError
from softsgx.cli import files
from softsgx.cli.ends import print_stderr, print_stdout
from softsgx.cli.errors import EXIT_OK, UsageError
from softsgx.cli.outputs import STDOUT


def make(args: argparse.Namespace, top: Callable[[], Path]) -> int:
    """Build from the tree that `top` finds."""
    files.expect_write(args.output)
    former = None if args.output == STDOUT else Path(args.output)
    try:
        built = build(tree.find(top()), args.encls, former)
    except CompileError as error:
        print_stderr(error.output.rstrip("\n"))
        raise UsageError(str(error)) from None
    except DriverError as error:
        raise UsageError(str(error)) from None
    if built.made:
        files.write(args.output, built.data)
    done = "built" if built.made else "up to date"
    print_stdout(f"{args.output}: driver of Linux {built.manifest.linux}: {done}\n")
    return EXIT_OK
