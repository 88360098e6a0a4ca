"""Random programs under `softsgx run`, and the invariants of the driver while they run.

    python -m tests.runner.fuzz --operations 100000 --seed 1

runs tests/runner/fuzz_program.c in this process's supervisor. Verified: that the supervisor and the
model survive whatever the program does, that the records of the driver agree with the EPCM between
two events (D1 to D8 of docs/invariants.md), and that nothing is left at the end. Not verified: what
the program's calls return.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from softsgx.cpu.signature import development_key
from softsgx.image import sgxs
from softsgx.image.file import load
from softsgx.image.layout import ThreadLayout
from softsgx.image.sigstruct import sign
from softsgx.linux import syscalls
from softsgx.linux.sgx.encl import SgxEncl
from softsgx.linux.vfs import O_RDWR, File
from softsgx.runner.cpuid.cpuid import CpuidPolicy, part_for
from softsgx.runner.host.inherited import inherited
from softsgx.runner.options import ENGINES, PTRACE, SUPERVISORS
from softsgx.runner.process.identity import Identity
from softsgx.runner.process.world import World
from softsgx.runner.supervisor.engines import hardware
from softsgx.runner.supervisor.loading import Loader
from softsgx.runner.supervisor.supervisor import Supervisor
from softsgx.runner.ways import WAYS
from softsgx.spec.bits import PAGE_SHIFT
from tests.property.driver_invariants import CHECKS
from tests.runner.programs import PROGRAMS, ROOT

HERE: Final = Path(__file__).parent
# One event in so many is followed by all checks.
EVENTS_PER_CHECK: Final = 50
SELECTED: Final = ("D1", "D2", "D3", "D4", "D5", "D7", "D8")


@dataclass
class Enclave:
    """What the checks know of one enclave."""

    encl: SgxEncl
    file: File
    torn: bool = True
    leaked: bool = False
    removed: frozenset[int] = frozenset()


class View:
    """The supervisor's world as tests.property.driver_invariants looks at it."""

    def __init__(self, supervisor: Supervisor, ever: list[File]) -> None:
        self._supervisor = supervisor
        self._ever = ever
        world = supervisor.world
        self.processor = world.machine.processor
        self.kernel = world.kernel
        self.slots: tuple[()] = ()
        self.aliased = MOVED
        self.orphans: frozenset[object] = frozenset()

    @property
    def enclaves(self) -> list[Enclave]:
        """Enclaves that a process has open or mapped."""
        return [
            Enclave(f.encl, f)
            for f in self._ever
            if isinstance(f.encl, SgxEncl) and f.encl.refcount
        ]

    def enclave_of(self, encl: SgxEncl) -> Enclave | None:
        """The one of these."""
        return next((x for x in self.enclaves if x.encl is encl), None)

    def hosts(self) -> list[Any]:
        """Threads that the model knows."""
        return [t for t in self._supervisor.tracees.values() if t.thread is not None]


class Moved:
    """Linear pages to which mremap(2) has moved something: their entries may differ."""

    def __init__(self) -> None:
        self.pages: set[int] = set()

    def __contains__(self, place: tuple[object, int]) -> bool:
        return place[1] in self.pages

    def watch(self) -> None:
        """From now on."""
        move = syscalls._move

        def moving(current: Any, old: int, length: int, new: int, gone: Any) -> Any:
            self.pages.update(range(new >> PAGE_SHIFT, (new + length) >> PAGE_SHIFT))
            return move(current, old, length, new, gone)

        syscalls._move = moving


MOVED: Final = Moved()


