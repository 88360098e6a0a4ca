"""`softsgx driver`: the kernel's own SGX driver, built to run on the model."""

from typing import Final

from softsgx.cdriver import debian, manifest
from softsgx.cli.declared import Mode, Option
from softsgx.cli.errors import codes
from softsgx.cli.modes import Table
from softsgx.cli.outputs import output

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
            module=f"{__name__}.source",
        ),
        Mode(
            chosen="--debian",
            about="the same from an installed source package, unpacked once",
            needs=("ACTION", "-o"),
            options=("--encls",),
            codes=_CODES,
            module=f"{__name__}.package",
        ),
    ),
)

register = TABLE.register
run = TABLE.run
