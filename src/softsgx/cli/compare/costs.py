"""`softsgx compare` without a mode: what each design costs, loses and breaks."""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from shlex import quote

from softsgx.cli import files
from softsgx.cli.driver_object import driver_manifest
from softsgx.cli.ends import print_stderr, print_stdout
from softsgx.cli.errors import EXIT_INTERRUPTED, EXIT_OK, UsageError
from softsgx.cli.progress import Estimate, Line
from softsgx.cli.stopping import leave_interrupts_to_parent
from softsgx.lab.bench import Combination
from softsgx.lab.compare import Cell, Comparison, Plan, run_cell
from softsgx.lab.designs.driver_object import driver_of, named
from softsgx.lab.failures.matrix import matrix
from softsgx.lab.failures.outcome import Outcome
from softsgx.lab.failures.table import marks_text, matrix_text
from softsgx.lab.html import page
from softsgx.lab.measurement import Measurement
from softsgx.lab.plots import KINDS, names, plots
from softsgx.lab.report import as_json
from softsgx.lab.table import conclusions_text, table, wrapped
from softsgx.lab.verdict import verdict
from softsgx.lab.workloads.recorded import RECORDED


def run(args: argparse.Namespace) -> int:
    """Run the plan; after an interrupt, show the runs that had finished."""
    if args.html is not None or args.plots is not None:
        _expect_reports(args)
    designs = _designs(args)
    plan = Plan(designs, args.runtimes, args.workloads, args.n, args.prices, args.seed)
    measured, whole = measure_all(plan.cells(), args.jobs or os.cpu_count() or 1, Line.of(args))
    comparison = Comparison(plan, measured)
    # How a failure is played needs the driver in Python.
    outcomes = matrix([name for name in designs if driver_of(name) is None]) if whole else []
    if args.html is not None or args.plots is not None:
        _write(args, comparison, outcomes)
    if args.json:
        print_stdout(json.dumps(as_json(comparison, outcomes), indent=1) + "\n")
    else:
        print_stdout(_text(args, comparison, outcomes))
    if not whole:
        print_stderr(
            f"softsgx: compare: interrupted: {comparison.finished} of {comparison.wanted} runs"
        )
        return EXIT_INTERRUPTED
    return EXIT_OK


def _text(args: argparse.Namespace, comparison: Comparison, outcomes: list[Outcome]) -> str:
    """The verdict, the table, the conclusions and the failures, as wide as the terminal."""
    width = shutil.get_terminal_size().columns
    ns = comparison.plan.ns
    parts = ["\n".join(wrapped(f"verdict: {verdict(comparison, outcomes)}", width)) + "\n\n"]
    parts.append(table(comparison, ns if args.all else (max(ns),), width))
    parts.append(conclusions_text(comparison.conclusions(), args.prices, width))
    if outcomes and args.failures:
        parts.append(matrix_text(outcomes, width=width))
    elif outcomes:
        parts.append(marks_text(outcomes, width))
    return "".join(parts)


def _designs(args: argparse.Namespace) -> tuple[str, ...]:
    """The designs that are asked for, and after them those of driver objects."""
    designs = [*args.designs]
    for file, mprotect in ((args.driver, False), (args.driver_mprotect, True)):
        if file is not None:
            driver_manifest(file)
            designs.append(named(file, mprotect=mprotect))
    return tuple(designs)


def _inputs(args: argparse.Namespace) -> list[str]:
    """The files that are read: prices, and recorded traces."""
    traces = [name.removeprefix(RECORDED) for name in args.workloads if name.startswith(RECORDED)]
    objects = [file for file in (args.driver, args.driver_mprotect) if file is not None]
    return traces + objects + [profile.file for profile in args.prices if profile.file]


def _expect_reports(args: argparse.Namespace) -> None:
    """Check that the reports can be written, before the long run instead of after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "--html and --plots need matplotlib: in the checkout: pip install '.[plots]'"
        )
    outputs = [] if args.html is None else [args.html]
    if args.plots is not None:
        outputs += [_picture(args, name, k) for name in names(args.workloads) for k in KINDS]
    files.refuse_same(_inputs(args), outputs)
    if args.plots is not None:
        files.make_directory(args.plots)
    for path in outputs:
        files.expect_write(path)


def _picture(args: argparse.Namespace, name: str, kind: str) -> str:
    return os.path.join(args.plots, f"{name}.{kind}")


def _write(args: argparse.Namespace, comparison: Comparison, outcomes: list[Outcome]) -> None:
    drawn = list(plots(comparison))
    if args.plots is not None:
        for plot in drawn:
            for kind, data in zip(KINDS, (plot.svg, plot.png), strict=True):
                files.write(_picture(args, plot.name, kind), data)
    if args.html is not None:
        text = page(comparison, outcomes, drawn, _command(comparison.plan))
        files.write(args.html, text.encode())


def _command(plan: Plan) -> str:
    """The command line that repeats the comparison."""
    objects = {name: file for name in plan.designs if (file := driver_of(name)) is not None}
    lists = {
        "designs": [name for name in plan.designs if name not in objects],
        "runtimes": plan.runtimes,
        "workloads": plan.workloads,
        "n": [str(n) for n in plan.ns],
        "prices": [profile.file or profile.name for profile in plan.profiles],
    }
    options = " ".join(f"--{name} {quote(','.join(values))}" for name, values in lists.items())
    for name, file in objects.items():
        options += f" --{name.partition(':')[0]} {quote(file)}"
    return f"softsgx compare {options} --seed {plan.seed} --html FILE"


def measure_all(cells: Sequence[Cell], jobs: int, line: Line) -> tuple[list[Measurement], bool]:
    """Measure all cells in `jobs` processes; the finished ones, and whether these are all."""
    done: list[Measurement] = []
    try:
        with line:
            for m in _watched(_results(cells, jobs), cells, line):
                done.append(m)
    except KeyboardInterrupt:
        return done, False
    return done, True


def _results(cells: Sequence[Cell], jobs: int) -> Iterator[Measurement]:
    if jobs == 1 or len(cells) == 1:
        yield from map(run_cell, cells)
        return
    # The parent keeps what has arrived when it is interrupted.
    context = multiprocessing.get_context("spawn" if sys.platform == "darwin" else "fork")
    with context.Pool(min(jobs, len(cells)), leave_interrupts_to_parent) as pool:
        yield from pool.imap_unordered(run_cell, cells)


def _watched(
    results: Iterator[Measurement], cells: Sequence[Cell], line: Line
) -> Iterator[Measurement]:
    """Pass results through, and show how many there are and how long the others will take."""
    total = len(cells)
    sizes = {(cell.combination, cell.profile.name): cell.size for cell in cells}
    estimate = Estimate(sum(sizes.values()), line.clock)
    done = 0
    line.begin(f"0 of {total} runs")
    for number, m in enumerate(results, 1):
        combination = Combination(m.design, m.runtime, m.workload, m.n)
        done += sizes[combination, m.profile]

        def text(number: int = number, done: int = done, m: Measurement = m) -> str:
            what = f"{m.workload}, {m.n} processors, {m.design}, {m.runtime}"
            return f"{number} of {total} runs, {estimate.text(done)}; {what}"

        line.show(text)
        yield m
