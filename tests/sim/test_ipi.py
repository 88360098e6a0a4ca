"""Interprocessor interrupts."""

import pytest

from softsgx.sim import (
    Cooperative,
    Execution,
    IpiSent,
    IpiTaken,
    RunToCompletion,
    ScheduleMismatch,
    Steps,
    ipi,
    run,
)
from tests.sim.builders import Cpu, at, follow, points


def sends(targets: list[Cpu], order: list[int]) -> Steps[None]:
    yield from ipi(targets, lambda target: order.append(target.cpu))
    order.append(-1)


@pytest.mark.parametrize(
    ("schedule", "expected"), [("1:b", [1, 2, -1]), ("1:c", [2, 1, -1]), ("1:", [1, 2, -1])]
)
def test_targets_acknowledge_in_either_order(schedule: str, expected: list[int]) -> None:
    order: list[int] = []
    execution = follow(schedule)
    execution.spawn(sends([Cpu(1), Cpu(2)], order), "S", cpu=0)
    execution.run()
    assert order == expected


def test_a_target_takes_it_only_while_interruptible() -> None:
    target, order = Cpu(1, enabled=False), list[int]()

    def busy() -> Steps[None]:
        yield at("p")
        order.append(100)
        target.enabled = True
        yield at("q")

    execution = follow("1:")
    execution.spawn(sends([target], order), "S", cpu=0)
    execution.spawn(busy(), "T", cpu=1)
    execution.run()
    assert order == [100, 1, -1]


def test_other_tasks_go_on_while_the_sender_waits() -> None:
    trace: list[str] = []
    target = Cpu(1, enabled=False)

    def release() -> Steps[None]:
        yield from points("p q", trace)
        target.enabled = True

    execution = follow("1:")
    execution.spawn(ipi([target], lambda _: trace.append("taken")), "S", cpu=0)
    execution.spawn(release(), "T", cpu=2)
    execution.run()
    assert trace == ["p", "q", "taken"]


def test_the_sender_runs_its_own_handler_without_waiting() -> None:
    own = Cpu(0, enabled=False)
    execution = follow("1:")
    execution.spawn(ipi([own], Cpu.take), "S", cpu=0)
    execution.run()
    assert own.taken == 1
    assert execution.steps == 1


def test_without_targets_nothing_happens() -> None:
    execution = follow("1:", ipi(list[Cpu](), Cpu.take))
    execution.run()
    assert execution.steps == 0


def test_an_ipi_to_one_other_is_three_points() -> None:
    execution = follow("1:", ipi([Cpu(1)], Cpu.take))
    execution.run()
    assert execution.steps == 3


def test_a_handler_with_points_keeps_the_interrupted_task_off() -> None:
    trace: list[str] = []

    def handler(_: Cpu) -> Steps[None]:
        yield from points("h i", trace)

    def start(schedule: str) -> Execution:
        execution = follow(schedule)
        execution.spawn(ipi([Cpu(1)], handler), "S", cpu=0)
        execution.spawn(points("t", trace), "T", cpu=1)
        execution.spawn(points("u v", trace), "U", cpu=2)
        return execution

    # Sent, taken; then every task but the interrupted b may go on.
    start("1:adcdc").run()
    assert trace == ["u", "h", "v", "i", "t"]
    with pytest.raises(ScheduleMismatch, match="task b is not enabled; enabled are c 'U', d "):
        start("1:adcdb").run()


def test_handlers_of_a_daemon_are_daemons() -> None:
    execution = follow("1:a")
    execution.spawn(ipi([Cpu(1, enabled=False)], Cpu.take), "ksgxd", cpu=0, daemon=True)
    execution.spawn(points("p q"), "T")
    execution.run()
    assert [task.daemon for task in execution.tasks] == [True, True]
    execution.close()


def test_sending_and_taking_are_events_in_the_order_of_cpus() -> None:
    execution = Execution(RunToCompletion())
    sender = execution.spawn(ipi([Cpu(2), Cpu(0), Cpu(1)], Cpu.take), "S", cpu=0)
    with execution.log.record() as events:
        execution.run()
    assert IpiSent(sender, (0, 1, 2)) in events
    assert [event.cpu for event in events if isinstance(event, IpiTaken)] == [0, 1, 2]


def test_run_serves_interrupts() -> None:
    targets = [Cpu(1), Cpu(2)]
    run(ipi(targets, Cpu.take), cpu=0)
    assert [target.taken for target in targets] == [1, 1]


def test_the_live_clock_tells_of_interrupts_as_well() -> None:
    execution = Execution(Cooperative(), record=False)
    with execution.log.record() as events:
        execution.spawn(ipi([Cpu(2), Cpu(1)], Cpu.take), "S", cpu=0)
        execution.run()
    sent = [event.cpus for event in events if isinstance(event, IpiSent)]
    taken = [event.cpu for event in events if isinstance(event, IpiTaken)]
    assert (sent, taken) == ([(1, 2)], [1, 2])
