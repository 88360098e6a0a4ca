"""The smallest programs that interleave."""

from collections.abc import Iterable, Sequence

from softsgx.sim import Choice, Execution, Follow, Point, Steps


def at(kind: str, obj: str = "x") -> Point:
    return (kind, obj, True)


def points(kinds: str, trace: list[str] | None = None) -> Steps[str]:
    """Execute one point of each kind, noting it in the trace; the kinds."""
    for kind in kinds.split():
        yield at(kind)
        if trace is not None:
            trace.append(kind)
    return kinds


def follow(schedule: str | Sequence[Choice], *bodies: Steps[object]) -> Execution:
    """An execution, not yet run, of these bodies as tasks A, B, C..."""
    execution = Execution(Follow(schedule))
    spawn_all(execution, bodies)
    return execution


def spawn_all(execution: Execution, bodies: Iterable[Steps[object]]) -> None:
    for index, body in enumerate(bodies):
        execution.spawn(body, chr(ord("A") + index))


class Cpu:
    """A target of interrupts, and how often it took one."""

    def __init__(self, cpu: int, enabled: bool = True) -> None:
        self.cpu = cpu
        self.enabled = enabled
        self.taken = 0

    def interruptible(self) -> bool:
        return self.enabled

    def take(self) -> None:
        self.taken += 1
