"""The kernel's own SGX selftests, unmodified, under `softsgx run`: python -m tools.conformance.

Debian's packages linux-source-6.1 and linux-source-6.12 are installed if they are missing (apt-get,
as root); tools/testing/selftests/sgx of each is built outside the repository, in
$XDG_CACHE_HOME/softsgx/conformance, and run with each engine, on the driver in Python and on that
of the same kernel in C (`softsgx driver build`). The native engine also runs as if on
the kind of processor that this one is not (ENCLU is #UD without SGX, #GP with it), "played". Every
run has to pass all of its tests and skip none, and has to evict pages: two tests make an enclave as
large as the EPC.
`--document` writes the table, with the processor that it was made on, into docs/run.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from softsgx.cdriver.build import build as driver_build
from softsgx.cdriver.debian import source
from softsgx.cdriver.errors import DriverError
from softsgx.cdriver.tree import find
from softsgx.runner.host.probes import enclu_answer

VERSIONS: Final = ("6.1", "6.12")
ENGINES: Final = ("unicorn", "native")
PYTHON: Final = "Python"
C: Final = "C"
DRIVERS: Final = (PYTHON, C)
ROOT: Final = Path(__file__).resolve().parents[1]
DOCUMENT: Final = ROOT / "docs" / "run.md"
TESTS: Final = 16
# Two tests need more than this, and build and remove that many pages one by one.
EPC: Final = "8M"
LIMIT_S: Final = 1800

# What the build reads, below the directory of the package.
_SELFTESTS: Final = "tools/testing/selftests"
_NEEDED: Final = (
    *(f"{_SELFTESTS}/{name}" for name in ("sgx/", "lib.mk", "kselftest")),
    *(f"{_SELFTESTS}/x86/{name}" for name in ("check_cc.sh", "trivial_64bit_program.c")),
    *("tools/include/", "tools/arch/x86/include/", "tools/scripts/", "arch/x86/include/"),
)
EMULATED: Final = "the model's"
UD: Final = "#UD"
GP: Final = "#GP or #PF"
BEGIN: Final = "<!-- make conformance CONFORMANCE=--document -->"
END: Final = "<!-- end of what make conformance wrote -->"
_TOTALS: Final = re.compile(r"^# Totals: (.*)$", re.MULTILINE)
_EVICTIONS: Final = re.compile(r"evict\w*[:=\s]+(\d+)|(\d+)[ \t]+(?:pages )?evict", re.IGNORECASE)


class CannotRunError(Exception):
    """Something is missing on this machine; the text says what to do."""


class Outcome(NamedTuple):
    """One run of test_sgx. `why` says what is wrong with it; empty if nothing is."""

    version: str
    driver: str
    engine: str
    enclu: str  # what it is to this engine
    totals: dict[str, int]
    evictions: int
    seconds: float
    why: str


def cache() -> Path:
    """Where sources are unpacked and built: never inside the repository."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "softsgx" / "conformance"


