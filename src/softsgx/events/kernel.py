"""The events of the kernel and of its processes: calls, page faults, signals, threads on cpus.

`cpu` is the number of the logical processor on which `thread` runs; `thread` and `process` are
names; a real thread or process is named by its number. `fields` are pairs of a name and a number.
"""

from typing import NamedTuple, TypeAlias

Fields: TypeAlias = tuple[tuple[str, int], ...]
"""Arguments by name, in the order of the call."""


class CallBegun(NamedTuple):
    """A system call on enclave memory, or an ioctl by the name of its request."""

    cpu: int
    thread: str
    name: str
    fields: Fields


class IoctlArguments(NamedTuple):
    """The argument block of the current ioctl, as the driver copied it, and what it points to."""

    cpu: int
    thread: str
    fields: Fields


class IoctlResults(NamedTuple):
    """What that ioctl writes back into its argument block."""

    cpu: int
    thread: str
    fields: Fields


class CallRefused(NamedTuple):
    """A kernel function refuses something in a call or page fault; its caller may tolerate that.
    `rule` is `function.what` of `linux.refusals`, `fields` are what it tested."""

    cpu: int
    thread: str
    rule: str
    errno: int
    fields: Fields


class CallEnded(NamedTuple):
    """The call returns: a value, or a negated errno."""

    cpu: int
    thread: str
    name: str
    fields: Fields
    result: int


class PageFaultBegun(NamedTuple):
    """The kernel handles a #PF of user code, or one of a copy to or from user memory."""

    cpu: int
    thread: str
    address: int
    code: int


class PageFaultEnded(NamedTuple):
    """`outcome` is `repaired` (the access is tried again), or the signal and its code."""

    cpu: int
    thread: str
    address: int
    code: int
    outcome: str


class ThreadSwitchedIn(NamedTuple):
    """A thread starts to run on a logical processor, with the address space of its process."""

    cpu: int
    thread: str
    process: str
    space: str


class SignalSent(NamedTuple):
    """A thread gets a signal, by name and code, for an exception that nothing repaired."""

    cpu: int
    thread: str
    signal: str
    address: int
    vector: int
    code: int


class VdsoReturned(NamedTuple):
    """The vDSO function returns an exception that nothing repaired to its caller."""

    cpu: int
    thread: str
    vector: int
    code: int
    address: int


class FailureInjected(NamedTuple):
    """The kernel fails at a site of `linux.failures`, because the run asks for it: the `time`th."""

    site: str
    time: int


class ProcessStarted(NamedTuple):
    """A process executes a program (`path`), or is the copy that fork made of `parent`."""

    process: str
    parent: str
    path: str


class ProcessEnded(NamedTuple):
    """A process is gone: `exit 0`, or the signal that killed it.

    `cause` is the number of the SignalSent for this signal; 0 if it came from elsewhere.
    """

    process: str
    outcome: str
    cause: int = 0
