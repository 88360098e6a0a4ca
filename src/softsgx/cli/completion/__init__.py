"""`softsgx completion`: what the shell completes after `softsgx`."""

from __future__ import annotations

from typing import Final

from softsgx.cli.declared import Mode, Option
from softsgx.cli.errors import codes
from softsgx.cli.modes import Table

SHELLS: Final = ("bash", "zsh", "fish")

TABLE: Final = Table(
    "completion",
    {"": (Option(name="SHELL", choices=SHELLS, help="bash, zsh or fish"),)},
    (
        Mode(
            about="print a script that lets a shell complete commands, options and values",
            needs=("SHELL",),
            codes=codes("printed"),
            module=f"{__name__}.scripts",
        ),
    ),
)

register = TABLE.register
run = TABLE.run
