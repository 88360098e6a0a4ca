"""`softsgx run`: what a program sees, beside the same thing done natively in the same run."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bench.measure import Figure, table
from tests.runner.programs import PROGRAMS, Program, Workshop
from tools.conformance import EPC, CannotRunError, build, prepare_tools

ROOT = Path(__file__).parent
ENGINES = ("unicorn", "native")
_ROUNDS = 3
# Byte code is kept between runs, as an installed package has it.
_ENV = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def _pinned(command: Sequence[str]) -> list[str]:
    return ["taskset", "-c", str(max(os.sched_getaffinity(0))), *command]


def _softsgx(engine: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "softsgx", "run", "--engine", engine, *options, "--"]


def _figures_of(command: Sequence[str]) -> dict[str, float]:
    """`name value` lines that a program prints."""
    done = subprocess.run(_pinned(command), capture_output=True, text=True, check=True, env=_ENV)
    found = re.findall(r"^(\w+) ([\d.]+)$", done.stdout, re.MULTILINE)
    return {name: float(value) for name, value in found}


def _seconds(command: Sequence[str]) -> list[float]:
    times = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        subprocess.run(_pinned(command), capture_output=True, check=True, env=_ENV)
        times.append(time.perf_counter() - begin)
    return times


def _calls(workshop: Workshop, engine: str) -> list[Figure]:
    """Entry, copies, loop and an untouched system call, with one engine."""
    command = workshop.command(Program.read(ROOT / "programs" / "entry.c"))
    rounds = [_figures_of([*_softsgx(engine), *command]) for _ in range(_ROUNDS)]
    native = _figures_of(command[:1])

    def figure(what: str, name: str, target: float = 0.0, remark: str = "") -> Figure:
        values = [found[name] for found in rounds]
        return Figure(f"{engine}: {what}", median(values), min(values), "us", target, remark)

    loop = median(found["loop"] for found in rounds)
    call = {"unicorn": 70.0, "native": 60.0}[engine]
    ratio = f"{loop / native['loop']:.2f} times native ({native['loop']:.0f} us)"
    beside = f"native {native['syscall']:.3f} us"
    return [
        figure("EENTER + EEXIT through the vDSO, empty call", "call", call),
        figure("copy of 4 KiB from host memory", "copy", 500),
        figure("copy of 4 KiB to host memory", "copy_out"),
        figure("compute loop, 2 x 10^8 rounds", "loop", remark=ratio),
        figure("untouched system call", "syscall", native["syscall"] + 0.1, beside),
    ]


def _waiting(workshop: Workshop) -> list[Figure]:
    """Threads that wait without PAUSE: for a word of host memory, for an unfair lock."""
    polling = workshop.command(Program.read(ROOT / "programs" / "polling.c"))
    # Two threads at a time: not pinned to one processor.
    done = subprocess.run(
        [*_softsgx("unicorn"), *polling], capture_output=True, text=True, check=True, env=_ENV
    )
    polled = float(done.stdout.split()[1])
    lock = workshop.command(Program.read(PROGRAMS / "unfair_lock.c"))
    times = _seconds([*_softsgx("unicorn"), *lock])
    what = "unfair lock, 50 threads, 1,000 pages added"
    return [
        Figure("unicorn: call without an exit, both sides poll", polled, polled, "us", 120),
        Figure(f"unicorn: {what}", median(times), min(times), "s", 60),
    ]


def _start() -> Figure:
    times = _seconds([*_softsgx("unicorn"), "/bin/true"])
    return Figure("softsgx run -- /bin/true", median(times), min(times), "s", 0.35)


def _build(workshop: Workshop) -> Figure:
    """A 1 GiB enclave of unmeasured pages."""
    command = workshop.command(Program.read(ROOT / "programs" / "build.c"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    found = _figures_of([*_softsgx("unicorn", "--epc", "3G"), *command])["build"]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    remark = f"peak {max(peak, before) / 1024:.0f} MiB resident (target 100 beside touched pages)"
    return Figure("1 GiB of unmeasured pages by ADD_PAGES", found, found, "s", 8, remark)


def _processor_seconds(command: Sequence[str], cwd: Path) -> float:
    """Processor time of softsgx and the program together, little affected by other load."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=cwd, capture_output=True, check=True, env=_ENV)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _told() -> list[Figure]:
    """What --stats and --explain cost, in the kernel's own selftests; paired runs."""
    try:
        prepare_tools()
        directory = build("6.12")
    except CannotRunError as error:
        why = str(error).splitlines()[0]
        return [Figure("the kernel's selftests", 0.0, 0.0, "s", remark=f"not measured: {why}")]
    plain = _softsgx("unicorn", "--epc", EPC)
    rounds = []
    for _ in range(_ROUNDS):
        asked = (plain, [*plain[:-1], "--stats", "--"], [*plain[:-1], "--explain", "--"])
        rounds.append([_processor_seconds([*each, "./test_sgx"], directory) for each in asked])
    alone = [first for first, *_ in rounds]
    found = [Figure("the kernel's selftests, 6.12", median(alone), min(alone), "s")]
    for number, (name, target) in enumerate((("--stats", 0.4), ("--explain", 0.8)), 1):
        more = [each[number] - each[0] for each in rounds]
        ratio = f"{1 + median(more) / median(alone):.2f} times the processor time"
        found.append(Figure(f"{name} of it adds", median(more), min(more), "s", target, ratio))
    return found


def figures() -> list[Figure]:
    """All figures of this module."""
    with tempfile.TemporaryDirectory() as directory:
        workshop = Workshop(Path(directory))
        return [
            _start(),
            *(figure for engine in ENGINES for figure in _calls(workshop, engine)),
            *_waiting(workshop),
            _build(workshop),
            *_told(),
        ]


def main(show: Callable[[str], None]) -> None:
    """Print the section."""
    show(table("softsgx run", figures()))
