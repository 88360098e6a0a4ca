"""`softsgx run`: an unmodified SGX program on a machine without SGX."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from softsgx.cli import files
from softsgx.cli.errors import (
    EXIT_OK,
    EXIT_RUN_FAILED,
    EXIT_RUN_NOT_EXECUTABLE,
    EXIT_RUN_NOT_FOUND,
    UsageError,
)
from softsgx.cli.modes import Mode, Option, Table
from softsgx.cli.options import number
from softsgx.cli.outputs import file_output
from softsgx.report.same_file import overwritten
from softsgx.runner.errors import ProgramError, RunnerError

if TYPE_CHECKING:
    from softsgx.runner.exec_chain import ProgramFacts

MACHINE: Final = (
    Option(
        name="--engine",
        metavar="ENGINE",
        default="unicorn",
        help="what executes enclave code: unicorn (the reference) or native (the real CPU)",
    ),
    Option(name="--epc", metavar="SIZE", default="256M", help="size of EPC, for example 8M"),
    Option(name="--linux", metavar="VERSION", default="6.12", help="the kernel: 6.12, 6.1 or v2"),
    Option(name="--sgx1", help="a processor without SGX2"),
    Option(
        name="--xfrm",
        metavar="N",
        help="XSAVE components that the processor has, for example 0xe7",
        only=("--engine", ("native",)),
    ),
    Option(
        name="--cpu-option",
        metavar="NAME=VALUE",
        many=True,
        help="a feature of the processor or a reading of the manual; help lists all",
    ),
    Option(name="--vendor", metavar="TEXT", help="vendor string of CPUID leaf 0, 12 characters"),
    Option(
        name="--seed",
        type=number(64),
        metavar="N",
        default=0,
        help="determines every key of the machine",
    ),
    Option(
        name="--tick",
        type=int,
        metavar="HZ",
        default=250,
        help="timer interrupts in a second of processor time inside; 0: none",
    ),
    Option(
        name="--cpuid",
        metavar="HOW",
        default="auto",
        help="trap every CPUID (needs CPUID faulting), do so until-entry of a thread into an "
        "enclave, or patch those that are found; auto: trap, or else patch",
    ),
)
REPORTS: Final = (
    Option(name="--explain", help="say why an access, leaf or call was refused"),
    Option(name="--stats", help="say at the end how often what happened"),
    Option(
        name="--trace",
        metavar="FILE",
        type=file_output,
        help="write all events: JSON lines, text (.txt), or for ui.perfetto.dev (.pftrace)",
    ),
    Option(
        name="--sgxs-out",
        metavar="FILE",
        type=file_output,
        help="write each enclave as it is really built, an SGXS stream: FILE, FILE.2, ...",
    ),
)

TABLE: Final = Table(
    "run",
    {
        "the machine": MACHINE,
        "reports": REPORTS,
        "": (
            Option(name="PROGRAM", metavar="-- PROGRAM [ARGS ...]", rest=True, help="what to run"),
        ),
    },
    (
        Mode(
            about="run a program",
            options=(*(option.name for option in (*MACHINE, *REPORTS)), "PROGRAM"),
            codes={
                "N": "the program's own code, or 128 + the signal that killed it (or that ended "
                "softsgx)",
                EXIT_RUN_FAILED: "softsgx failed: bad options, the machine lacks something, not "
                "modelled, or a bug (SOFTSGX_DEBUG=1 shows the traceback)",
                EXIT_RUN_NOT_EXECUTABLE: "the program is there but cannot be executed, or not "
                "supervised",
                EXIT_RUN_NOT_FOUND: "the program, its interpreter or its loader is not found",
            },
            module=__name__,
            function="run_it",
        ),
    ),
)

register = TABLE.register
run = TABLE.run


def run_it(args: argparse.Namespace) -> int:
    """Run it; its exit code, or 128 + the signal that killed it."""
    from softsgx.runner import library_exit
    from softsgx.runner.cpu_options import HELP, listing
    from softsgx.runner.inherited import inherited
    from softsgx.runner.session import Options, find_program, run_program
    from softsgx.runner.sgxs_files import FILES_MAX

    argv = args.program[1:] if args.program[:1] == ["--"] else args.program
    if not argv and HELP not in args.cpu_option:
        raise UsageError("no program: softsgx run [options] -- PROGRAM [ARGS ...]")
    options = Options(
        epc=args.epc,
        linux=args.linux,
        engine=args.engine,
        sgx1=args.sgx1,
        xfrm=args.xfrm,
        seed=args.seed,
        tick_hz=args.tick,
        vendor=args.vendor,
        cpuid=args.cpuid,
        cpu_options=[text for text in args.cpu_option if text != HELP],
        stats=args.stats,
        trace=args.trace,
        explain=args.explain,
        sgxs_out=args.sgxs_out,
    )
    try:
        if HELP in args.cpu_option:
            files.show(listing(*options.machine()))
            return EXIT_OK
        library_exit.ends_with("softsgx: run", EXIT_RUN_FAILED)
        caller = inherited()
        options.machine()
        facts = find_program(argv, caller)
        _refuse_same(argv, facts, [args.trace, args.sgxs_out])
        later = [f"{args.sgxs_out}.{number}" for number in range(2, FILES_MAX + 1)]
        if args.trace and args.sgxs_out and overwritten([args.trace], later):
            raise UsageError(f"{args.trace}: is also a name of --sgxs-out: choose another name")
        return run_program(argv, options, caller, facts)
    except ProgramError as error:
        code = EXIT_RUN_NOT_FOUND if error.missing else EXIT_RUN_NOT_EXECUTABLE
        raise UsageError(str(error), code) from None
    except RunnerError as error:
        raise UsageError(str(error)) from None


def _refuse_same(argv: list[str], facts: ProgramFacts, outputs: list[str | None]) -> None:
    """Refuse to write over the files of the program, or over its standard streams."""
    name = overwritten([*facts.files(argv), 0, 1, 2], filter(None, outputs))
    if name is not None:
        raise UsageError(f"{name}: the program uses this file, too: choose another name")
