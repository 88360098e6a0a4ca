"""How often a native thread stops for the supervisor. Counted: times would be those of a machine,
and without ticks, which come by time.

The programs are those of the benchmark, and one of the tests.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from softsgx.runner.options import PTRACE, SYSTRAP
from tests.patience import LIMIT_S
from tests.runner.programs import PROGRAMS, ROOT, Program, Workshop

# Counts the stops that the native engine serves, and the ENCLU that it is asked for.
COUNTING = """
import os, sys
from softsgx.cli.main import main
from softsgx.runner.native.engine import NativeEngine

counts = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND)

def counted(name, letter):
    served = getattr(NativeEngine, name)
    def serve(*arguments):
        os.write(counts, letter)
        return served(*arguments)
    setattr(NativeEngine, name, serve)

counted("stopped", b"s")
counted("request", b"r")
sys.exit(main())
"""
EXCEPTIONS = 2100  # of bench/programs/stops.c and signals.c
PAGES, ROUNDS = 2500, 50  # of bench/programs/grow.c
LOOPED = 150  # pages of tests/programs/accept_loop.c that come by a fault, and AEPs that count
FEW = 150  # while a program starts


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("stops"))


def counts(workshop: Workshop, name: str, supervisor: str, file: Path) -> tuple[int, int]:
    """Run a program of the benchmark: how many stops and requests were served."""
    source = ROOT / "bench" / "programs" / f"{name}.c"
    if not source.exists():
        source = PROGRAMS / source.name
    command = workshop.command(Program.read(source))
    options = ["run", "--engine", "native", "--supervisor", supervisor, "--tick", "0"]
    file.write_bytes(b"")
    subprocess.run(
        [sys.executable, "-c", COUNTING, str(file), *options, "--", *command],
        capture_output=True,
        timeout=LIMIT_S,
        check=True,
    )
    served = file.read_bytes()
    return served.count(b"s"), served.count(b"r")


@pytest.mark.parametrize(("supervisor", "stops"), [(SYSTRAP, 1), (PTRACE, 3)])
def test_after_an_aex_a_thread_enters_again_without_asking(
    workshop: Workshop, tmp_path: Path, supervisor: str, stops: int
) -> None:
    """Each AEX disarmed the thread for good: its handler's EENTER, and the next one, were asked
    for. Runtimes that raise an exception at each system call asked three times for each. And a
    thread that is inside after ERESUME had to ask for the EEXIT that it always leaves by."""
    stopped, requested = counts(workshop, "stops", supervisor, tmp_path / "counts")
    assert EXCEPTIONS * stops <= stopped <= EXCEPTIONS * stops + FEW
    assert EXCEPTIONS <= requested <= EXCEPTIONS + FEW  # ERESUME


def test_a_signal_at_the_aep_leaves_the_thread_armed(workshop: Workshop, tmp_path: Path) -> None:
    """Each AEX that became a signal took seven stops: the exception, the signal, a stop at the
    handler's first instruction to complete its frame, ENCLU and EEXIT of the handler, ENCLU and
    EEXIT of the resumed code. Now these are the first two, and the ENCLU that is ERESUME."""
    stopped, requested = counts(workshop, "signals", SYSTRAP, tmp_path / "counts")
    assert EXCEPTIONS * 3 <= stopped <= EXCEPTIONS * 3 + FEW
    assert requested <= FEW


@pytest.mark.parametrize("supervisor", [SYSTRAP, PTRACE])
def test_an_eaccept_whose_page_the_kernel_has_added_is_executed_at_once(
    workshop: Workshop, tmp_path: Path, supervisor: str
) -> None:
    """The thread was sent back to the same EACCEPT, and stopped there a second time: of the stops
    for each page one is EACCEPT of the new page, one its first use, one EACCEPT of its trim."""
    stopped, _ = counts(workshop, "grow", supervisor, tmp_path / "counts")
    assert PAGES * 3 <= stopped < PAGES * 3.5


def test_after_a_call_of_the_driver_a_thread_enters_without_asking(
    workshop: Workshop, tmp_path: Path
) -> None:
    """Every call that the driver served disarmed the thread, so that the next EENTER, two in each
    round of grow.c, was asked for."""
    _, requested = counts(workshop, "grow", SYSTRAP, tmp_path / "counts")
    assert requested < ROUNDS


def test_the_supervisor_goes_on_from_one_eaccept_to_the_next(
    workshop: Workshop, tmp_path: Path
) -> None:
    """Of 750 EACCEPT each was a stop, and so was the ERESUME of each page that came by a fault.
    Where the AEP does more than resume, that one is left: it comes from the program."""
    stopped, requested = counts(workshop, "accept_loop", SYSTRAP, tmp_path / "counts")
    assert LOOPED <= stopped <= LOOPED + FEW
    assert requested <= FEW
