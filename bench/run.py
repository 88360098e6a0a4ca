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
from functools import partial
from pathlib import Path
from statistics import median

from bench import floors
from bench.floors import Processor
from bench.measure import Figure, table
from softsgx.system import Machine
from tests.runner.programs import PROGRAMS, Program, Workshop
from tools.conformance import EPC, CannotRunError, build, prepare_tools

ROOT = Path(__file__).parent
ENGINES = ("unicorn", "native")
SUPERVISORS = ("ptrace", "systrap")
DEFAULT = ""  # the supervisor that a run takes by itself
_ROUNDS = 3
_LINE = re.compile(r"^(\w+) ([\d.]+)$", re.MULTILINE)
# Byte code is kept between runs, as an installed package has it.
_ENV = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def _pinned(command: Sequence[str]) -> list[str]:
    return ["taskset", "-c", str(max(os.sched_getaffinity(0))), *command]


def _softsgx(engine: str, *options: str, supervisor: str = DEFAULT) -> list[str]:
    asked = ["--supervisor", supervisor] if supervisor else []
    return [sys.executable, "-m", "softsgx", "run", "--engine", engine, *asked, *options, "--"]


def _supervisors() -> tuple[str, ...]:
    """Those that `softsgx run` can be asked for."""
    command = [sys.executable, "-m", "softsgx", "run", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=_ENV)
    return SUPERVISORS if "--supervisor" in done.stdout else (DEFAULT,)


def _named(engine: str, supervisor: str) -> str:
    return f"{engine}, {supervisor}" if supervisor else engine


def _figures_of(command: Sequence[str]) -> dict[str, float]:
    done = subprocess.run(_pinned(command), capture_output=True, text=True, check=True, env=_ENV)
    return _numbers(done.stdout)


def _numbers(text: str) -> dict[str, float]:
    """`name value` lines that a program prints."""
    return {name: float(value) for name, value in _LINE.findall(text)}


def _seconds(command: Sequence[str]) -> list[float]:
    times = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        subprocess.run(_pinned(command), capture_output=True, check=True, env=_ENV)
        times.append(time.perf_counter() - begin)
    return times


def _floors(workshop: Workshop) -> list[dict[str, float]]:
    """Not pinned from here: the program chooses its CPUs itself."""
    command = workshop.command(Program.read(ROOT / "programs" / "floors.c"))
    rounds = []
    for _ in range(_ROUNDS):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rounds.append(_numbers(done.stdout))
    return rounds


def _calls(workshop: Workshop, processor: Processor, engine: str, supervisor: str) -> list[Figure]:
    """Entry, ioctl, untouched system call, copies and a loop: one engine, one supervisor."""
    command = workshop.command(Program.read(ROOT / "programs" / "entry.c"))
    natives = [_figures_of(command[:1]) for _ in range(_ROUNDS)]
    ours = [_figures_of([*_softsgx(engine, supervisor=supervisor), *command]) for _ in natives]
    native = {name: median(each[name] for each in natives) for name in natives[0]}

    def figure(
        what: str, name: str, target: float = 0.0, remark: str = "", less: float = 0.0
    ) -> Figure:
        values = [found[name] - less for found in ours]
        who = _named(engine, supervisor)
        return Figure(f"{who}: {what}", median(values), min(values), "us", target, remark)

    model = _model_ioctl_us()
    call = {"unicorn": 35.0, "native": processor.call_us}[engine]
    ratio = median(found["loop"] for found in ours) / native["loop"]
    return [
        figure("EENTER + EEXIT through the vDSO, empty call", "call", call, f"ENCLU {processor}"),
        figure(
            "ioctl of the enclave that the driver does not have, more than in the model alone",
            "ioctl",
            25,
            f"the model alone {model:.1f} us",
            less=model,
        ),
        figure(
            "untouched system call, more than native",
            "syscall",
            0.05,
            f"native {native['syscall']:.3f} us",
            less=native["syscall"],
        ),
        figure("copy of 4 KiB from host memory", "copy", 500),
        figure("copy of 4 KiB to host memory", "copy_out"),
        figure(
            "compute loop, 2 x 10^8 rounds",
            "loop",
            remark=f"{ratio:.2f} times native ({native['loop']:.0f} us)",
        ),
    ]


def _model_ioctl_us() -> float:
    """The same ioctl in a machine without real processes, in this one."""
    machine = Machine()
    host = machine.thread()
    fd = machine.run(host.open("/dev/sgx_enclave"))
    times = []
    for _ in range(2000):
        begin = time.perf_counter()
        machine.run(host.ioctl(fd, 0xA4FF, 0))
        times.append(time.perf_counter() - begin)
    return median(times) * 1e6


