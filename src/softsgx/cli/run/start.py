"""The start of `softsgx run`: two processes, before the larger part of softsgx is imported."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from softsgx.cli.ends import FailureCodes, run_to_exit_code
from softsgx.cli.errors import EXIT_RUN_FAILED
from softsgx.runner.host.front import in_front

if TYPE_CHECKING:
    import argparse

    from softsgx.runner.host.front import ToFront
    from softsgx.runner.host.inherited import Inherited


def run(args: argparse.Namespace) -> int:
    """Run the program; returns its exit code, or that of the failure, which has been printed."""
    return in_front(partial(_supervise, args))


def _supervise(args: argparse.Namespace, caller: Inherited, front: ToFront) -> int:
    def work() -> int:
        from softsgx.cli.run import program

        return program.run(args, caller, front)

    fails = FailureCodes(EXIT_RUN_FAILED, EXIT_RUN_FAILED)
    return run_to_exit_code("softsgx: run", fails, work)