def install(packages: list[str]) -> None:
    """Debian packages, if apt-get is there and allowed to."""
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise CannotRunError(f"apt-get is not there: {names} of Debian are needed")
    if os.geteuid() != 0:
        raise CannotRunError(f"not root: run: sudo apt-get install {names}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # If this fails and was needed, the next step fails.
    subprocess.run(["apt-get", "update", "-qq"], env=env, capture_output=True, check=False)
    done = subprocess.run(
        ["apt-get", "install", "-y", "--no-install-recommends", *packages],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CannotRunError(f"apt-get install {names}: {last}")


def archive(version: str) -> Path:
    """The tar file of the package."""
    path = Path(f"/usr/src/linux-source-{version}.tar.xz")
    if not path.exists():
        install([f"linux-source-{version}"])
    if not path.exists():
        raise CannotRunError(f"{path} is not there, though linux-source-{version} is installed")
    return path


def prepare_tools() -> None:
    """A compiler, make, and the headers of libcrypto, with which test_sgx signs."""
    programs = {"gcc": "gcc", "make": "make"}
    missing = [package for name, package in programs.items() if shutil.which(name) is None]
    if not Path("/usr/include/openssl/pem.h").exists():
        missing.append("libssl-dev")
    if missing:
        install(missing)


def _wanted(tar: tarfile.TarFile, top: str) -> Iterator[tarfile.TarInfo]:
    needed = tuple(f"{top}/{name}" for name in _NEEDED)
    for member in tar:
        if member.name.removeprefix("./").startswith(needed):
            yield member


def unpack(version: str) -> Path:
    """The sources that the build reads; unpacked once for each version of the package."""
    source = archive(version)
    stamp = f"{version}-{int(source.stat().st_mtime)}-{source.stat().st_size}"
    place = cache() / stamp
    top = f"linux-source-{version}"
    if not place.exists():
        new = place.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        print(f"softsgx: conformance: unpacking {source.name}", flush=True)
        with tarfile.open(source, "r|xz") as tar:
            tar.extractall(new, members=_wanted(tar, top), filter="data")
        new.rename(place)
    return place / top


def build(version: str) -> Path:
    """The directory with test_sgx and test_encl.elf."""
    directory = unpack(version) / _SELFTESTS / "sgx"
    # Variables of an outer make would change where lib.mk puts its output.
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFL"))
    }
    done = subprocess.run(
        ["make", "-C", str(directory)], env=env, capture_output=True, text=True, check=False
    )
    made = [directory / name for name in ("test_sgx", "test_encl.elf")]
    if done.returncode != 0 or not all(path.exists() for path in made):
        raise CannotRunError(f"{directory}: make failed:\n{done.stdout}{done.stderr}")
    return directory


def totals(output: str) -> dict[str, int]:
    """The counts of the last line of a TAP report, or none."""
    found = _TOTALS.findall(output)
    pairs = (word.split(":") for word in found[-1].split()) if found else ()
    return {name: int(count) for name, count in pairs}


def evictions(stats: str) -> int:
    """How many pages `--stats` says were evicted; 0 if it says nothing."""
    found = (_EVICTIONS.search(line) for line in stats.splitlines())
    return next((int(match[1] or match[2]) for match in found if match), 0)


def verdict(counts: dict[str, int], evicted: int, code: int) -> str:
    """What is wrong with a run; empty if nothing is."""
    if not counts:
        return f"no totals, exit code {code}"
    if counts.get("pass") != TESTS:
        return f"not {TESTS} passed"
    others = [name for name, count in counts.items() if name != "pass" and count]
    if others:
        return ", ".join(others)
    if code != 0:
        return f"exit code {code}"
    return "" if evicted else "nothing was evicted"


class Way(NamedTuple):
    """An engine, what ENCLU raises under it, and the processor to be played for that, if any."""

    engine: str
    enclu: str
    played: str = ""


def ways(engines: list[str]) -> list[Way]:
    """How the tests are run on this machine."""
    found = []
    for engine in engines:
        if engine != "native":
            found.append(Way(engine, EMULATED))
            continue
        here, other = UD, (GP, "with-sgx")
        if enclu_answer() != signal.SIGILL:
            here, other = GP, (UD, "without-sgx")
        found += [Way(engine, here), Way(engine, f"{other[0]}, played", other[1])]
    return found


def driver_object(version: str) -> Path:
    """The driver of the package, compiled."""
    path = cache() / f"{version}.drv"
    built = driver_build(find(source(version)), former=path)
    path.write_bytes(built.data)
    return path


def run(version: str, driver: str, way: Way, epc: str, directory: Path) -> Outcome:
    """test_sgx in one way; what it printed goes to a file beside the sources."""
    engine, enclu, played = way
    log = cache() / f"{'-'.join(filter(None, (version, driver, engine, played)))}.log"
    options = ["--engine", engine, "--epc", epc, "--stats"]
    options += ["--driver", str(driver_object(version))] if driver == C else ["--linux", version]
    module = ["tests.runner.other_processor", played] if played else ["softsgx"]
    command = [sys.executable, "-m", *module, "run", *options, "--", "./test_sgx"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    begin = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(version, driver, engine, enclu, {}, 0, LIMIT_S, f"not done in {LIMIT_S} s")
    seconds = time.monotonic() - begin
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    counts, evicted = totals(done.stdout), evictions(done.stderr)
    why = verdict(counts, evicted, done.returncode)
    why = why and f"{why}: see {log}"
    return Outcome(version, driver, engine, enclu, counts, evicted, seconds, why)


def table(outcomes: list[Outcome]) -> str:
    """One line for each run."""
    head = f"{'Linux':8}{'driver':8}{'engine':10}{'ENCLU is':20}"
    lines = [f"{head}{'pass':>5}{'fail':>5}{'skip':>5}{'evicted':>9}{'s':>8}"]
    for o in outcomes:
        counts = "".join(f"{o.totals.get(name, '-'):>5}" for name in ("pass", "fail", "skip"))
        how = f"{o.version:8}{o.driver:8}{o.engine:10}{o.enclu:20}"
        line = f"{how}{counts}{o.evictions:>9}{o.seconds:>8.1f}"
        lines.append(f"{line}  {o.why}".rstrip())
    return "\n".join(lines)


def markdown(outcomes: list[Outcome], processor: str) -> str:
    """The table for docs/run.md, between its marks."""
    lines = [
        BEGIN,
        "| selftests of | driver | engine | ENCLU is | passed | failed | skipped | evicted |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for o in outcomes:
        counts = " | ".join(str(o.totals.get(name, "-")) for name in ("pass", "fail", "skip"))
        how = f"{o.driver} | {o.engine} | {o.enclu}"
        lines.append(f"| Linux {o.version} | {how} | {counts} | {o.evictions} |")
    return "\n".join([*lines, "", f"Made on: {processor}.", END])


def processor() -> str:
    """What /proc/cpuinfo calls the first processor, and the kernel."""
    names = ("model name", "cpu family", "model", "stepping")
    found: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            found.setdefault(name.strip(), value.strip())
    family, model, stepping = (found.get(name, "?") for name in names[1:])
    kernel = platform.release().split("-")[0]
    numbers = f"family {family}, model {model}, stepping {stepping}"
    return f"{found.get(names[0], '?')} ({numbers}), Linux {kernel}"


def write_document(text: str, document: Path = DOCUMENT) -> None:
    """Replace the table in docs/run.md."""
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise CannotRunError(f"{document}: no {BEGIN} and {END}")
    document.write_text(f"{before}{text}{after}", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__.splitlines()[0])
    parser.add_argument("--linux", choices=VERSIONS, action="append", help="default: all")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="default: all")
    parser.add_argument("--driver", choices=DRIVERS, action="append", help="default: both")
    parser.add_argument("--epc", default=EPC, metavar="SIZE", help=f"default: {EPC}")
    parser.add_argument("--document", action="store_true", help="put the table into docs/run.md")
    parser.add_argument("--build-only", action="store_true", help="do not run anything")
    return parser.parse_args()


def main() -> int:
    """0 if every run is as it has to be, 1 if not, 2 if this machine lacks something."""
    args = arguments()
    outcomes = []
    try:
        prepare_tools()
        for version in args.linux or VERSIONS:
            directory = build(version)
            if args.build_only:
                print(directory)
                continue
            for driver in args.driver or DRIVERS:
                for way in ways(args.engine or list(ENGINES)):
                    outcomes.append(run(version, driver, way, args.epc, directory))
        if outcomes and args.document:
            write_document(markdown(outcomes, processor()))
    except (CannotRunError, DriverError) as error:
        print(f"softsgx: conformance: {error}", file=sys.stderr)
        return 2
    if outcomes:
        print(table(outcomes))
    return 1 if any(outcome.why for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