def _exits(workshop: Workshop, supervisor: str) -> list[Figure]:
    """Exceptions inside, and pages that come and go while the enclave runs; natively."""
    rows = (
        ("stops", "exception", "EENTER, exception, AEX"),
        ("stops", "handler", "EENTER at CSSA 1, EEXIT"),
        ("stops", "resume", "ERESUME, EEXIT"),
        ("signals", "signal", "EENTER, exception, AEX, signal at the AEP"),
        ("signals", "handler", "EENTER at CSSA 1 in its handler, EEXIT"),
        ("signals", "resume", "end of the handler, ERESUME, EEXIT"),
        ("grow", "accept", "EACCEPT of a page not there: fault, EAUG, EACCEPT, per page"),
        ("grow", "touch", "first store to a page, per page"),
        ("grow", "trim", "EMODT, EACCEPT, EREMOVE, per page"),
    )
    found = {}
    for name in dict.fromkeys(name for name, _, _ in rows):
        command = workshop.command(Program.read(ROOT / "programs" / f"{name}.c"))
        asked = [*_softsgx("native", supervisor=supervisor), *command]
        found[name] = [_figures_of(asked) for _ in range(_ROUNDS)]
    figures = []
    for program, name, what in rows:
        values = [each[name] for each in found[program]]
        who = _named("native", supervisor)
        figures.append(Figure(f"{who}: {what}", median(values), min(values), "us"))
    return figures


def _storm(workshop: Workshop, supervisor: str) -> list[Figure]:
    """50 threads that only call, natively, on all processors; 90 % of them is to be reached."""
    command = workshop.command(Program.read(ROOT / "programs" / "storm.c"))
    asked = _softsgx("native", supervisor=supervisor)
    rounds = []
    for _ in range(_ROUNDS):
        done = subprocess.run(
            [*asked, *command], capture_output=True, text=True, check=True, env=_ENV
        )
        rounds.append(_numbers(done.stdout))
    cores = len(os.sched_getaffinity(0))
    who = _named("native", supervisor)

    def figure(what: str, name: str, target: float, remark: str) -> Figure:
        values = [found[name] for found in rounds]
        said = f"{1e6 / median(values):,.0f} calls/s{remark}"
        return Figure(f"{who}: {what}", median(values), min(values), "us", target, said)

    one = median(found["one"] for found in rounds)
    ratio = one / median(found["all"] for found in rounds)
    return [
        figure("storm of calls, 1 thread, per call", "one", 0.0, ""),
        figure(
            "storm of calls, 50 threads, per call",
            "all",
            one / cores / 0.9,
            f", {ratio:.2f} times one thread, {cores} cores",
        ),
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


def _start(supervisor: str) -> Figure:
    times = _seconds([*_softsgx("unicorn", supervisor=supervisor), "/bin/true"])
    what = " ".join(["softsgx run", *(["--supervisor", supervisor] if supervisor else [])])
    return Figure(f"{what} -- /bin/true", median(times), min(times), "s", 0.35)


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


def _tried(what: str, measure: Callable[[], list[Figure]]) -> list[Figure]:
    """The figures; one row that says why, if a command fails."""
    try:
        return measure()
    except subprocess.CalledProcessError as error:
        said = [line for line in str(error.stderr).splitlines() if "native engine:" not in line]
        why = said[-1] if said else f"exit code {error.returncode}"
        return [Figure(what, 0.0, 0.0, "us", remark=f"not measured: {why}")]


def _supervised(workshop: Workshop, processor: Processor, supervisor: str) -> list[Figure]:
    """What depends on the supervisor."""
    found = _tried("start", lambda: [_start(supervisor)])
    for engine in ENGINES:
        calls = partial(_calls, workshop, processor, engine, supervisor)
        found += _tried(_named(engine, supervisor), calls)
    for what, measure in (("exits", _exits), ("storm", _storm)):
        rows = partial(measure, workshop, supervisor)
        found += _tried(f"{_named('native', supervisor)}: {what}", rows)
    return found


def figures() -> list[Figure]:
    """All figures of this module."""
    with tempfile.TemporaryDirectory() as directory:
        workshop = Workshop(Path(directory))
        rounds = _floors(workshop)
        processor = floors.processor(rounds[0])
        return [
            *floors.figures(rounds),
            *(
                figure
                for supervisor in _supervisors()
                for figure in _supervised(workshop, processor, supervisor)
            ),
            *_waiting(workshop),
            _build(workshop),
            *_told(),
        ]


def main(show: Callable[[str], None]) -> None:
    """Print the section."""
    show(table("softsgx run", figures()))
