"""Points of enclave ELF files: what can happen at each granularity, and what cannot."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from softsgx.cli.main import main
from softsgx.explore import Kind, Outcome, Plan, Scenario, explore, record, replay_string, replayed
from softsgx.explore.footprint import conflict
from softsgx.explore.strategies import Bounded
from softsgx.image.errors import ImageError
from softsgx.runner.code.disassembler import Code
from softsgx.runner.explored import settling
from softsgx.runner.explored.elf_scenario import ElfScenario
from softsgx.runner.explored.footprints import footprint
from softsgx.runner.explored.points import Points
from softsgx.runner.explored.sharing import Sharing
from softsgx.runner.explored.symbols import Symbols
from softsgx.sim import Execution, Point, Steps, Unmodelled
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.registers import RIP
from softsgx.spec.ssa import GPRSGX_IN_PAGE
from softsgx.system.scenarios.scenario import Cast
from softsgx.system.scene import Scene
from tests.runner.explored.built import build
from tests.runner.gcc import needs_gcc
from tests.runner.programs import ROOT

pytestmark = needs_gcc


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The enclave, built."""
    found = tmp_path_factory.mktemp("points")
    build(ROOT / "tests/runner/explored/accesses.c", found / "accesses")
    OnAccesses.directory = found
    return found


class OnAccesses(ElfScenario):
    """`cases` has what each thread does, and with which value; `results` what they return."""

    elf = "accesses"
    points = "access"
    directory: Path
    cases: ClassVar[tuple[tuple[int, int], ...]] = ()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.results: set[tuple[int, ...]] = set()
        self.found: dict[int, int] = {}

    @property
    def file(self) -> str:
        return str(self.directory / "scenarios.py")

    def build(self, scene: Scene) -> None:
        self.buffer = scene.machine.run(scene.host.alloc(PAGE_SIZE))

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        self.found = {}
        for cpu, (what, value) in enumerate(self.cases, 1):
            yield f"thread {cpu}", cpu, self.one(scene, cpu, what, value)

    def one(self, scene: Scene, cpu: int, what: int, value: int) -> Steps[Any]:
        registers = yield from self.call(scene, cpu, rsi=what, rdi=value, rdx=self.buffer)
        self.found[cpu] = registers["rdi"]

    def verify(self, scene: Scene) -> None:
        self.results.add(tuple(self.found[cpu] for cpu in sorted(self.found)))

    def address(self, name: str) -> int:
        return self.scene.enclave.base + self.symbols.object(name)[0]

    def in_enclave(self, address: int) -> int:
        """8 bytes of the enclave at the end."""
        space, memory = self.scene.mm.space, self.scene.machine.processor.memory
        frame = space.lookup(address) >> PAGE_SHIFT & (1 << 40) - 1
        return memory.read_int(frame << PAGE_SHIFT | address & PAGE_SIZE - 1, 8)


def scenario_of(*cases: tuple[int, int], points: str = "access", **options: Any) -> OnAccesses:
    kind = type("Case", (OnAccesses,), {"cases": cases, "points": points})
    made: OnAccesses = kind(**options)
    return made


def all_results(*cases: tuple[int, int], points: str = "access") -> set[tuple[int, ...]]:
    """Everything that the threads can return together."""
    scenario = scenario_of(*cases, points=points)
    outcome = explore(scenario, Plan(strategy="exhaustive", executions=3000))
    assert (outcome.failure, outcome.complete) == (None, True)
    return scenario.results


def test_an_instruction_that_loads_and_stores_is_atomic_only_with_lock(directory: Path) -> None:
    """Both threads add 1, then load the sum."""
    assert all_results((0, 0), (0, 0)) == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert all_results((1, 0), (1, 0)) == {(1, 2), (2, 1), (2, 2)}
    assert all_results((12, 5), (12, 6)) == {(0, 5), (6, 0)}


def test_a_locked_instruction_that_misses_the_tlb_twice_is_atomic(directory: Path) -> None:
    """The load of XCHG missed, then its store; the load was not made anew, and two took a lock."""
    scenario = scenario_of((12, 1), (12, 1))
    for executions in range(1, 40, 7):
        outcome = explore(scenario, Plan(strategy="random", seed=executions, executions=20))
        assert outcome.failure is None
    assert scenario.results == {(0, 1), (1, 0)}


