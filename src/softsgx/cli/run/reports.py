"""What a run writes when it has ended, as other commands do: --junit and --coverage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from softsgx.cli import files
from softsgx.cli.driver_object import write_coverage
from softsgx.cli.run.junit import junit
from softsgx.runner.options import Options


def run_reported(argv: Sequence[str], options: Options, start: Callable[[list[str]], int]) -> int:
    """Run a program by `start`, whose argument gets the explanations; its exit code."""
    for path in filter(None, (options.junit, options.coverage)):
        files.expect_write(path)
    began, explanations = datetime.now(UTC), list[str]()
    code = start(explanations)
    if options.junit is not None:
        files.write(options.junit, junit(argv, code, began, explanations).encode())
    write_coverage(options.driver, options.coverage)
    return code
