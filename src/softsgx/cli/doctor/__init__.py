"""`softsgx doctor`: can this machine run SGX programs, and what to do about each 'no'.

With --clean it removes what softsgx keeps between runs.
"""

from typing import Final

from softsgx.cli.declared import Mode, Option
from softsgx.cli.errors import codes
from softsgx.cli.modes import Table

READY: Final = "programs can run here"
NOT_READY: Final = "programs cannot run here"

TABLE: Final = Table(
    "doctor",
    {
        "": (
            Option(name="--json", help="print one JSON object"),
            Option(name="--clean", help="remove the cache, $XDG_CACHE_HOME/softsgx"),
        )
    },
    (
        Mode(
            about="examine this machine",
            options=("--json",),
            codes=codes(READY, NOT_READY),
            module=f"{__name__}.machine",
        ),
        Mode(
            chosen="--clean",
            about="remove what is kept between runs: found CPUID and ENCLU, sources of drivers",
            options=("--json",),
            codes=codes("removed, or nothing was there"),
            module=f"{__name__}.clean",
        ),
    ),
)

register = TABLE.register
run = TABLE.run