def test_every_order_of_two_accesses_is_executed_and_no_other(directory: Path) -> None:
    """Store buffering, sequentially consistent: both cannot return 0."""
    assert all_results((7, 0), (8, 0)) == {(0, 1), (1, 0), (1, 1)}


def test_without_points_at_accesses_a_thread_is_not_interrupted_at_them(directory: Path) -> None:
    scenario = scenario_of((0, 0), (0, 0), points="misses")
    outcome = explore(scenario, Plan(preemptions=1, executions=400))
    assert outcome.failure is None
    assert (1, 1) not in scenario.results


def test_random_walks_find_nothing_that_reduction_leaves_out(directory: Path) -> None:
    scenario = scenario_of((14, 1), (99, 0))
    assert explore(scenario, Plan(strategy="random", executions=150)).failure is None
    assert scenario.results <= all_results((14, 1), (99, 0))
    assert len(scenario.results) == 2


def test_a_store_of_16_bytes_is_one_access(directory: Path) -> None:
    assert all_results((4, 7), (5, 0)) == {(0, 0)}


def test_accesses_in_two_pages_and_pushes_are_executed_once(directory: Path) -> None:
    value = 0x1122334455667788
    assert all_results((3, value), (11, 1)) == {(value, 0)}
    assert all_results((2, 0), (11, 9)) == {(0, 0), (9, 0)}


def test_a_rep_store_to_host_memory_has_a_point_for_each_element(directory: Path) -> None:
    scenario = scenario_of((6, 5))
    kinds = [step.kind for step in record(scenario, []).recorder.steps]
    assert kinds.count("store") >= 5
    assert scenario.results == {(0,)}


def test_what_the_threads_leave_in_memory_is_what_they_stored(directory: Path) -> None:
    scenario = scenario_of((1, 0), (1, 0))
    assert explore(scenario, Plan(executions=40)).failure is None
    assert scenario.in_enclave(scenario.address("x")) == 2


def test_a_wait_without_pause_lets_the_other_thread_go_on(directory: Path) -> None:
    assert all_results((10, 0), (11, 4)) == {(4, 0)}


@pytest.mark.parametrize("points", ["misses", "access"])
def test_a_wait_with_pause_is_a_point_once_and_then_a_retry(directory: Path, points: str) -> None:
    """It went through the loop 512 times before it counted as waiting."""
    scenario = scenario_of((16, 0), (11, 4), points=points)
    steps = record(scenario, Bounded(0)).recorder.steps
    before = [step.name for step in steps].index("thread 2")
    kinds = [step.kind for step in steps[:before]]
    assert kinds.count("pause") <= 2
    assert kinds[-1] in ("pause", "load")
    waits = [step.kind for step in steps if step.name == "thread 1"].count("retry")
    assert waits == {"misses": 1, "access": 2}[points]
    assert scenario.found == {1: 4, 2: 0}


def test_a_loop_that_changes_memory_does_not_wait(directory: Path) -> None:
    """It came back with the same registers, and stood still until another thread had a turn."""
    scenario = scenario_of((15, 0), (0, 0))
    steps = record(scenario, Bounded(0)).recorder.steps
    assert [step.kind for step in steps if step.name == "thread 1"].count("retry") == 0


def test_one_pause_between_two_stores_is_a_point(directory: Path) -> None:
    """64 in a row were needed, so that a thread was not interrupted between two stores."""
    scenario = scenario_of((14, 1), (99, 0), points="misses")
    assert explore(scenario, Plan(preemptions=1, executions=400)).failure is None
    assert scenario.results == {(0, 0), (0, 1)}


def test_only_shared_memory_has_points(directory: Path) -> None:
    scenario = scenario_of((7, 0), (8, 0))
    record(scenario, [])
    sharing = scenario._sharing
    assert sharing is not None
    shared = {scenario.address(name) >> 3 for name in ("x", "y")}
    assert sharing.points == shared
    again = scenario_of((7, 0), (8, 0))
    record(again, [])
    assert again._sharing is not None
    assert again._sharing.points == shared


