"""`softsgx run`: an unmodified SGX program on a machine without SGX. The table of its options."""

from __future__ import annotations

from typing import Final

from softsgx.cli.declared import Mode, Option
from softsgx.cli.driver_object import DRIVER, RUN_COVERAGE
from softsgx.cli.errors import (
    DEBUG,
    EXIT_RUN_FAILED,
    EXIT_RUN_NOT_EXECUTABLE,
    EXIT_RUN_NOT_FOUND,
)
from softsgx.cli.modes import Table
from softsgx.cli.options import number
from softsgx.cli.outputs import file_output
from softsgx.linux.version import VERSIONS
from softsgx.runner.options import (
    AUTO,
    CPUID_CHOICES,
    ENGINES,
    FORMATS,
    JSON,
    NATIVE,
    PTRACE,
    SUPERVISORS,
    SYSTRAP,
    TEXT,
    UNICORN,
    Options,
)

_DEFAULT: Final = Options()
_KERNELS: Final = ", ".join(VERSIONS)

MACHINE: Final = (
    Option(
        name="--engine",
        words=ENGINES,
        metavar="ENGINE",
        default=_DEFAULT.engine,
        help=f"what executes enclave code: {UNICORN} (the reference) or {NATIVE} (the real CPU)",
    ),
    Option(
        name="--supervisor",
        words=(AUTO, *SUPERVISORS),
        metavar="HOW",
        default=_DEFAULT.supervisor,
        help=f"how programs are supervised: {SYSTRAP} (without tracing them), {PTRACE}, or {AUTO}: "
        f"{SYSTRAP} where the machine allows it",
    ),
    Option(name="--epc", metavar="SIZE", default=_DEFAULT.epc, help="size of EPC, for example 8M"),
    Option(
        name="--linux",
        words=tuple(VERSIONS),
        metavar="VERSION",
        default=_DEFAULT.linux,
        help=f"the kernel: {' or '.join(_KERNELS.rsplit(', ', 1))}",
        only=("--driver", (None,)),
    ),
    DRIVER,
    Option(name="--sgx1", help="a processor without SGX2"),
    Option(
        name="--xfrm",
        metavar="N",
        help="XSAVE components that the processor has, for example 0xe7",
        only=("--engine", (NATIVE,)),
    ),
    Option(
        name="--cpu-option",
        metavar="NAME=VALUE",
        many=True,
        help="a feature of the processor or a reading of the manual; help lists all",
    ),
    Option(
        name="--inject",
        metavar="SITE[:when=WHEN]",
        many=True,
        help="let the kernel fail at SITE, always or as strace counts: FIRST[..LAST][+[STEP]]; "
        "help lists all",
    ),
    Option(name="--vendor", metavar="TEXT", help="vendor string of CPUID leaf 0, 12 characters"),
    Option(
        name="--seed",
        type=number(64),
        metavar="N",
        default=_DEFAULT.seed,
        help="determines every key of the machine",
    ),
    Option(
        name="--tick",
        type=int,
        metavar="HZ",
        default=_DEFAULT.tick_hz,
        help="timer interrupts per second of processor time in enclaves; 0: none",
    ),
    Option(
        name="--cpuid",
        words=CPUID_CHOICES,
        metavar="HOW",
        default=_DEFAULT.cpuid,
        help="trap: every CPUID, by CPUID faulting; until-entry: until a thread enters an enclave; "
        "patch: those found in code; auto: trap, or else patch",
    ),
)
REPORTS: Final = (
    RUN_COVERAGE,
    Option(name="--explain", help="explain why an access, leaf or call was refused"),
    Option(
        name="--stats",
        choices=FORMATS,
        bare=TEXT,
        joined=True,
        help=f"print counts of events at the end: a table, or with ={JSON} one line of JSON",
    ),
    Option(
        name="--trace",
        metavar="FILE",
        type=file_output,
        help="write all events: JSON lines, text (.txt), or for ui.perfetto.dev (.pftrace)",
    ),
    Option(
        name="--junit",
        metavar="FILE",
        type=file_output,
        help="write the result as JUnit XML: a test case, which fails with the program",
    ),
    Option(
        name="--sgxs-out",
        metavar="FILE",
        type=file_output,
        help="write each enclave as it is built, as an SGXS stream: FILE, FILE.2, ...",
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
                "N": "the program's own code, or 128 + the signal that killed it",
                EXIT_RUN_FAILED: "softsgx failed: bad options, the machine lacks something, not "
                f"modelled, or a bug ({DEBUG}=1 shows the traceback)",
                EXIT_RUN_NOT_EXECUTABLE: "the program exists but cannot be executed, or not "
                "supervised",
                EXIT_RUN_NOT_FOUND: "the program, its interpreter or its loader is not found",
            },
            module="softsgx.cli.run.start",
        ),
    ),
)

register = TABLE.register
run = TABLE.run
