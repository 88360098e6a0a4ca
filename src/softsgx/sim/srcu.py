"""Sleepable read-copy-update."""

from __future__ import annotations

from softsgx.sim.live import LIVE
from softsgx.sim.locks import Guard, released, taken
from softsgx.sim.point import SRCU, WAIT, Point, Steps
from softsgx.sim.task import Task
from softsgx.sim.touch import touch


class Srcu:
    """Readers never wait; synchronize() waits for those that began before it."""

    __slots__ = ("name", "_readers", "_read", "_synchronize")

    def __init__(self, name: str) -> None:
        self.name = name
        self._readers: list[Reader] = []
        self._read: Point = (SRCU, self, False)
        self._synchronize: Point = (SRCU, self, True)

    def __repr__(self) -> str:
        return f"Srcu({self.name!r})"

    def read_lock(self) -> Steps[Reader]:
        """Enter a read-side section: `with (yield from srcu.read_lock()):`, or read_unlock().

        A point, because it matters whether a synchronize() begins before it. May be nested.
        """
        live = LIVE.execution
        me = live.current if live is not None else None
        if me is None:
            me = yield self._read
        reader = Reader(self, me)
        self._readers.append(reader)
        taken(me, reader, False)
        return reader

    def read_unlock(self, reader: Reader) -> None:
        """Leave the read-side section."""
        assert reader in self._readers, f"second read_unlock of {self.name!r} by {reader.task}"
        self._readers.remove(reader)
        touch(("grace period", self.name))
        released(reader.task, reader, False)

    def synchronize(self) -> Steps[None]:
        """Wait until every reader that began before has ended."""
        me = yield self._synchronize
        touch(("grace period", self.name))
        readers = tuple(self._readers)
        own = [reader for reader in readers if reader.task is me]
        assert not own, f"{me} synchronizes {self.name!r}, which it reads"
        if readers:
            yield (WAIT, _GracePeriod(self, readers), False)

    @property
    def idle(self) -> bool:
        """Whether there is no reader."""
        return not self._readers

    def reads(self, reader: Reader) -> bool:
        """Whether this reader has not ended."""
        return reader in self._readers


class Reader(Guard):
    """One read-side section of one task."""

    __slots__ = ("srcu", "task")

    def __init__(self, srcu: Srcu, task: Task) -> None:
        self.srcu = srcu
        self.task = task

    def __repr__(self) -> str:
        return f"Reader({self.name!r})"

    @property
    def name(self) -> str:
        """The name of what is read."""
        return self.srcu.name

    def ready(self, task: Task, /) -> bool:
        """Always: readers do not wait."""
        return True

    def holders(self) -> tuple[Task, ...]:
        """The task that reads."""
        return (self.task,)

    def release(self) -> None:
        """Leave the read-side section."""
        self.srcu.read_unlock(self)


class _GracePeriod:
    """The readers that one synchronize() waits for."""

    __slots__ = ("depends", "srcu", "_readers")

    def __init__(self, srcu: Srcu, readers: tuple[Reader, ...]) -> None:
        self.srcu = srcu
        self.depends = (("grace period", srcu.name),)
        self._readers = readers

    def __repr__(self) -> str:
        return f"GracePeriod({self.name!r})"

    @property
    def name(self) -> str:
        return self.srcu.name

    def ready(self, task: Task, /) -> bool:
        return not any(map(self.srcu.reads, self._readers))

    def holders(self) -> tuple[Task, ...]:
        return tuple(reader.task for reader in self._readers if self.srcu.reads(reader))
