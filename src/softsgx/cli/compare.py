"""`softsgx compare`: what each way of restricting permissions costs, loses and breaks."""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from softsgx.cli import files
from softsgx.cli.errors import EXIT_FINDING, EXIT_OK, UsageError
from softsgx.lab.compare import N_MAX, Cell, Comparison, Plan, run_cell
from softsgx.lab.designs import DESIGNS
from softsgx.lab.failures.matrix import matrix
from softsgx.lab.failures.outcome import Outcome, play, story
from softsgx.lab.failures.scenarios import SCENARIOS
from softsgx.lab.prices import COLUMNS, PriceError, Profile, profile
from softsgx.lab.report import as_json
from softsgx.lab.runtimes import RUNTIMES
from softsgx.lab.table import conclusions_text, matrix_text, table
from softsgx.lab.workloads import WORKLOADS, workload
from softsgx.lab.workloads.recorded import RECORDED, TraceError
from softsgx.sim import ScheduleError, ScheduleMismatch

if TYPE_CHECKING:
    from softsgx.lab.measurement import Measurement

DEFAULT_NS: Final = (1, 4, 16, 64)
EXIT_INTERRUPTED: Final = 130


def register(parser: argparse.ArgumentParser) -> None:
    """What is compared, under which prices, and where the result goes."""
    what = parser.add_argument_group("what is compared (lists are separated by commas)")
    what.add_argument("--designs", type=_names("design", DESIGNS), default=tuple(DESIGNS))
    what.add_argument("--runtimes", type=_names("runtime", RUNTIMES), default=RUNTIMES)
    what.add_argument(
        "--workloads",
        type=_workloads,
        default=tuple(WORKLOADS),
        help="also recorded:FILE, from softsgx run --trace FILE",
    )
    what.add_argument(
        "--n", type=_ns, default=DEFAULT_NS, help="logical processors, 1 to 256 (1,4,16,64)"
    )
    what.add_argument(
        "--prices",
        type=_profiles,
        default=None,
        help="default, low, high, or a .toml or .json file; the first is shown, all are corners",
    )
    what.add_argument("--seed", type=int, default=1)
    how = parser.add_argument_group("how")
    how.add_argument("--jobs", type=_jobs, default=None, help="processes (all cores)")
    how.add_argument("--all", action="store_true", help="show every N, not the largest only")
    how.add_argument(
        "--failure",
        type=_failure,
        metavar="DESIGN/FAILURE",
        help="play one failure in one design, event by event, and nothing else",
    )
    how.add_argument("--schedule", metavar="S", help="replay this schedule of --failure")
    how.add_argument("--json", action="store_true", help="print one JSON object")
    how.add_argument("--html", metavar="FILE", help="write a report that needs nothing else")
    how.add_argument("--plots", metavar="DIR", help="write each plot as SVG and PNG")
    how.add_argument(
        "--validate",
        action="store_true",
        help="compare the model with published figures, and nothing else",
    )


