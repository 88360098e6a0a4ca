"""`softsgx show`: what is in an enclave file, and how two differ. Each mode is a file."""

from __future__ import annotations

from typing import Final

from softsgx.cli import options
from softsgx.cli.declared import Mode, Option
from softsgx.cli.errors import codes
from softsgx.cli.modes import Table

TABLE: Final = Table(
    "show",
    {
        "": (
            Option(name="FILE", many=True, help="ELF program, SGXS stream or SIGSTRUCT"),
            Option(name="--diff", help="show how two enclaves, or two SIGSTRUCTs, differ"),
            Option(name="--all", help="with --diff: every line, and every page by itself"),
        ),
        options.LAYOUT_TITLE: options.LAYOUT,
    },
    (
        Mode(
            about="print pages or fields",
            needs=("FILE",),
            options=options.LAYOUT_NAMES,
            codes=codes("shown", "a SIGSTRUCT that EINIT would refuse"),
            module="softsgx.cli.show.one",
            takes={"FILE": ("FILE",)},
        ),
        Mode(
            chosen="--diff",
            about="show how two differ",
            needs=("FILE",),
            options=("--all", *options.LAYOUT_NAMES),
            codes=codes("equal", "different"),
            module="softsgx.cli.show.diff",
            takes={"FILE": ("A", "B")},
        ),
    ),
)

register = TABLE.register
run = TABLE.run
