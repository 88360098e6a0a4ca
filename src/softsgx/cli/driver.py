"""`softsgx driver`: the kernel's own SGX driver, built to run on the model."""

import argparse
from pathlib import Path
from typing import Final

from softsgx.cdriver import debian, manifest, tree
from softsgx.cdriver.build import build
from softsgx.cdriver.errors import CompileError, DriverError
from softsgx.cli import files
from softsgx.cli.ends import print_stderr, print_stdout
from softsgx.cli.errors import EXIT_OK, UsageError, codes
from softsgx.cli.modes import Mode, Option, Table
from softsgx.cli.outputs import STDOUT, output

_CODES: Final = codes("there, built or up to date", failed="or the tree does not compile")

TABLE: Final = Table(
    "driver",
    {
        "": (
            Option(name="ACTION", choices=("build",), help="what to do: build"),
            Option(name="--source", metavar="TREE", help="a source tree of the kernel"),
            Option(
                name="--debian",
                choices=debian.VERSIONS,
                help="the source package of Debian, linux-source-6.1 or linux-source-6.12",
            ),
            Option(
                name="-o",
                dest="output",
                metavar="FILE",
                type=output,
                help="the driver object; left as it is if nothing has changed since it was made",
            ),
            Option(
                name="--encls",
                choices=manifest.ENCLS,
                default=manifest.CALL,
                help="a call in the place of each ENCLS, or the instruction itself and SIGILL",
            ),
        ),
    },
    (
        Mode(
            about="compile the driver of a source tree, unmodified, for the model",
            needs=("ACTION", "--source", "-o"),
            options=("--encls",),
            codes=_CODES,
            module=__name__,
            function="make",
        ),
        Mode(
            chosen="--debian",
            about="the same from an installed source package, unpacked once",
            needs=("ACTION", "-o"),
            options=("--encls",),
            codes=_CODES,
            module=__name__,
            function="make",
        ),
    ),
)

register = TABLE.register
run = TABLE.run


def make(args: argparse.Namespace) -> int:
    """Build from the tree, or from the package of Debian, that was named."""
    files.expect_write(args.output)
    former = None if args.output == STDOUT else Path(args.output)
    try:
        top = debian.source(args.debian) if args.debian else Path(args.source)
        built = build(tree.find(top), args.encls, former)
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
