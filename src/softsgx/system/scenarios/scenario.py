"""Scenarios on a machine: built once, explored from a snapshot.

A new one says how its machine is built and what the tasks are:

    class Touch(MachineScenario):
        def tasks(self, scene):
            for cpu in (1, 2):
                yield f"toucher {cpu}", cpu, scene.thread(cpu).load(scene.enclave.heap, 1)

Every access in it should succeed: a signal is a violation, and so is an enclave that gives up. The
checkers verify what must be true at the end.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, cast

from softsgx.explore import Scenario, Violation
from softsgx.explore.footprint import Footprint, key_of
from softsgx.explore.scenario import Granularity
from softsgx.linux.bug import KernelBug
from softsgx.linux.version import VERSION_DEFAULT
from softsgx.sim import Event, Execution, Log, Point, Steps, Task, Unmodelled
from softsgx.sim.touch import READ, WRITE
from softsgx.system.checkers import CHECKERS, Checker
from softsgx.system.enclave import EnclaveAbort
from softsgx.system.host import SignalRaised
from softsgx.system.loaded_enclave import EnclaveFault
from softsgx.system.machine import Machine
from softsgx.system.scenarios.outcomes import event_words, outcome_words
from softsgx.system.scenarios.words import page_parts, page_words, point_words
from softsgx.system.scene import Scene
from softsgx.system.snapshot import Snapshot

if TYPE_CHECKING:
    from softsgx.cdriver.data_races import DataRaces
    from softsgx.cdriver.driver import CDriver

Cast = tuple[str, int, Steps[Any]]
"""A task: its name, its processor (1 and up), its body."""

MACHINE: Final = ("machine",)
"""What a step touches that may touch anything of the machine."""
DRIVER: Final = "driver"
"""The switch in a scenario's name that says on which driver object it runs."""
AT_ACCESSES: Final = "points=accesses"
"""The switch that says that accesses of the C code are points."""
ONLY: Final = "only"
"""The switch that says which rule alone can be violated."""
_NO_STATE: Final = frozenset({"_snapshot", "data_races"})
_ACCESSES: Final = frozenset({"load", "store", "fetch"})