def test_the_host_is_taken_to_reach_all_of_its_memory(directory: Path) -> None:
    scenario = scenario_of((6, 1))
    record(scenario, [])
    text = [scenario.point_text(("store", ("access", scenario.buffer, 1), True))]
    assert text == [f"store 1 bytes at {scenario.buffer:#x}"]
    assert scenario.point_text(("load", ("access", scenario.address("y"), 8), False)) == (
        "load 8 bytes at y"
    )


class TwoHandlers(OnAccesses):
    """Two threads have an exception each; the handlers of the scenario note their order."""

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        self.found = {}
        for cpu in (1, 2):
            yield f"thread {cpu}", cpu, self.excepted(scene, cpu)

    def excepted(self, scene: Scene, cpu: int) -> Steps[Any]:
        def handle(vector: int, address: int) -> dict[str, int]:
            self.found[len(self.found)] = cpu
            return {"rsi": 18}

        yield from self.call(scene, cpu, rsi=17, handler=handle)


def test_handlers_of_exceptions_are_executed_in_both_orders(directory: Path) -> None:
    scenario = TwoHandlers()
    outcome = explore(scenario, Plan(strategy="exhaustive", executions=3000))
    assert outcome.failure is None
    assert scenario.results == {(1, 2), (2, 1)}


class Late(Scenario):
    """Memory is shared from some execution on."""

    def __init__(self, sharing: Sharing) -> None:
        self.sharing = sharing
        self.executions = 0

    def start(self, execution: Execution) -> None:
        self.executions += 1
        for granule, first in ((1, 12), (2, 75)):
            if self.executions > first:
                self.sharing.touched(0, granule * 8, 8, True)
                self.sharing.touched(1, granule * 8, 8, False)
        for name in "ab":
            execution.spawn(self.body(), name)

    def body(self) -> Steps[None]:
        for _ in range(6):
            yield ("step", "object", True)


def test_rounds_go_on_until_nothing_new_appears(directory: Path) -> None:
    sharing = Sharing()
    settling.settle(Late(sharing), sharing, [])
    assert sharing.points == {1, 2}
    assert sharing.unmarked == []


# Memory that turns out to be shared during the search


