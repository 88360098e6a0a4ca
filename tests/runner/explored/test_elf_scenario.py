"""Enclave ELF files as tasks of an exploration: examples/explored, and what its enclave can do."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from softsgx.cli.main import main
from softsgx.explore import Kind, Outcome, Plan, Violation, explore, record
from softsgx.explore.footprint import Footprint
from softsgx.explore.outcome import LeftOut
from softsgx.image.errors import ImageError
from softsgx.runner.explored.code_thread import CodeThread, Registers
from softsgx.runner.explored.elf_scenario import ElfScenario
from softsgx.sim import RETRY, Point, Steps, Task
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.registers import RIP
from softsgx.system.loaded_enclave import EnclaveFault
from softsgx.system.scenarios.scenario import Cast
from softsgx.system.scene import Scene
from tests.runner.explored.built import EXAMPLE, FLAGS, build
from tests.runner.gcc import needs_gcc
from tests.runner.programs import ROOT

pytestmark = needs_gcc


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built."""
    found = tmp_path_factory.mktemp("explored")
    shutil.copy(EXAMPLE / "scenarios.py", found)
    build(EXAMPLE / "enclave.c", found / "enclave")
    return found


class OnTheExample(ElfScenario):
    """`directory` is where the enclave was built."""

    elf = "enclave"
    directory: Path
    what = 0

    @property
    def file(self) -> str:
        return str(self.directory / "scenarios.py")

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        for cpu in (1, 2):
            yield f"thread {cpu}", cpu, self.one(scene, cpu)

    def one(self, scene: Scene, cpu: int) -> Steps[Any]:
        return self.call(scene, cpu, rdi=scene.enclave.heap, rsi=self.what)


def explored(kind: type[OnTheExample], directory: Path, *args: Any, **plan: Any) -> Outcome:
    kind.directory = directory
    return explore(kind(*args), Plan(**{"executions": 300, **plan}))


class AcceptOnce(OnTheExample):
    what = 1


def test_two_eaccept_of_one_page_meet_and_a_lock_keeps_them_apart(directory: Path) -> None:
    found = explored(OnTheExample, directory).failure
    assert found is not None
    assert (found.kind, found.rule, found.preemptions) == (Kind.VIOLATION, "spurious fault", 1)
    assert "vector 13" in found.text
    assert explored(AcceptOnce, directory).failure is None


class HostTouches(OnTheExample):
    """K1 is a race in the kernel: the enclave accepts a page while the host reads its address."""

    def __init__(self, on: bool) -> None:
        super().__init__("6.12", {"eaug_double_fault": on})

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        yield "enclave", 1, self.one(scene, 1)
        yield "host", 2, scene.thread(2).load(scene.enclave.heap, 1)


def test_a_race_of_the_kernel_is_found_with_real_code_and_gone_with_the_fix(
    directory: Path,
) -> None:
    found = explored(HostTouches, directory, True).failure
    assert found is not None
    assert "SIGBUS" in found.text
    assert explored(HostTouches, directory, False).failure is None


class Handled(OnTheExample):
    """The page is used at once: an exception, the handler at CSSA = 1 accepts, ERESUME."""

    def one(self, scene: Scene, cpu: int) -> Steps[Any]:
        def accept(vector: int, address: int) -> Registers:
            assert vector == 14
            return {"rdi": address, "rsi": 1}

        return self.call(scene, cpu, handler=accept, rdi=scene.enclave.heap, rsi=2)

    def verify(self, scene: Scene) -> None:
        def read(t: Any) -> Steps[bytes]:
            data: bytes = yield from t.load(scene.enclave.heap)
            return data

        count = int.from_bytes(scene.probe(scene.enter(read)), "little")
        if count not in (1, 2):
            raise Violation("count", str(count))


def test_an_exception_is_handled_at_cssa_1_and_the_thread_resumed(directory: Path) -> None:
    outcome = explored(Handled, directory)
    assert outcome.failure is None
    assert outcome.executions == 300


class ToTheHost(OnTheExample):
    """Memory of the host is read and written in place."""

    def build(self, scene: Scene) -> None:
        buffer = scene.machine.run(scene.host.alloc(PAGE_SIZE))
        scene.machine.run(scene.host.store(buffer, (20).to_bytes(8, "little")))
        scene.facts["buffer"] = buffer

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        yield "thread", 1, self._twice(scene)

    def _twice(self, scene: Scene) -> Steps[None]:
        buffer = scene.facts["buffer"]
        for value in (42, 86):
            registers = yield from self.call(scene, 1, rdi=2, rsi=3, rdx=buffer)
            assert registers["rdi"] == 0
            data = yield from scene.thread(1).load(buffer, 8)
            if int.from_bytes(data, "little") != value:
                raise Violation("host memory", data.hex())