def run(args: argparse.Namespace) -> int:
    """Run the plan; what was finished when it was interrupted is shown all the same."""
    if args.failure is not None:
        return _one_failure(args.failure, args.schedule)
    profiles = args.prices or _profiles(",".join(COLUMNS))
    if args.validate:
        return _validate(profiles[0])
    if args.html or args.plots:
        _need_plots()
    if args.html:
        files.expect_write(args.html)
    plan = Plan(args.designs, args.runtimes, args.workloads, args.n, profiles, args.seed)
    measured, whole = measure_all(plan.cells(), args.jobs or os.cpu_count() or 1)
    comparison = Comparison(plan, measured)
    outcomes = matrix(plan.designs) if whole else []
    if args.json:
        files.show(json.dumps(as_json(comparison, outcomes), indent=1) + "\n")
    else:
        files.show(table(comparison, plan.ns if args.all else (max(plan.ns),)))
        files.show(conclusions_text(comparison.conclusions(), profiles))
        if outcomes:
            files.show(matrix_text(outcomes))
    if args.html or args.plots:
        _write(args, comparison, outcomes)
    if not whole:
        print(f"interrupted: {comparison.finished} of {comparison.wanted} runs", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK


def _validate(prices: Profile) -> int:
    """The table target, model, ratio; what is missed is a finding."""
    from softsgx.lab.validate import targets, text

    found = targets(prices)
    files.show(text(found, prices))
    return EXIT_FINDING if any(t.verdict == "MISSED" for t in found) else EXIT_OK


def _need_plots() -> None:
    """Say what is missing before the long run, not after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--html and --plots need matplotlib: pip install 'softsgx[plots]'")


def _write(args: argparse.Namespace, comparison: Comparison, outcomes: list[Outcome]) -> None:
    from softsgx.lab.html import page
    from softsgx.lab.plots import plots

    drawn = list(plots(comparison))
    if args.plots:
        try:
            os.makedirs(args.plots, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{args.plots}: {error.strerror}") from None
        for plot in drawn:
            files.write(os.path.join(args.plots, f"{plot.name}.svg"), plot.svg)
            files.write(os.path.join(args.plots, f"{plot.name}.png"), plot.png)
    if args.html:
        text = page(comparison, outcomes, drawn, _command(comparison.plan))
        files.write(args.html, text.encode())


def _command(plan: Plan) -> str:
    """The command line that makes the same comparison."""
    lists = {
        "designs": plan.designs,
        "runtimes": plan.runtimes,
        "workloads": plan.workloads,
        "n": [str(n) for n in plan.ns],
        "prices": [profile.name for profile in plan.profiles],
    }
    options = " ".join(f"--{name} {','.join(values)}" for name, values in lists.items())
    return f"softsgx compare {options} --seed {plan.seed} --html FILE"


def _one_failure(which: tuple[str, str], schedule: str | None) -> int:
    """Show one cell of the matrix: the verdicts, the schedule, and the story."""
    design, failure = which
    try:
        outcome, events = story(design, failure, schedule)
    except (ScheduleError, ScheduleMismatch) as error:
        raise UsageError(f"--schedule: {error}") from None
    everything = [outcome if name == failure else play(design, name) for name in SCENARIOS]
    files.show(matrix_text([outcome], everything))
    files.show("\n" + "\n".join(events) + "\n")
    return EXIT_FINDING if outcome.bad else EXIT_OK


def measure_all(cells: Sequence[Cell], jobs: int) -> tuple[list[Measurement], bool]:
    """Measure all cells on so many processes; what was finished, and whether that is all."""
    done: list[Measurement] = []
    try:
        for m in _progress(_results(cells, jobs), len(cells)):
            done.append(m)
    except KeyboardInterrupt:
        return done, False
    return done, True


def _results(cells: Sequence[Cell], jobs: int) -> Iterator[Measurement]:
    if jobs == 1 or len(cells) == 1:
        yield from map(run_cell, cells)
        return
    # Workers leave the interrupt to the parent, which keeps what has arrived.
    context = multiprocessing.get_context("spawn" if sys.platform == "darwin" else "fork")
    with context.Pool(min(jobs, len(cells)), _deaf) as pool:
        yield from pool.imap_unordered(run_cell, cells)


def _deaf() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _progress(results: Iterator[Measurement], total: int) -> Iterator[Measurement]:
    """Pass results through; on a terminal, say how far it is."""
    shown = sys.stderr.isatty()
    for number, m in enumerate(results, 1):
        if shown:
            text = f"{number} of {total}: {m.workload}, {m.n} processors, {m.design}, {m.runtime}"
            print(f"\r{text:<78.78}", end="", file=sys.stderr, flush=True)
        yield m
    if shown:
        print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)


# Arguments


def _failure(text: str) -> tuple[str, str]:
    design, _, failure = text.partition("/")
    if design not in DESIGNS or failure not in SCENARIOS:
        raise argparse.ArgumentTypeError(
            f"{text!r}: DESIGN/FAILURE is needed, of {', '.join(DESIGNS)} and "
            f"{', '.join(SCENARIOS)}"
        )
    return design, failure


def _names(what: str, known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """An argument type: a list of known names."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(text.split(",")))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"{name!r}: unknown {what}; known are {', '.join(known)}"
                )
        return names

    return parse


def _workloads(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name.startswith(RECORDED):
            try:
                workload(name)
            except TraceError as error:
                raise argparse.ArgumentTypeError(str(error)) from None
        elif name not in WORKLOADS:
            known = ", ".join([*WORKLOADS, f"{RECORDED}FILE"])
            raise argparse.ArgumentTypeError(f"{name!r}: unknown workload; known are {known}")
    return names


def _ns(text: str) -> tuple[int, ...]:
    found = []
    for part in text.split(","):
        if not part.isdecimal() or not 1 <= int(part) <= N_MAX:
            raise argparse.ArgumentTypeError(f"{part!r}: not a number from 1 to {N_MAX}")
        found.append(int(part))
    return tuple(sorted(dict.fromkeys(found)))


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r}: not a number from 1 to 1024")
    return int(text)


def _profiles(text: str) -> tuple[Profile, ...]:
    found: dict[str, Profile] = {}
    for name in text.split(","):
        try:
            each = profile(name)
        except PriceError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if each.name in found:
            raise argparse.ArgumentTypeError(f"{name}: two profiles called {each.name}")
        found[each.name] = each
    return tuple(found.values())
