"""run(): one body to completion, with the short cut for a task that is alone."""

from softsgx.sim import Completion, Execution, Mutex, RunToCompletion, Steps, run
from tests.sim.builders import at, points


class Asked(RunToCompletion):
    """A subclass, so that it is asked before every step."""


def test_run_returns_the_value() -> None:
    assert run(points("p q")) == "p q"
    assert run(points("")) == ""


def test_run_passes_blocking_points() -> None:
    lock = Mutex("m")

    def body() -> Steps[int]:
        yield at("p")
        with (yield from lock.acquire()):
            yield at("q")
        yield at("r")
        return 7

    assert run(body()) == 7
    assert lock.idle


def test_the_short_way_is_the_same_execution() -> None:
    def parent() -> Steps[None]:
        started = Completion("started")

        def child() -> Steps[None]:
            yield at("c")
            started.complete()
            yield at("d")

        yield at("p")
        me = yield at("q")
        me.execution.spawn(child(), "child")
        yield at("r")
        yield from started.wait()
        yield at("s")

    outcomes = []
    for scheduler in (RunToCompletion(), Asked()):
        execution = Execution(scheduler)
        execution.spawn(parent(), "parent")
        execution.run()
        outcomes.append((execution.schedule, execution.steps))
    # The two real choices: a at r or b at c; a at its wait or b at d.
    assert outcomes == [("1:ab", 7)] * 2