class MachineScenario(Scenario):
    """`linux` names the kernel, `races` switches its known races, as in `Machine`."""

    cpus: ClassVar[int] = 3
    epc: ClassVar[str] = "1M"
    layout: ClassVar[dict[str, int]] = {"threads": 3, "pages": 2}
    needs_python: ClassVar[str] = ""
    """Why it cannot run on a driver object."""
    granularity = Granularity("locks, leaves, accesses, PTE writes")
    checkers: ClassVar[Sequence[type[Checker]]] = CHECKERS

    def __init__(self, linux: str = VERSION_DEFAULT, races: dict[str, bool] | None = None) -> None:
        self.linux = linux
        self.races = races
        self.driver: str | PathLike[str] | None = None
        self.point_at_accesses = False
        self.rule = ""
        self.data_races: DataRaces | None = None
        """Where those of the driver in C are collected, if they are looked for."""
        self._scene: Scene | None = None
        self._snapshot: Snapshot | None = None
        # Attributes that `build` has set; they are part of the snapshot.
        self._own: dict[str, Any] = {}
        self._checkers = [checker() for checker in self.checkers]
        switched = [f"{race}={int(on)}" for race, on in sorted((races or {}).items())]
        self.name = ",".join([type(self).name, linux, *switched])

    def on(self, driver: str | PathLike[str], *, accesses: bool = False) -> Self:
        """The scenario, to be run on a driver object (`softsgx driver build`).

        With `accesses` every access of the C code to shared memory is a point. Its kernel is then
        that of the object, and its name says which object it is. ValueError if it switches races;
        DriverError if it is no object that fits this softsgx.
        """
        from softsgx.cdriver.manifest import fitting

        assert self._scene is None, "the machine is built already"
        if self.needs_python:
            raise ValueError(f"{self.name}: {self.needs_python}")
        if self.races:
            raise ValueError(f"{self.name}: the races of a driver object cannot be switched")
        made = fitting(Path(driver))
        first, _linux, *switches = self.name.split(",")
        self.driver, self.linux = driver, made.kernel
        if accesses:
            self.point_at_accesses = True
            switches.append(AT_ACCESSES)
        self.name = ",".join([first, made.kernel, *switches, f"{DRIVER}={made.identity}"])
        return self

    def only(self, rule: str) -> Self:
        """The scenario, in which nothing is found but violations of this rule."""
        self.rule = rule
        self.name += f",{ONLY}={rule.replace(' ', '-')}"
        return self

    # What a scenario defines

    def machine(self) -> Machine:
        """The machine, before anything is built on it."""
        return Machine(
            cpus=self.cpus,
            epc=self.epc,
            linux=self.linux,
            races=self.races,
            driver=self.driver,
        )

    def built(self, machine: Machine) -> Scene:
        """The process and its enclave, as `layout` says."""
        return Scene.built(machine, **self.layout)

    def build(self, scene: Scene) -> None:
        """Bring the built enclave to the state from which every execution starts.

        Attributes of the scenario that are set here are part of that state.
        """

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The tasks, fresh for one execution."""
        raise NotImplementedError(f"{type(self).__name__}.tasks")

    def verify(self, scene: Scene) -> None:
        """Raise Violation if something is wrong at the end that only this scenario can know."""

    # What the explorer calls

    @property
    def scene(self) -> Scene:
        """The scene, built at first use."""
        if self._scene is None:
            machine = self.machine()
            if self.driver is not None and machine.driver is None:
                raise Unmodelled(f"{self.name}: its machine is made without the driver object")
            scene = self.built(machine)
            for cpu in range(1, self.cpus):
                scene.thread(cpu)
            before = dict(vars(self))
            self.build(scene)
            # The host thread takes no part; a processor that ran it would take every interrupt.
            scene.host.thread.switch_out()
            machine.settle()
            own = {
                name: value
                for name, value in vars(self).items()
                if name not in before or before[name] is not value
            }
            self._scene, self._own = scene, own
            # Not the scenario itself: that must keep the snapshot, and what it counts.
            state = SimpleNamespace(**own)
            self._snapshot = Snapshot(
                machine.processor, outside=(self,), scene=scene, scenario=state
            )
        return self._scene

    def start(self, execution: Execution) -> None:
        """Restore, and spawn the tasks; the reclaim daemon is the last one."""
        scene = self.scene
        assert self._snapshot is not None
        if self.data_races is not None:
            # An execution that failed was not checked.
            self.data_races.end(cast("CDriver", scene.kernel.driver))
        self._snapshot.restore()
        vars(self).update(self._own)
        if self.point_at_accesses:
            cast("CDriver", scene.kernel.driver).point_at_accesses()
        if self.data_races is not None:
            self.data_races.begin(cast("CDriver", scene.kernel.driver))
        for checker in self._checkers:
            checker.start(scene)
        self.begin(execution, scene)
        for name, cpu, body in self.tasks(scene):
            execution.spawn(self._guarded(_must_succeed(name, body)), name, cpu)
        scene.machine.spawn_ksgxd(execution)

    def begin(self, execution: Execution, scene: Scene) -> None:
        """For scenarios with draws: set the kernel's `inject` here."""

    def check(self, execution: Execution) -> None:
        """The scenario's own check, then every checker."""
        scene = self.scene
        scene.kernel.inject = None
        if self.data_races is not None:
            self.data_races.end(cast("CDriver", scene.kernel.driver))
        for check in (self.verify, *(checker.check for checker in self._checkers)):
            try:
                check(scene)
            except Violation as violation:
                if not self._ignored(violation):
                    raise

    def _ignored(self, violation: Violation) -> bool:
        return self.rule not in ("", violation.rule)

    def _guarded(self, body: Steps[Any]) -> Steps[Any]:
        """A task whose violations of other rules than the one looked for end it, and no more."""
        if not self.rule:
            return body
        return self._only_rule(body)

    def _only_rule(self, body: Steps[Any]) -> Steps[Any]:
        try:
            return (yield from body)
        except Violation as violation:
            if not self._ignored(violation):
                raise

    def objects(self, task: Task, point: Point) -> Footprint:
        """Accesses of user code to different pages commute; no other two steps do.

        A point of the kernel or of a leaf names one object, but the code after it, up to the next
        point, touches the enclave's records, tracking and lists as well. Calling such steps
        independent would lose schedules.
        """
        kind, touched, write = point
        if kind in _ACCESSES:
            mode = WRITE if write else READ
            return ((MACHINE, READ), (key_of(touched), mode))
        return ((MACHINE, WRITE),)

    def state(self) -> str:
        """The watched pages."""
        scene = self.scene
        watched = scene.watch or [scene.enclave.heap]
        return "; ".join(page_words(scene, address) for address in watched)

    def states(self) -> dict[str, dict[str, str]]:
        """The watched pages in parts."""
        scene = self.scene
        watched = scene.watch or [scene.enclave.heap]
        return {f"{address:#x}": page_parts(scene, address) for address in watched}

    def told_by(self) -> Log:
        """The log of the machine."""
        return self.scene.machine.processor.log

    def event_texts(self, event: Event) -> tuple[str, str]:
        """In the words of a trace."""
        return outcome_words(event), event_words(event)

    def point_text(self, point: Point) -> str:
        """The step in the kernel's words."""
        return point_words(point)

    def place_text(self, task: Task) -> str:
        """File, line and function of the kernel's own driver."""
        if self.driver is None:
            return ""
        from softsgx.cdriver.call import place_of

        return place_of(task)

    def state_roots(self) -> Mapping[str, object]:
        """The processor, the scene, and whatever else the scenario or its checkers remember."""
        roots = {"processor": self.scene.machine.processor, "scene": self._scene}
        roots.update([(name, each) for name, each in vars(self).items() if name not in _NO_STATE])
        return roots

    def fingerprint(self) -> Hashable:
        """The state of the processor."""
        return self.scene.machine.processor.fingerprint()


def _must_succeed(name: str, body: Steps[Any]) -> Steps[Any]:
    """A task whose accesses should all succeed."""
    try:
        return (yield from body)
    except SignalRaised as raised:
        signal = raised.signal
        text = (
            f"{name} gets {signal.name} for {signal.address:#x}, error code {signal.error_code:#x}"
        )
        raise Violation("spurious fault", text) from raised
    except EnclaveFault as fault:
        raise Violation("spurious fault", f"{name} leaves its enclave by {fault}") from fault
    except EnclaveAbort as abort:
        raise Violation("spurious abort", f"{name} gives up: {abort}") from abort
    except KernelBug as bug:
        raise Violation("kernel bug", str(bug)) from bug
