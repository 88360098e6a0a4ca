"""`softsgx run -- PROGRAM`: run it, or list what --cpu-option or --inject takes."""

from __future__ import annotations

import argparse
from functools import partial

from softsgx.cli.ends import print_stdout
from softsgx.cli.errors import (
    EXIT_OK,
    EXIT_RUN_FAILED,
    EXIT_RUN_NOT_EXECUTABLE,
    EXIT_RUN_NOT_FOUND,
    UsageError,
)
from softsgx.report.same_file import overwritten
from softsgx.runner.cpuid.cpu_options import HELP, listing
from softsgx.runner.errors import ProgramError, RunnerError
from softsgx.runner.host import library_exit
from softsgx.runner.host.front import ToFront
from softsgx.runner.host.inherited import Inherited
from softsgx.runner.options import Options
from softsgx.runner.process.exec_chain import ProgramFacts
from softsgx.runner.session import inject
from softsgx.runner.session.session import (
    failures_of,
    find_program,
    kernel_of,
    part_of,
    run_program,
)
from softsgx.runner.session.sgxs_files import FILES_MAX


def run(args: argparse.Namespace, caller: Inherited, front: ToFront) -> int:
    """Run the program for its caller; returns its exit code, or 128 + the signal that killed it."""
    argv = args.program[1:] if args.program[:1] == ["--"] else args.program
    list_only = HELP in (*args.cpu_option, *args.inject)
    if not argv and not list_only:
        raise UsageError("no program: softsgx run [options] -- PROGRAM [ARGS ...]")
    options = Options(
        epc=args.epc,
        linux=args.linux,
        driver=args.driver,
        coverage=args.coverage,
        engine=args.engine,
        supervisor=args.supervisor,
        sgx1=args.sgx1,
        xfrm=args.xfrm,
        seed=args.seed,
        tick_hz=args.tick,
        vendor=args.vendor,
        cpuid=args.cpuid,
        cpu_options=[text for text in args.cpu_option if text != HELP],
        inject=[text for text in args.inject if text != HELP],
        stats=args.stats,
        trace=args.trace,
        explain=args.explain,
        sgxs_out=args.sgxs_out,
        junit=args.junit,
    )
    try:
        if list_only:
            if HELP in args.cpu_option:
                print_stdout(listing(*part_of(options)))
            if HELP in args.inject:
                print_stdout(inject.listing())
            return EXIT_OK
        return _run(argv, options, caller, front)
    except ProgramError as error:
        code = EXIT_RUN_NOT_FOUND if error.missing else EXIT_RUN_NOT_EXECUTABLE
        raise UsageError(str(error), code) from None
    except RunnerError as error:
        raise UsageError(str(error)) from None


def _run(argv: list[str], options: Options, caller: Inherited, front: ToFront) -> int:
    """Check all that can be checked before the program starts; then run it."""
    library_exit.ends_with("softsgx: run", EXIT_RUN_FAILED)
    part_of(options)
    kernel_of(options)
    failures_of(options)
    facts = find_program(argv, caller)
    _refuse_same(argv, facts, options)
    start = partial(run_program, argv, options, caller, facts, front)
    if options.junit is None and options.coverage is None:
        return start()
    # Not at the top: every start would wait for what it imports.
    from softsgx.cli.run.reports import run_reported

    return run_reported(argv, options, start)


def _refuse_same(argv: list[str], facts: ProgramFacts, options: Options) -> None:
    """Refuse to write over the program's files, its standard streams, or another output."""
    trace, sgxs_out, junit = options.trace, options.sgxs_out, options.junit
    outputs = (trace, sgxs_out, junit, options.coverage)
    objects = [] if options.driver is None else [options.driver]
    name = overwritten([*facts.files(argv), *objects, 0, 1, 2], filter(None, outputs))
    if name is not None:
        raise UsageError(f"{name}: the program uses this file, too: choose another name")
    later = [f"{sgxs_out}.{number}" for number in range(2, FILES_MAX + 1)]
    for other in filter(None, (trace, junit)):
        if sgxs_out and overwritten([other], later):
            raise UsageError(f"{other}: is also a name of --sgxs-out: choose another name")
