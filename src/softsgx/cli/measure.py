"""`softsgx measure`: the MRENCLAVE of an ELF program or an SGXS stream."""

import argparse
import json
from typing import Final

from softsgx.cli import options
from softsgx.cli.declared import Mode, Option
from softsgx.cli.ends import print_stdout
from softsgx.cli.errors import EXIT_OK, codes
from softsgx.cli.modes import Table

TABLE: Final = Table(
    "measure",
    {
        "": (
            Option(name="FILE", help="ELF program or SGXS stream"),
            Option(name="--json", help="print one JSON object"),
        ),
        options.LAYOUT_TITLE: options.LAYOUT,
    },
    (
        Mode(
            about="print MRENCLAVE",
            needs=("FILE",),
            options=("--json", *options.LAYOUT_NAMES),
            codes=codes("measured"),
            module=__name__,
            function="measure",
        ),
    ),
)

register = TABLE.register
run = TABLE.run


def measure(args: argparse.Namespace) -> int:
    """Print MRENCLAVE and the layout; sizes and addresses are in bytes."""
    kind, image = options.enclave(args)
    if args.json:
        found = {
            "kind": kind,
            "mrenclave": image.mrenclave().hex(),
            "size": image.size,
            "baseaddr": image.baseaddr,
            "ssaframesize": image.ssaframesize,
            "pages": image.page_count(),
            "tcs": list(image.tcs),
        }
        print_stdout(json.dumps(found, indent=2) + "\n")
        return EXIT_OK
    base = "any" if image.baseaddr is None else f"{image.baseaddr:#x}"
    rows = (
        ("MRENCLAVE", image.mrenclave().hex()),
        ("SIZE", f"{image.size:#x}"),
        ("BASEADDR", base),
        ("pages", str(image.page_count())),
        ("TCS", str(len(image.tcs))),
    )
    print_stdout("".join(f"{name:<10} {value}\n" for name, value in rows))
    return EXIT_OK