def test_host_memory_is_read_and_written(directory: Path) -> None:
    outcome = explored(ToTheHost, directory)
    assert (outcome.failure, outcome.exhausted) == (None, True)
    assert outcome.reasons == (LeftOut.GRANULARITY,)
    assert " for this binary, at TLB misses and ENCLU; " in outcome.covered


class Waits(OnTheExample):
    what = 4


class Loops(OnTheExample):
    what = 5


@pytest.mark.parametrize("kind", [Waits, Loops])
def test_code_that_comes_to_no_point_is_told_from_a_violation(
    directory: Path, kind: type[OnTheExample]
) -> None:
    found = explored(kind, directory).failure
    assert found is not None
    assert found.kind is Kind.STEP_BOUND
    assert "has come to no ENCLU and no new page" in found.text


class WaitsForOther(OnTheExample):
    """A wait with PAUSE lets the other thread go on, and then ends."""

    def one(self, scene: Scene, cpu: int) -> Steps[Any]:
        return self.call(scene, cpu, rdi=scene.enclave.heap, rsi=4 if cpu == 1 else 1)


def test_a_thread_that_spins_lets_the_one_it_waits_for_go_on(directory: Path) -> None:
    outcome = explored(WaitsForOther, directory, preemptions=1)
    assert outcome.failure is None
    assert outcome.bound >= 0


def test_two_loops_with_pause_are_told_apart() -> None:
    """By their points explore knows a thread that has left one loop and waits in the next."""
    regs = dict.fromkeys(range(RIP + 1), 0)
    thread: Any = SimpleNamespace(current=SimpleNamespace(cpu=1), lp=SimpleNamespace(regs=regs))
    thread._retry = partial(CodeThread._retry, thread)
    points: set[Point] = set()
    for regs[RIP] in (0x1000, 0x2000, 0x1000):
        points.add(CodeThread._silent(thread, "pause", True, 1))
        points.add(CodeThread._silent(thread, "compute", False, 60))
    assert {kind for kind, _, _ in points} == {RETRY}
    assert len(points) == 3


class Noted(AcceptOnce):
    """Remembers the kinds of the points that were executed."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[str] = []

    def objects(self, task: Task, point: Point) -> Footprint:
        self.kinds.append(point[0])
        return super().objects(task, point)


def test_points_stand_at_enclu_and_at_misses_and_every_execution_is_the_same(
    directory: Path,
) -> None:
    Noted.directory = directory
    seen = []
    for _ in range(2):
        scenario = Noted()
        assert explore(scenario, Plan(strategy="exhaustive", executions=1)).failure is None
        seen.append(scenario.kinds)
    assert seen[0] == seen[1]
    assert {"EENTER", "EACCEPT", "EEXIT", "fetch", "store", "load"} <= set(seen[0])
    scenario = Noted()
    fingerprints = set()
    for _ in range(3):
        assert record(scenario, []).failure is None
        fingerprints.add(scenario.fingerprint())
    assert len(fingerprints) == 1


class Missing(OnTheExample):
    elf = "no-such-file"


class NoElf(OnTheExample):
    elf = "scenarios.py"


class Nameless(OnTheExample):
    elf = ""


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Missing, "no-such-file: No such file or directory"),
        (NoElf, "scenarios.py: ELF header"),
        (Nameless, "Nameless.elf: the name of an ELF file is needed"),
    ],
)
def test_a_file_that_is_no_enclave_is_a_scenario_error(
    directory: Path, kind: type[OnTheExample], why: str
) -> None:
    kind.directory = directory
    with pytest.raises(ImageError, match=why):
        kind().image()
    found = explored(kind, directory).failure
    assert found is not None
    assert found.kind is Kind.SCENARIO


def test_the_example_as_its_user_runs_it(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(directory / "scenarios.py")
    assert main(["explore", target, "--executions", "200"]) == 1
    text = capsys.readouterr().out
    assert "AcceptOnce,6.12: nothing found in 200 executions" in text
    assert "VIOLATION spurious fault: thread 2 leaves its enclave by vector 13" in text
    (line,) = [line for line in text.splitlines() if "replay:" in line]
    assert main(line.split("softsgx ")[1].split()) == 1
    assert "VIOLATION spurious fault" in capsys.readouterr().out


def test_the_documentation_shows_the_example_as_it_is() -> None:
    text = (ROOT / "docs" / "explore.md").read_text(encoding="utf-8")
    code = (EXAMPLE / "scenarios.py").read_text(encoding="utf-8").split('"""\n\n', 1)[1]
    assert code in text
    assert " ".join(FLAGS[5:8]) in (EXAMPLE / "enclave.c").read_text(encoding="utf-8")


def test_an_unhandled_exception_ends_the_call(directory: Path) -> None:
    Handled.directory = directory
    scenario = Handled()
    scene = scenario.scene
    with pytest.raises(EnclaveFault, match="vector 14"):
        scene.machine.run(scenario.call(scene, 1, rdi=scene.enclave.heap, rsi=2), 1)
