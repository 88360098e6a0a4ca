"""What the tasks of random programs do: an operation for each primitive of `sim`.

Each keeps the contract of a scenario: whatever it touches is the object of its point, or is noted
by `touch`. What a task learns is kept in `seen`, so that it is part of how an execution ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from softsgx.explore import Violation
from softsgx.sim import (
    RETRY,
    Completion,
    Counter,
    Execution,
    Mutex,
    RwLock,
    Srcu,
    Steps,
    Task,
    TaskExit,
    WaitFlag,
    WaitQueue,
    ipi,
)
from softsgx.sim.touch import READ, touch

Op = tuple[str, int]
"""An operation and the variable, lock, flag or processor that it is about: 0 or 1."""

Ops = tuple[Op, ...]


class Processor:
    """A processor that can refuse interrupts for a while."""

    def __init__(self, cpu: int) -> None:
        self.cpu = cpu
        self.enabled = True

    def interruptible(self) -> bool:
        """Whether it takes them now."""
        return self.enabled


class State:
    """One or two of each primitive, and what the tasks have seen and begun, by their names."""

    def __init__(self, child: Ops = (), handler: Ops = ()) -> None:
        self.child = child
        self.handler = handler
        self.values = [0, 0]
        self.mutexes = [Mutex("m0"), Mutex("m1")]
        self.rw = RwLock("rw")
        self.again = RwLock("again", recursive=True)
        self.srcu = Srcu("srcu")
        self.flags = [WaitFlag("f0"), WaitFlag("f1")]
        self.done = Completion("c")
        self.counter = Counter("k")
        self.queue = WaitQueue("q")
        self.processors = [Processor(0), Processor(1)]
        self.seen: dict[str, list[int]] = {}
        self.begun: dict[str, int] = {}

    def observed(self) -> tuple[Any, ...]:
        """All that a task could observe."""
        seen = tuple((name, tuple(values)) for name, values in sorted(self.seen.items()))
        flags = tuple(flag.is_set for flag in self.flags)
        enabled = tuple(processor.enabled for processor in self.processors)
        return tuple(self.values), seen, flags, self.counter.value, enabled


class Held(NamedTuple):
    """A lock that an actor holds, and how it releases it."""

    lock: object
    write: bool
    release: Callable[[], Any]


class Actor:
    """A task, or a handler, that performs operations. `place` tells its children apart."""

    def __init__(self, state: State, execution: Execution, name: str, cpu: int | None) -> None:
        self.state = state
        self.execution = execution
        self.name = name
        self.cpu = cpu
        self.number = ord(name[0]) - ord("a") + 1
        self.seen = state.seen.setdefault(name, [])
        self.held: list[Held] = []
        self.children: list[Task] = []
        self.place = 0

    def perform(self, ops: Ops) -> Steps[None]:
        """The operations, one after the other; what is held at the end is released."""
        for op, which in ops:
            self.begin()
            yield from OPERATIONS[op](self, which)
        while self.held:
            self.held.pop().release()

    def begin(self) -> None:
        """Another operation begins, at a place of its own."""
        self.place += 1
        self.state.begun[self.name] = self.place

    def pause(self) -> Steps[None]:
        """A point that no other task has to do with."""
        yield ("pause", self.name, False)

    def holds(self, lock: object) -> bool:
        """Whether it holds this lock."""
        return any(held.lock is lock for held in self.held)

    def take(self, lock: object, write: bool, release: Callable[[], Any]) -> None:
        """It holds this lock now."""
        self.held.append(Held(lock, write, release))

    def spawn(self, *, daemon: bool) -> None:
        """A child, which performs the program's operations of children."""
        name = f"{self.name}{self.place}"
        child = Actor(self.state, self.execution, name, None)
        body = child.perform(self.state.child)
        self.children.append(self.execution.spawn(body, name, daemon=daemon))


# Variables


def read(me: Actor, which: int) -> Steps[None]:
    yield ("read", ("v", which), False)
    me.seen.append(me.state.values[which])


def write(me: Actor, which: int) -> Steps[None]:
    """The new value depends on the old one, so the order of writes shows."""
    yield ("write", ("v", which), True)
    me.state.values[which] = me.state.values[which] * 7 + me.number


def note(me: Actor, which: int) -> Steps[None]:
    """A write that no point announces."""
    yield from me.pause()
    touch(("v", which))
    me.state.values[which] = me.state.values[which] * 7 + me.number


