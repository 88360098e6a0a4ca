"""`softsgx explore`: find the interleaving that breaks a scenario. Each mode is a file."""

from __future__ import annotations

import argparse
from typing import Final

from softsgx.cli import progress
from softsgx.cli.declared import Mode, Option
from softsgx.cli.driver_object import COVERAGE, DATA_RACES, DRIVER, POINTS
from softsgx.cli.errors import codes
from softsgx.cli.modes import Table
from softsgx.cli.options import number
from softsgx.cli.outputs import output
from softsgx.explore.plan import BOUNDED, DEEP, STATES, STRATEGIES, Plan
from softsgx.linux.version import EXPLORED, VERSIONS
from softsgx.system.runtimes import ORDERS

_MODULE: Final = "softsgx.cli.explore"


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    unit = units.get(text[-1:], 1)
    digits = text[:-1] if text[-1:] in units else text
    try:
        value = float(digits) * unit
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: not a duration such as 60s or 5m")
    return value


TARGET: Final = (
    Option(
        name="TARGET",
        help="a Python file with scenarios, one of its classes (FILE.py::CLASS), or the name of a "
        "shipped scenario",
    ),
    DRIVER,
)
MODES: Final = (
    Option(name="--shipped", help="search all shipped scenarios on each kernel, in each order"),
    Option(name="--list", help="list the scenarios of TARGET, or those shipped"),
    Option(name="--replay", metavar="STRING", help="execute one schedule and show it"),
    Option(name="--known-races", help="find each known race of the driver"),
)
SEARCH: Final = (
    Option(
        name="--linux",
        choices=tuple(VERSIONS),
        help=f"with --shipped: only this kernel (default: {', '.join(EXPLORED)})",
        only=("--driver", (None,)),
    ),
    Option(
        name="--order", choices=tuple(ORDERS), help="with --shipped: only the order of this runtime"
    ),
    Option(
        name="--strategy",
        choices=STRATEGIES,
        metavar="NAME",
        default=Plan().strategy,
        help=f"how the next schedule is chosen: {', '.join(STRATEGIES)}",
    ),
    Option(
        name="--preemptions",
        type=number(16),
        metavar="N",
        help="at most N preemptions in a schedule",
        only=("--strategy", BOUNDED),
    ),
    Option(
        name="--executions",
        type=number(32, least=1),
        metavar="N",
        default=Plan().executions,
        help="at most N of each scenario",
    ),
    Option(
        name="--depth",
        type=number(8, least=1),
        metavar="D",
        default=Plan().depth,
        help="ordering constraints that a bug may need",
        only=("--strategy", DEEP),
    ),
    Option(
        name="--budget",
        type=_seconds,
        metavar="TIME",
        help="stop after this time, such as 60s or 5m",
    ),
    Option(
        name="--seed",
        type=number(64),
        metavar="N",
        default=Plan().seed,
        help="seed of random, pct and guided, and of the estimate of the number of schedules",
    ),
    Option(name="--jobs", type=number(8, least=1), metavar="N", help="search with N processes"),
    Option(
        name="--cluster",
        metavar="ADDRESS",
        bare=True,
        help="search with the workers of a Dask scheduler; without ADDRESS with a cluster on this "
        "machine, of --jobs workers",
        instead=("--jobs",),
    ),
    *progress.OPTIONS,
)
TOLD: Final = (COVERAGE, DATA_RACES, POINTS)
REPORTS: Final = (
    Option(name="--json", help="print JSON instead of text"),
    Option(name="--junit", type=output, metavar="FILE", help="write a JUnit report; -: to stdout"),
    Option(name="--sarif", type=output, metavar="FILE", help="write a SARIF report; -: to stdout"),
    Option(
        name="--html",
        type=output,
        metavar="FILE",
        help="write the schedules of findings as a page to step through; -: to stdout",
    ),
)

_HOW: Final = ("--strategy", "--preemptions", "--executions", "--depth", "--budget", "--seed")
_WHO: Final = ("--jobs", "--cluster", *progress.NAMES)
_REPORTS: Final = tuple(option.name for option in REPORTS)
_TOLD: Final = tuple(option.name for option in TOLD)
_BROKEN: Final = "or a scenario that is itself broken"
_FOUND: Final = "a violation, a deadlock or a failed assertion"
_OR_RACE: Final = f"{_FOUND}, or with --data-races a data race"
_STOPPED: Final = "interrupted with nothing found so far"

TABLE: Final = Table(
    "explore",
    {
        "": TARGET,
        "instead of searching the scenarios of TARGET": MODES,
        "how to search": SEARCH,
        "reports": REPORTS,
        "of a driver object": TOLD,
    },
    (
        Mode(
            about="search the schedules of its scenarios",
            needs=("TARGET",),
            options=("--driver", *_HOW, *_WHO, *_REPORTS, *_TOLD),
            codes=codes("nothing found", _OR_RACE, _BROKEN, _STOPPED),
            module=f"{_MODULE}.search",
        ),
        Mode(
            chosen="--shipped",
            about="search every shipped scenario, a line for each",
            options=("--driver", "--linux", "--order", *_HOW, *_WHO, *_REPORTS, *_TOLD),
            codes=codes("nothing found", _OR_RACE, _BROKEN, _STOPPED),
            module=f"{_MODULE}.shipped",
            defaults={"--strategy": STATES, "--executions": 20_000},
        ),
        Mode(
            chosen="--list",
            about="list scenarios",
            options=("TARGET", "--json"),
            codes=codes("listed"),
            module=f"{_MODULE}.listing",
        ),
        Mode(
            chosen="--replay",
            about="execute the schedule that a search printed",
            options=("TARGET", "--driver", *_REPORTS),
            codes=codes("no failure under this schedule", _FOUND, _BROKEN),
            module=f"{_MODULE}.replay",
        ),
        Mode(
            chosen="--known-races",
            about="search for each race that the driver had, alone, then with its fix; TIME "
            "applies to each search",
            options=("--driver", "--budget", "--seed", *_WHO, "--json"),
            codes=codes(
                "each race found, and nothing with its fix",
                "a race not found, or something found with its fix",
                interrupted="interrupted with nothing wrong so far",
            ),
            module=f"{_MODULE}.known_races",
            defaults={"--budget": 60},
        ),
    ),
    in_file={
        **dict.fromkeys(("linux", "order", "strategy"), (str,)),
        **dict.fromkeys(("preemptions", "executions", "depth", "seed", "jobs"), (int,)),
        "budget": (str, int, float),
        "no-progress": (bool,),
    },
)

register = TABLE.register
run = TABLE.run
