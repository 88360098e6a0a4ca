"""`softsgx compare`: what each way of restricting permissions costs, loses and breaks.

Each mode is a file.
"""

from __future__ import annotations

from typing import Final

from softsgx.cli import progress
from softsgx.cli.compare.arguments import failure, jobs, names, processors, profiles, workloads
from softsgx.cli.declared import Mode, Option
from softsgx.cli.driver_object import DRIVER
from softsgx.cli.errors import codes
from softsgx.cli.modes import Table
from softsgx.cli.options import number
from softsgx.cli.outputs import output
from softsgx.lab.compare import N_MAX, NS_DEFAULT
from softsgx.lab.designs import DESIGNS
from softsgx.lab.plots import KINDS
from softsgx.lab.prices import COLUMNS, PROFILES
from softsgx.lab.runtimes import RUNTIMES
from softsgx.lab.workloads import WORKLOADS

_MODULE: Final = "softsgx.cli.compare"

MODES: Final = (
    Option(
        name="--failure",
        type=failure,
        metavar="DESIGN/FAILURE",
        help="play one failure in one design, event by event",
    ),
    Option(name="--validate", help="compare the model with published figures"),
)
WHAT: Final = (
    Option(
        name="--designs",
        type=names("design", DESIGNS),
        metavar="LIST",
        default=tuple(DESIGNS),
        shown="all",
        help=f"of {', '.join(DESIGNS)}",
    ),
    DRIVER,
    Option(
        name="--driver-mprotect",
        metavar="FILE",
        help="a driver object whose mprotect() restricts",
    ),
    Option(
        name="--runtimes",
        type=names("runtime", RUNTIMES),
        metavar="LIST",
        default=RUNTIMES,
        shown="all",
        help=f"of {', '.join(RUNTIMES)}",
    ),
    Option(
        name="--workloads",
        type=workloads,
        metavar="LIST",
        default=tuple(WORKLOADS),
        shown="all but recorded:FILE",
        help=f"of {', '.join(WORKLOADS)}, and recorded:FILE, from softsgx run --trace FILE",
    ),
    Option(
        name="--n",
        type=processors,
        metavar="LIST",
        default=NS_DEFAULT,
        shown=",".join(map(str, NS_DEFAULT)),
        help=f"logical processors, 1 to {N_MAX}",
    ),
    Option(
        name="--prices",
        type=profiles,
        metavar="LIST",
        default=tuple(PROFILES[name] for name in COLUMNS),
        shown=f"{','.join(COLUMNS)}; with --validate {COLUMNS[0]}",
        help=f"{', '.join(COLUMNS)}, or .toml or .json files; the first is shown, all are corners",
    ),
    Option(
        name="--seed", type=number(64), metavar="N", default=1, help="seed of everything random"
    ),
)
HOW: Final = (
    Option(name="--jobs", type=jobs, metavar="N", shown="all cores", help="number of processes"),
    *progress.OPTIONS,
    Option(
        name="--all",
        help="show every N in the table, not only the largest",
        only=("--json", (False,)),
    ),
    Option(
        name="--failures",
        help="show what was told and left in each failure, instead of marks",
        only=("--json", (False,)),
    ),
    Option(name="--json", help="print one JSON object"),
    Option(
        name="--html",
        type=output,
        metavar="FILE",
        help="write a self-contained report; -: to stdout",
    ),
    Option(
        name="--plots",
        metavar="DIR",
        help=f"write each plot as {' and '.join(kind.upper() for kind in KINDS)}",
    ),
    Option(name="--schedule", metavar="S", help="replay this schedule of --failure"),
)

TABLE: Final = Table(
    "compare",
    {
        "instead of comparing costs": MODES,
        "what is compared (lists are separated by commas)": WHAT,
        "how": HOW,
    },
    (
        Mode(
            about="compare costs, and play every failure",
            options=(
                "--designs", "--driver", "--driver-mprotect", "--runtimes", "--workloads", "--n",
                "--prices", "--seed", "--jobs", *progress.NAMES, "--all", "--failures",
                "--json", "--html", "--plots",
            ),
            codes=codes("compared", interrupted="interrupted; finished runs are shown"),
            module=f"{_MODULE}.costs",
        ),
        Mode(
            chosen="--failure",
            about="play one failure, event by event",
            options=("--schedule", "--json"),
            codes=codes(
                "the design survives it",
                "an undeserved fault, wrong rights without an error, or a failure beyond repair",
            ),
            module=f"{_MODULE}.one_failure",
        ),
        Mode(
            chosen="--validate",
            about="compare the model with published figures, at each of the prices",
            options=("--prices", "--json"),
            codes=codes("no figure is missed", "a published figure is MISSED"),
            module=f"{_MODULE}.validation",
            defaults={"--prices": (PROFILES[COLUMNS[0]],)},
        ),
    ),
)  # fmt: skip

register = TABLE.register
run = TABLE.run