def test_memory_found_shared_during_the_search_is_a_scenario_error(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the search would be called complete without points at these accesses."""

    def nothing(scenario: Any, sharing: Sharing, more: Any) -> None:
        sharing.everything = False
        sharing.mark(more)

    monkeypatch.setattr("softsgx.runner.explored.elf_scenario.settle", nothing)
    scenario = scenario_of((7, 0), (8, 0))
    found = explore(scenario, Plan(executions=100)).failure
    assert found is not None
    assert (found.kind, found.rule) == (Kind.SCENARIO, settling.Unsettled.__name__)
    assert found.text.startswith("y, x: found shared only now")
    kind = type("Told", (OnAccesses,), {"cases": ((7, 0), (8, 0)), "shared": ("x", "y")})
    assert explore(kind(), Plan(strategy="exhaustive")).complete


# Single-stepping


class Stepped(OnAccesses):
    """Remembers where the thread was stopped, and RIP in its SSA frame at each ERESUME."""

    points = "instruction"
    within = "stepped"
    cases = ((9, 3),)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.steps: list[int] = []
        self.saved: list[int] = []

    def point_text(self, point: Point) -> str:
        kind, touched, _ = point
        if kind == "step" and isinstance(touched, tuple):
            self.steps.append(touched[1])
        if kind == "ERESUME":
            self.saved.append(self._saved_rip())
        return super().point_text(point)

    def _saved_rip(self) -> int:
        frame = self.scene.enclave.tcs[0] + PAGE_SIZE
        at = frame + GPRSGX_IN_PAGE + 8 * RIP
        return self.in_enclave(at) - self.scene.enclave.base


def instructions(directory: Path, name: str) -> list[int]:
    content = (directory / "accesses").read_bytes()
    begin, end = Symbols(content).function(name)
    code, at, found = content[begin:end], begin, []  # at the same place in the file
    while at < end:
        one = Code(code[at - begin :], at).first()
        assert one is not None
        found.append(at)
        at += one.size
    return found


def test_each_instruction_is_stepped_by_aex_and_eresume(directory: Path) -> None:
    scenario = Stepped()
    assert record(scenario, [], watched=True).failure is None
    assert scenario.steps == instructions(directory, "stepped")
    assert scenario.saved == scenario.steps
    assert scenario.results == {(4,)}


def test_a_range_of_addresses_is_stepped(directory: Path) -> None:
    begin, end = Symbols((directory / "accesses").read_bytes()).function("stepped")
    scenario = Stepped(within=(begin, begin + 1))
    assert record(scenario, [], watched=True).failure is None
    assert scenario.steps == [begin]
    assert scenario.granularity.kinds == f"each instruction of {begin:#x} to {begin + 1:#x}"
    assert end > begin + 1


class Signalled(Stepped):
    """A signal comes; its handler enters the enclave again and stores 8 to x."""

    what = 9

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        self.found = {}
        yield "thread", 1, self.with_handler(scene)
        yield "host", 2, self.send_signal(scene, 1)

    def with_handler(self, scene: Scene) -> Steps[Any]:
        def handle() -> dict[str, int]:
            self.found[3] = 1
            return {"rsi": 11, "rdi": 8}

        found = yield from self.call(scene, 1, rsi=self.what, rdi=3, signal=handle)
        self.found[1] = found["rdi"]


def test_a_signal_lands_between_two_instructions(directory: Path) -> None:
    """Before, between and after the store and the load of 3."""
    scenario = Signalled()
    outcome = explore(scenario, Plan(preemptions=1, executions=300))
    assert outcome.failure is None
    assert scenario.results == {(4,), (4, 1), (9, 1)}


def test_a_signal_without_a_handler_is_not_modelled(directory: Path) -> None:
    scenario = scenario_of((9, 3))
    scene = scenario.scene
    scenario._signals[1] = True
    with pytest.raises(Unmodelled, match="a signal for a thread whose call has no handler: cpu 1"):
        scene.machine.run(scenario.one(scene, 1, 9, 3), 1)


class SignalledAdding(Signalled):
    """The thread adds 1 to x by an instruction that loads and stores."""

    points, within, what = "access", "", 0

    def verify(self, scene: Scene) -> None:
        self.results.add((self.found.get(3, 0), self.in_enclave(self.address("x"))))


def test_an_aex_does_not_come_in_the_middle_of_an_instruction(directory: Path) -> None:
    """After ERESUME an instruction that had loaded its operand loads it again."""
    scenario = SignalledAdding()
    outcome = explore(scenario, Plan(strategy="exhaustive", executions=300))
    assert (outcome.failure, outcome.complete) == (None, True)
    assert scenario.results == {(0, 1), (1, 9), (1, 8)}


# The default, and what is refused


def test_a_scenario_names_its_granularity(directory: Path) -> None:
    assert OnAccesses().granularity.kinds == "accesses to shared memory"
    assert OnAccesses(points="misses").granularity.kinds == "TLB misses and ENCLU"
    assert Stepped().granularity.kinds == "each instruction of stepped"
    assert ElfScenario.points == "misses"


def test_the_table_of_the_text_has_every_kind_of_points() -> None:
    text = (ROOT / "docs" / "explore.md").read_text(encoding="utf-8")
    for kind in Points:
        default = " (default)" if kind == ElfScenario.points else ""
        assert f"\n| `{kind.value}`{default} | " in text


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"points": "stores"}, "points 'stores': known are misses, access, instruction"),
        ({"points": "instruction"}, "within: a function or a range of addresses is needed"),
        (
            {"points": "instruction", "within": "nowhere"},
            "symbol nowhere: the file has no such function",
        ),
        ({"points": "instruction", "within": "x"}, "symbol x: the file has no such function"),
        (
            {"points": "instruction", "within": (0x900000, 0x900010)},
            "within 0x900000 to 0x900010: not in code of the file",
        ),
        (
            {"points": "instruction", "within": (0x1010, 0x1010)},
            "within 0x1010 to 0x1010: not in code of the file",
        ),
        ({"within": "stepped"}, "within: only for points 'instruction'"),
    ],
)
def test_points_that_cannot_be_are_refused_before_the_search(
    directory: Path, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        OnAccesses(**options)


def test_bad_points_are_one_line_on_the_command_line(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = directory / "bad.py"
    path.write_text(
        "from softsgx.runner.explored.elf_scenario import ElfScenario\n"
        "class Bad(ElfScenario):\n"
        "    elf, points, within = 'accesses', 'instruction', 'nowhere'\n"
    )
    assert main(["explore", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "symbol nowhere: the file has no such function" in error


def test_a_stripped_file_has_no_functions(directory: Path) -> None:
    stripped = directory / "stripped"
    subprocess.run(["strip", "-o", str(stripped), str(directory / "accesses")], check=True)
    with pytest.raises(ImageError, match="symbol stepped: the file has no such function"):
        Symbols(stripped.read_bytes()).function("stepped")


def test_symbols_name_addresses(directory: Path) -> None:
    symbols = Symbols((directory / "accesses").read_bytes())
    begin, end = symbols.object("pair")
    assert end - begin == 16
    assert symbols.name_of(begin) == "pair"
    assert symbols.name_of(begin + 9) == "pair+9"
    assert symbols.name_of(0) == ""


# Footprints

_OF_MACHINE = ((("machine",), 1),)


def _step(kind: str, *touched: Any, write: bool = False) -> Any:
    return footprint((kind, touched, write), _OF_MACHINE)


def _host(page: int, write: bool) -> Any:
    kind = "store" if write else "load"
    machine = ((("machine",), 0), (("linear", page), int(write)))
    return footprint((kind, ("linear", page), write), machine)


@pytest.mark.parametrize(
    ("one", "other", "conflicts"),
    [
        (_step("load", "access", 8, 8), _step("load", "access", 8, 8), False),
        (_step("load", "access", 8, 8), _step("store", "access", 8, 8, write=True), True),
        (_step("load", "access", 8, 1), _step("store", "access", 15, 1, write=True), True),
        (_step("load", "access", 8, 8), _step("store", "access", 16, 8, write=True), False),
        (_step("load", "access", 8, 9), _step("store", "access", 16, 8, write=True), True),
        (
            _step("store", "access", 8, 8, write=True),
            _step("store", "access", 16, 8, write=True),
            False,
        ),
        (_step("load", "access", 8, 8), _host(0, False), False),
        (_step("load", "access", 8, 8), _host(0, True), True),
        (_step("store", "access", 8, 8, write=True), _host(0, False), True),
        (_step("store", "access", 8, 8, write=True), _host(1, True), False),
        (_step("store", "access", 4095, 2, write=True), _host(1, False), True),
        (_step("store", "miss", 0, write=True), _step("load", "access", 8, 8), False),
        (_step("store", "miss", 0, write=True), _step("store", "miss", 0, write=True), False),
        (_step("EENTER", "epc", 1, write=True), _step("EENTER", "epc", 2, write=True), False),
        (_step("EENTER", "epc", 1, write=True), _step("EENTER", "epc", 1, write=True), True),
        (_step("EENTER", "epc", 1, write=True), _step("EEXIT", "epc", 2, write=True), True),
        (_step("load", "access", 8, 8), _step("pte", "pte", 0, write=True), True),
        (_step("pause", "lp", 1), _step("store", "access", 8, 8, write=True), False),
        (_host(0, False), _host(0, False), False),
    ],
)
def test_which_steps_commute(one: Any, other: Any, conflicts: bool) -> None:
    assert conflict(one, other) is conflicts
    assert conflict(other, one) is conflicts


def test_a_found_schedule_is_replayed_by_its_string(directory: Path) -> None:
    class Found(OnAccesses):
        cases = ((0, 0), (0, 0))

        def verify(self, scene: Scene) -> None:
            assert self.in_enclave(self.address("x")) == 2

    scenario = Found()
    outcome: Outcome = explore(scenario, Plan())
    assert outcome.failure is not None
    text = replay_string(scenario, outcome.failure.choices)
    again = replayed(text, Found()).failure
    assert again is not None
    assert (again.kind, again.rule) == (outcome.failure.kind, outcome.failure.rule)
