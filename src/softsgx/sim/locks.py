"""Locks as points: mutex and reader-writer lock.

Taking a lock is one blocking point, after which the task owns it. Releasing is not a
point: it is part of the current step, and waiters are enabled when that step has ended.

No lock is fair. Any waiter may be chosen next, whatever the order of arrival, so all orders that a
fair lock permits are among those explored. The one thing lost is a deadlock that needs fairness: a
task that reads a second time after a writer began to wait. Recursion is refused for that reason,
except by a lock that is recursive: there the writer that waits refuses the second reading.
"""

from __future__ import annotations

from types import TracebackType

from softsgx.sim.events import LockReleased, LockTaken
from softsgx.sim.live import LIVE
from softsgx.sim.point import LOCK, TRYLOCK, WAIT, Blocker, Point, Steps
from softsgx.sim.task import Task
from softsgx.sim.touch import ENABLE, TOUCHES, touch


class Guard:
    """What `with (yield from lock.acquire()):` holds, and releases at the end of the block."""

    __slots__ = ()

    def release(self) -> None:
        """Release it. Only the holder may, while it runs."""
        raise NotImplementedError

    def __enter__(self) -> object:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class Mutex(Guard):
    """A sleeping lock of one owner. Not recursive; released by its owner only."""

    __slots__ = ("name", "owner", "_point", "_try")

    def __init__(self, name: str) -> None:
        self.name = name
        self.owner: Task | None = None
        self._point: Point = (LOCK, self, True)
        self._try: Point = (TRYLOCK, self, True)

    def __repr__(self) -> str:
        return f"Mutex({self.name!r})"

    def acquire(self) -> Steps[Guard]:
        """Wait until it is free and own it: `with (yield from lock.acquire()):`."""
        live = LIVE.execution
        if live is not None and self.owner is None and live.current is not None:
            me = live.current
        else:
            assert not _runs(self.owner), f"{self.owner} acquires {self.name!r}, which it holds"
            me = yield self._point
        self.owner = me
        taken(me, self, True)
        return self

    def trylock(self) -> Steps[bool]:
        """Take it if it is free; return whether it was. A point: the answer depends on others."""
        me = yield self._try
        if self.owner is not None:
            return False
        self.owner = me
        taken(me, self, True)
        return True

    def release(self) -> None:
        """Release it. Only the owner may, while it runs."""
        owner = self.owner
        assert owner is not None, f"release of {self.name!r}, which nobody holds"
        assert owner.execution.current is owner, (
            f"release of {self.name!r} by another than its owner {owner}"
        )
        self.owner = None
        if TOUCHES.noted is not None:
            touch(self, ENABLE)
        released(owner, self, True)

    @property
    def idle(self) -> bool:
        """Whether nobody holds it."""
        return self.owner is None

    def ready(self, task: Task, /) -> bool:
        """Whether a task at acquire() can go on."""
        return self.owner is None

    def holders(self) -> tuple[Task, ...]:
        """The owner."""
        return () if self.owner is None else (self.owner,)