class WatchedWorld(World):
    """A world that remembers all files ever opened."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.ever: list[File] = []

    def opened(self, path: str, stand_in: Identity, mode: int = O_RDWR) -> int:
        """As World.opened."""
        error = super().opened(path, stand_in, mode)
        assert not error, error
        self.ever = [x for x in self.ever if isinstance(x.encl, SgxEncl) and x.encl.refcount]
        self.ever.append(self.files[stand_in])
        return 0


@dataclass
class Findings:
    """What was wrong, in sentences, and how often the checks ran."""

    sentences: list[str] = field(default_factory=list)
    looks: int = 0


class Watched(Supervisor):
    """A supervisor that checks the invariants while it runs."""

    def __init__(self, world: WatchedWorld, loader: Loader, engine: str) -> None:
        super().__init__(world, loader, engine)
        self.ever = world
        self.found = Findings()
        self._events = 0

    def _event(self, t: Any, status: int) -> None:
        super()._event(t, status)
        self._events += 1
        if self._events % EVENTS_PER_CHECK == 0:
            self.found.looks += 1
            self.found.sentences += violations(self, self.ever.ever)
            assert not self.found.sentences, self.found.sentences[:10]


def violations(supervisor: Supervisor, ever: list[File]) -> Iterator[str]:
    """A sentence for each invariant that does not hold now."""
    view: Any = View(supervisor, ever)
    for name in SELECTED:
        for sentence in CHECKS[name](view):
            yield f"{name}: {sentence}"


def left_over(supervisor: Supervisor) -> Iterator[str]:
    """What should not be there after the last process has ended."""
    world = supervisor.world
    supervisor.calls.releases.look()
    kernel, pages = world.kernel, world.machine.processor.epc.pages
    if supervisor.tracees:
        yield f"threads are left: {list(supervisor.tracees)}"
    if world.files:
        yield f"{len(world.files)} open files are left"
    if kernel.nr_free != pages:
        yield f"{kernel.nr_free} of {pages} EPC pages are free"
    if kernel.warnings:
        yield f"warnings: {kernel.warnings}"
    inside = [lp.id for lp in world.machine.processor.lps if lp.secs is not None]
    if inside:
        yield f"processors are still inside: {inside}"


def build(directory: Path) -> list[str]:
    """The program, its enclave and its SIGSTRUCT."""
    gcc = ["gcc", "-std=gnu11", "-O1", "-D_GNU_SOURCE", "-pthread", "-w"]
    include = ["-I", str(PROGRAMS / "lib"), "-I", str(ROOT / "examples" / "edmm")]
    program, enclave = directory / "fuzz", directory / "ops.elf"
    source = [str(HERE / "fuzz_program.c"), "-o", str(program)]
    subprocess.run([*gcc, *include, *source], check=True)
    source = [str(PROGRAMS / "enclave" / "ops.c"), "-o", str(enclave)]
    bare = ["-nostdlib", "-fno-stack-protector", "-fcf-protection=none", "-static-pie", "-fpie"]
    link = ["-O2", "-Wl,-z,max-page-size=4096,-z,noexecstack"]
    subprocess.run([*gcc, *include, *bare, *link, *source], check=True)
    image = load(enclave.read_bytes(), ThreadLayout(threads=2))
    files = {".sgxs": sgxs.write(image), ".sig": sign(image, development_key()).pack()}
    for suffix, content in files.items():
        enclave.with_suffix(suffix).write_bytes(content)
    return [str(program), *(str(enclave.with_suffix(suffix)) for suffix in files)]


def run(
    command: list[str], seed: int, operations: int, epc: str = "2M", engine: Any = "unicorn"
) -> Findings:
    """One program from its start to its end, supervised by this process."""
    part: Any = part_for(engine, sgx1=False)
    MOVED.watch()
    world = WatchedWorld(hardware=hardware(engine), epc=epc, linux="6.12", seed=seed, part=part)
    policy = CpuidPolicy(part, world.machine.processor.epc.cpuid_sections(), engine, None)
    supervisor = Watched(world, Loader(policy), engine)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisor.start(command[0], [*command, str(seed), str(operations)], inherited())
    try:
        status = supervisor.run()
    except BaseException:
        supervisor.kill()
        raise
    found = supervisor.found
    if status:
        found.sentences.append(f"the program ended with wait status {status:#x}")
    found.sentences += left_over(supervisor)
    return found


def main() -> int:
    """The command: 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epc", default="2M")
    parser.add_argument("--engine", default="unicorn", choices=ENGINES)
    parser.add_argument("--supervisor", default=PTRACE, choices=SUPERVISORS)
    options = parser.parse_args()
    WAYS.traced = options.supervisor == PTRACE
    with tempfile.TemporaryDirectory() as directory:
        command = build(Path(directory))
        found = run(command, options.seed, options.operations, options.epc, options.engine)
    print(f"seed {options.seed}: {options.operations} operations, {found.looks} looks")
    for sentence in found.sentences:
        print(sentence)
    return int(bool(found.sentences))


if __name__ == "__main__":
    sys.exit(main())
