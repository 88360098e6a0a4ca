"""`softsgx run`: an unmodified SGX program on a machine without SGX."""

import argparse

from softsgx.cli import files
from softsgx.cli.errors import (
    EXIT_OK,
    EXIT_RUN_NOT_EXECUTABLE,
    EXIT_RUN_NOT_FOUND,
    UsageError,
)
from softsgx.runner.errors import ProgramError, RunnerError


def register(parser: argparse.ArgumentParser) -> None:
    """Options of the machine, then the program."""
    parser.usage = "softsgx run [options] -- PROGRAM [ARGS ...]"
    parser.add_argument(
        "--engine",
        default="unicorn",
        metavar="ENGINE",
        help="what executes enclave code: unicorn (the reference) or native (the real CPU)",
    )
    parser.add_argument(
        "--epc", default="256M", metavar="SIZE", help="size of EPC, for example 8M (default 256M)"
    )
    parser.add_argument(
        "--linux", default="6.12", metavar="VERSION", help="the kernel: 6.12 (default), 6.1, v2"
    )
    parser.add_argument("--sgx1", action="store_true", help="a processor without SGX2")
    parser.add_argument(
        "--xfrm",
        metavar="N",
        help="XSAVE components that the processor has, for example 0xe7 (--engine native)",
    )
    parser.add_argument(
        "--cpu-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a feature of the processor or a reading of the manual; help lists all",
    )
    parser.add_argument(
        "--vendor", metavar="TEXT", help="vendor string of CPUID leaf 0, 12 characters"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="determines every key of the machine"
    )
    parser.add_argument(
        "--tick",
        type=int,
        default=250,
        metavar="HZ",
        help="timer interrupts in a second of processor time inside (default 250; 0: none)",
    )
    parser.add_argument(
        "--cpuid",
        default="auto",
        metavar="HOW",
        help="trap every CPUID (needs CPUID faulting), do so until-entry of a thread into an "
        "enclave, or patch those that are found; auto (default): trap, or else patch",
    )
    _add_reports(parser)
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM", help="what to run")


def _add_reports(parser: argparse.ArgumentParser) -> None:
    """What is told of the run."""
    parser.add_argument(
        "--explain", action="store_true", help="say why an access, leaf or call was refused"
    )
    parser.add_argument(
        "--stats", action="store_true", help="say at the end how often what happened"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="write all events: JSON lines, text (.txt), or for ui.perfetto.dev (.pftrace)",
    )
    parser.add_argument(
        "--sgxs-out",
        metavar="FILE",
        help="write each enclave as it is really built, an SGXS stream: FILE, FILE.2, ...",
    )


def run(args: argparse.Namespace) -> int:
    """Run it; its exit code, or 128 + the signal that killed it."""
    from softsgx.runner.cpu_options import HELP, listing
    from softsgx.runner.inherited import inherited
    from softsgx.runner.session import Options, run_program

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
        return run_program(argv, options, inherited())
    except ProgramError as error:
        code = EXIT_RUN_NOT_FOUND if error.missing else EXIT_RUN_NOT_EXECUTABLE
        raise UsageError(str(error), code) from None
    except RunnerError as error:
        raise UsageError(str(error)) from None
