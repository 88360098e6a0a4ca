"""The start of `softsgx run`: two processes, before the larger part of softsgx is imported."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from softsgx.cli.ends import FailureCodes, run_to_exit_code
from softsgx.cli.errors import EXIT_RUN_FAILED, EXIT_RUN_NOT_EXECUTABLE, EXIT_RUN_NOT_FOUND
from softsgx.runner.host.front import in_front
from softsgx.runner.host.inherited import PLACE, inherited
from softsgx.runner.host.proc import status_numbers
from softsgx.runner.options import PTRACE

if TYPE_CHECKING:
    import argparse
    import socket

    from softsgx.runner.host.front import ToFront
    from softsgx.runner.host.inherited import Inherited


def run(args: argparse.Namespace) -> int:
    """Run the program; returns its exit code, or that of the failure, which has been printed."""
    place = None
    if PLACE in os.environ:
        from softsgx.runner.host.debugged import place_of_environment

        place = place_of_environment()
    if place is None and args.supervisor != PTRACE and _traced():
        from softsgx.runner.host.debugged import give_place

        return give_place(partial(_become, inherited()))
    code = in_front(partial(_supervise, args), place)
    if place is not None:
        place.end(code)
    return code


def _traced() -> bool:
    """Whether another process traces this one."""
    return status_numbers("self").get("TracerPid", [0]) != [0]


def _become(caller: Inherited, request: Any, said: int, listener_to: socket.socket) -> int:
    from softsgx.runner.supervisor.child import become

    path, argv, fprog = request
    missing = become(caller, path, argv, fprog, said, listener_to)
    return EXIT_RUN_NOT_FOUND if missing else EXIT_RUN_NOT_EXECUTABLE


def _supervise(args: argparse.Namespace, caller: Inherited, front: ToFront) -> int:
    def work() -> int:
        from softsgx.cli.run import program

        return program.run(args, caller, front)

    fails = FailureCodes(EXIT_RUN_FAILED, EXIT_RUN_FAILED)
    return run_to_exit_code("softsgx: run", fails, work)