class RwLock:
    """A lock of one writer or any number of readers, as the kernel's rw_semaphore, but not fair."""

    __slots__ = (
        *("name", "recursive", "writer", "readers"),
        *("_read", "_write", "_try_read", "_try_write", "_read_side", "_write_side"),
    )

    def __init__(self, name: str, *, recursive: bool = False) -> None:
        self.name = name
        # A reader may read again. As in the kernel, it then waits for any writer that waits for it.
        self.recursive = recursive
        self.writer: Task | None = None
        self.readers: list[Task] = []
        self._read: Point = (LOCK, self, False)
        self._write: Point = (LOCK, self, True)
        self._try_read: Point = (TRYLOCK, self, False)
        self._try_write: Point = (TRYLOCK, self, True)
        self._read_side = _Side(self, False)
        self._write_side = _Side(self, True)

    def __repr__(self) -> str:
        return f"RwLock({self.name!r})"

    def acquire_read(self) -> Steps[Guard]:
        """Wait until there is no writer, and become a reader."""
        if self.recursive and any(_runs(reader) for reader in self.readers):
            me = yield (WAIT, ReadAgain(self), False)
            self._take(me, False)
            return self._read_side
        live = LIVE.execution
        if self.writer is not None or self.readers:
            self._refuse_recursion()
        if live is not None and self.writer is None and live.current is not None:
            me = live.current
        else:
            me = yield self._read
        self.readers.append(me)
        taken(me, self, False)
        return self._read_side

    def acquire_write(self) -> Steps[Guard]:
        """Wait until there is neither writer nor reader, and become the writer."""
        self._refuse_recursion()
        live = LIVE.execution
        if live is not None and self._free(True) and live.current is not None:
            me = live.current
        else:
            if self.recursive:
                # A writer that waits refuses those who would read again.
                touch(("writers", self.name))
            me = yield self._write
        self._take(me, True)
        return self._write_side

    def trylock_read(self) -> Steps[bool]:
        """Become a reader if there is no writer; return whether it did. A point."""
        me = yield self._try_read
        free = self._free(False)
        if free:
            self._take(me, False)
        return free

    def trylock_write(self) -> Steps[bool]:
        """Become the writer if the lock is free; return whether it was. A point."""
        me = yield self._try_write
        touch(("readers", self.name))
        free = self._free(True)
        if free:
            self._take(me, True)
        return free

    def downgrade(self) -> None:
        """Turn the writer, the running task, into a reader without letting another writer in.

        The guard of acquire_write() then releases the read side.
        """
        writer = self.writer
        assert writer is not None, f"downgrade of {self.name!r}, which has no writer"
        assert _runs(writer), f"downgrade of {self.name!r} by another than its writer {writer}"
        self.release_write()
        self._take(writer, False)

    def release_read(self) -> None:
        """Release the read side."""
        for reader in self.readers:
            if reader.execution.current is reader:
                self.readers.remove(reader)
                if TOUCHES.noted is not None:
                    # Not the lock itself: other readers are not affected.
                    touch(("readers", self.name), ENABLE)
                released(reader, self, False)
                return
        raise AssertionError(f"release of {self.name!r} by a task that is not among its readers")

    def release_write(self) -> None:
        """Release the write side."""
        writer = self.writer
        assert writer is not None, f"release of {self.name!r}, which has no writer"
        assert _runs(writer), f"release of {self.name!r} by another than its writer {writer}"
        self.writer = None
        if TOUCHES.noted is not None:
            touch(self, ENABLE)
        released(writer, self, True)

    @property
    def idle(self) -> bool:
        """Whether nobody holds it."""
        return self._free(True)

    def ready(self, task: Task, /) -> bool:
        """Whether a task at acquire_read() or acquire_write() can go on; its point says which."""
        return self._free(task.point[2])

    def holders(self) -> tuple[Task, ...]:
        """The writer or the readers."""
        return tuple(self.readers) if self.writer is None else (self.writer,)

    def _free(self, write: bool) -> bool:
        return self.writer is None and not (write and self.readers)

    def _take(self, me: Task, write: bool) -> None:
        if write:
            self.writer = me
            touch(("readers", self.name))
        else:
            self.readers.append(me)
        taken(me, self, write)

    def _refuse_recursion(self) -> None:
        for holder in self.holders():
            assert not _runs(holder), f"{holder} acquires {self.name!r}, which it holds"


class ReadAgain:
    """The wait of a task's second acquire_read(), until no writer waits."""

    def __init__(self, lock: RwLock) -> None:
        self.lock = lock
        self.name = f"{lock.name}, again"
        self.depends = (("writers", lock.name),)

    def ready(self, task: Task, /) -> bool:
        """Whether no other task waits to write."""
        return not self.holders_of(task)

    def holders(self) -> tuple[Task, ...]:
        """No task here: which writers wait depends on the reader, see `holders_of`."""
        return ()

    def holders_of(self, task: Task) -> list[Task]:
        """The writers that wait."""
        wanted = (LOCK, self.lock, True)
        return [t for t in task.execution.tasks if t is not task and t.point == wanted]


class _Side(Guard):
    """The guard of one side of an RwLock. After a downgrade the writer's releases the read side."""

    __slots__ = ("_lock", "_write")

    def __init__(self, lock: RwLock, write: bool) -> None:
        self._lock = lock
        self._write = write

    def release(self) -> None:
        if self._write and self._lock.writer is not None:
            self._lock.release_write()
        else:
            self._lock.release_read()


def taken(task: Task, lock: Blocker, write: bool) -> None:
    """Note that the task holds the lock now."""
    if TOUCHES.taken is not None:
        TOUCHES.taken(task, lock)
    task.held.append(lock)
    log = task.execution.log
    if log.on:
        log.emit(LockTaken(task, lock, write))


def released(task: Task, lock: Blocker, write: bool) -> None:
    """Note that the task no longer holds the lock."""
    task.held.remove(lock)
    log = task.execution.log
    if log.on:
        log.emit(LockReleased(task, lock, write))


def _runs(task: Task | None) -> bool:
    return task is not None and task.execution.current is task