def draw(me: Actor, which: int) -> Steps[None]:
    yield ("draw", ("v", which), True)
    me.state.values[which] = me.state.values[which] * 7 + me.execution.draw(2, "coin")


def violate(me: Actor, which: int) -> Steps[None]:
    yield ("read", ("v", which), False)
    if me.state.values[which] == 2:
        raise Violation("two", "the second task was the first to write")


def leave(me: Actor, which: int) -> Steps[None]:
    yield ("read", ("v", which), False)
    if me.state.values[which] and not me.held:
        raise TaskExit


# Locks


def lock(me: Actor, which: int) -> Steps[None]:
    mutex = me.state.mutexes[which]
    if not me.holds(mutex):
        yield from mutex.acquire()
        me.take(mutex, True, mutex.release)


def lock_twice(me: Actor, which: int) -> Steps[None]:
    """As `lock`, but a task that holds it breaks an assertion."""
    mutex = me.state.mutexes[which]
    yield from mutex.acquire()
    me.take(mutex, True, mutex.release)


def trylock(me: Actor, which: int) -> Steps[None]:
    mutex = me.state.mutexes[which]
    if not me.holds(mutex):
        free = yield from mutex.trylock()
        if free:
            me.take(mutex, True, mutex.release)
        me.seen.append(free)


def read_lock(me: Actor, which: int) -> Steps[None]:
    rw = me.state.rw
    if not me.holds(rw):
        yield from rw.acquire_read()
        me.take(rw, False, rw.release_read)


def write_lock(me: Actor, which: int) -> Steps[None]:
    rw = me.state.rw
    if not me.holds(rw):
        side = yield from rw.acquire_write()
        me.take(rw, True, side.release)


def try_read(me: Actor, which: int) -> Steps[None]:
    rw = (me.state.rw, me.state.again)[which]
    if not me.holds(rw):
        free = yield from rw.trylock_read()
        if free:
            me.take(rw, False, rw.release_read)
        me.seen.append(free)


def try_write(me: Actor, which: int) -> Steps[None]:
    rw = (me.state.rw, me.state.again)[which]
    if not me.holds(rw):
        free = yield from rw.trylock_write()
        if free:
            me.take(rw, True, rw.release_write)
        me.seen.append(free)


def downgrade(me: Actor, which: int) -> Steps[None]:
    """The write side that it took last becomes a read side."""
    yield from me.pause()
    if me.held and isinstance(rw := me.held[-1].lock, RwLock) and me.held[-1].write:
        rw.downgrade()
        me.held[-1] = Held(rw, False, rw.release_read)


def read_again(me: Actor, which: int) -> Steps[None]:
    """A reader may read again."""
    again = me.state.again
    if not any(held.lock is again and held.write for held in me.held):
        yield from again.acquire_read()
        me.take(again, False, again.release_read)


def write_again(me: Actor, which: int) -> Steps[None]:
    again = me.state.again
    if not me.holds(again):
        yield from again.acquire_write()
        me.take(again, True, again.release_write)


def unlock(me: Actor, which: int) -> Steps[None]:
    """No point: part of the step before it."""
    if me.held:
        me.held.pop().release()
    yield from ()


def srcu_read(me: Actor, which: int) -> Steps[None]:
    reader = yield from me.state.srcu.read_lock()
    me.take(me.state.srcu, False, reader.release)


def srcu_wait(me: Actor, which: int) -> Steps[None]:
    if not me.holds(me.state.srcu):
        yield from me.state.srcu.synchronize()
        me.seen.append(-2)


# Waiting. Where nothing is waited for there is a point of the task's own first if `which` is set;
# otherwise it is part of the step before.


def set_flag(me: Actor, which: int) -> Steps[None]:
    yield from me.pause()
    me.state.flags[which].set()


def clear_flag(me: Actor, which: int) -> Steps[None]:
    yield from me.pause()
    me.state.flags[which].clear()


def wait_flag(me: Actor, which: int) -> Steps[None]:
    yield from me.state.flags[which].wait()
    me.seen.append(-1)


def complete(me: Actor, which: int) -> Steps[None]:
    if which:
        yield from me.pause()
    me.state.done.complete()


def complete_all(me: Actor, which: int) -> Steps[None]:
    if which:
        yield from me.pause()
    me.state.done.complete_all()


def wait_completion(me: Actor, which: int) -> Steps[None]:
    yield from me.state.done.wait()


def get(me: Actor, which: int) -> Steps[None]:
    if which:
        yield from me.pause()
    me.state.counter.get()


