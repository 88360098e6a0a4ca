"""A small kernel for things that interleave: tasks, points, schedulers, locks, events.

It knows nothing of SGX. A task is a generator that yields a point wherever another processor may
get in between; a scheduler chooses which task goes on; the choices are a short string that repeats
the execution.
"""

from softsgx.sim.errors import (
    Blocked,
    Deadlock,
    ScheduleError,
    ScheduleMismatch,
    SimError,
    StepBound,
    TaskExit,
    Unmodelled,
)
from softsgx.sim.events import (
    Drawn,
    Event,
    IpiSent,
    IpiTaken,
    Listener,
    LockReleased,
    LockTaken,
    Log,
    Stepped,
    TaskEnded,
    TaskSpawned,
)
from softsgx.sim.execution import MAX_STEPS, Execution
from softsgx.sim.ipi import Acknowledgements, Interrupt, Target, ipi
from softsgx.sim.locks import Guard, Mutex, RwLock
from softsgx.sim.point import (
    BLOCKING,
    IPI,
    IRQ,
    LOCK,
    RETRY,
    SRCU,
    TRYLOCK,
    WAIT,
    Blocker,
    Point,
    Steps,
)
from softsgx.sim.rng import Rng
from softsgx.sim.run import run
from softsgx.sim.schedule import Choice, decode, encode, letters
from softsgx.sim.scheduler import Scheduler
from softsgx.sim.schedulers import Cooperative, Follow, RunToCompletion, VirtualTime
from softsgx.sim.srcu import Srcu
from softsgx.sim.task import Task
from softsgx.sim.touch import touch
from softsgx.sim.waits import Completion, Counter, WaitFlag, WaitQueue

__all__ = [
    "BLOCKING",
    "IPI",
    "IRQ",
    "LOCK",
    "RETRY",
    "MAX_STEPS",
    "SRCU",
    "TRYLOCK",
    "WAIT",
    "Acknowledgements",
    "Blocked",
    "Blocker",
    "Choice",
    "Completion",
    "Cooperative",
    "Counter",
    "Deadlock",
    "Drawn",
    "Event",
    "Execution",
    "Follow",
    "Guard",
    "Interrupt",
    "IpiSent",
    "IpiTaken",
    "Listener",
    "LockReleased",
    "LockTaken",
    "Log",
    "Mutex",
    "Point",
    "Rng",
    "RunToCompletion",
    "RwLock",
    "ScheduleError",
    "ScheduleMismatch",
    "Scheduler",
    "SimError",
    "Srcu",
    "StepBound",
    "Stepped",
    "Steps",
    "Target",
    "Task",
    "TaskEnded",
    "TaskExit",
    "TaskSpawned",
    "Unmodelled",
    "VirtualTime",
    "WaitFlag",
    "WaitQueue",
    "decode",
    "encode",
    "ipi",
    "letters",
    "run",
    "touch",
]