def put(me: Actor, which: int) -> Steps[None]:
    if which:
        yield from me.pause()
    counter = me.state.counter
    touch(counter, READ)
    if counter.value:
        me.seen.append(counter.put())


def wait_zero(me: Actor, which: int) -> Steps[None]:
    yield from me.state.counter.wait_zero()
    me.seen.append(-3)


def sleep(me: Actor, which: int) -> Steps[None]:
    """Until a variable is set and someone has said so."""

    def is_set() -> bool:
        touch(("v", which), READ)
        return me.state.values[which] != 0

    yield from me.state.queue.wait_event(is_set)
    me.seen.append(me.state.values[which])


def wake(me: Actor, which: int) -> Steps[None]:
    if which:
        yield from me.pause()
    me.state.queue.wake_up()


def retry(me: Actor, which: int) -> Steps[None]:
    """Spin until a variable is set. What is read while it spins need not be noted."""
    touch(("v", which), READ)
    while not me.state.values[which]:
        yield (RETRY, ("v", me.name, me.place), False)
    me.seen.append(me.state.values[which])


def retry_and_write(me: Actor, which: int) -> Steps[None]:
    """Spin until a variable is set, and write in the step in which that ends."""
    yield from retry(me, which)
    touch(("v", 1 - which))
    me.state.values[1 - which] = me.state.values[1 - which] * 7 + me.number


def retry_slowly(me: Actor, which: int) -> Steps[None]:
    """Each round has some steps; the last one looks."""
    while True:
        yield ("read", ("v", 1 - which), False)
        me.seen[-1:] = [me.state.values[1 - which]]
        yield ("read", ("v", which), False)
        if me.state.values[which]:
            break
        yield (RETRY, ("v", me.name, me.place), False)


# Tasks


def spawn(me: Actor, which: int) -> Steps[None]:
    """A child, joined at once if `which` is set."""
    yield ("spawn", me.name, False)
    me.spawn(daemon=False)
    if which:
        yield from me.children.pop().join()


def spawn_daemon(me: Actor, which: int) -> Steps[None]:
    yield ("spawn", me.name, False)
    me.spawn(daemon=True)


def join(me: Actor, which: int) -> Steps[None]:
    """Wait for the child that was spawned last."""
    if me.children:
        yield from me.children.pop().join()


def nest(me: Actor, which: int) -> Steps[None]:
    """What children do, as a part of this task."""
    for op, other in me.state.child:
        me.begin()
        yield from OPERATIONS[op](me, other)


# Interrupts


def interrupt(me: Actor, which: int) -> Steps[None]:
    """One processor, or both. A handler without operations is a function."""
    state = me.state
    sender = f"{me.name}{me.place}"
    ops = state.handler

    def act(target: Processor) -> None:
        touch(("v", 0))
        state.values[0] = state.values[0] * 7 + me.number

    def perform(target: Processor) -> Steps[None]:
        handler = Actor(state, me.execution, f"{sender}at{target.cpu}", target.cpu)
        return handler.perform(ops)

    targets = state.processors if which else state.processors[:1]
    yield from ipi(targets, perform if ops else act)


def mask(me: Actor, which: int) -> Steps[None]:
    """Refuse interrupts (0), or take them again."""
    yield from me.pause()
    if me.cpu is not None:
        touch(("enabled", me.cpu))
        me.state.processors[me.cpu].enabled = which == 1


OPERATIONS: Final[dict[str, Callable[[Actor, int], Steps[None]]]] = {
    "read": read,
    "write": write,
    "note": note,
    "draw": draw,
    "violate": violate,
    "leave": leave,
    "lock": lock,
    "lock twice": lock_twice,
    "trylock": trylock,
    "read lock": read_lock,
    "write lock": write_lock,
    "try read": try_read,
    "try write": try_write,
    "downgrade": downgrade,
    "read again": read_again,
    "write again": write_again,
    "unlock": unlock,
    "srcu read": srcu_read,
    "srcu wait": srcu_wait,
    "set": set_flag,
    "clear": clear_flag,
    "wait": wait_flag,
    "complete": complete,
    "complete all": complete_all,
    "await": wait_completion,
    "get": get,
    "put": put,
    "wait zero": wait_zero,
    "sleep": sleep,
    "wake": wake,
    "retry": retry,
    "retry and write": retry_and_write,
    "retry slowly": retry_slowly,
    "spawn": spawn,
    "spawn daemon": spawn_daemon,
    "join": join,
    "nest": nest,
    "interrupt": interrupt,
    "mask": mask,
}
