"""Emitting the events of the kernel, which are declared in `softsgx.events.kernel`.

Without a listener a call costs one more test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from softsgx.events.kernel import (
    CallBegun,
    CallEnded,
    CallRefused,
    Fields,
    IoctlArguments,
    IoctlResults,
    SignalSent,
    VdsoReturned,
)
from softsgx.spec.bits import MASK64

if TYPE_CHECKING:
    from softsgx.linux.process import Signal, Thread
    from softsgx.linux.version import KernelVersion
    from softsgx.sim import Steps
    from softsgx.spec.structure import Structure

P = ParamSpec("P")
Call = Callable[Concatenate["Thread", P], "Steps[int]"]


def traced(function: Call[P]) -> Call[P]:
    """Emit the begin and the end of a system call, named after the function without `sys_`."""
    name = function.__name__.removeprefix("sys_")
    names = list(signature(function).parameters)[1:]
    defaults = signature(function).parameters

    @wraps(function)
    def call(current: Thread, /, *args: P.args, **kwargs: P.kwargs) -> Steps[int]:
        steps = function(current, *args, **kwargs)
        if not current.kernel.processor.log.on:
            return steps
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        values = [(n, given.get(n, defaults[n].default)) for n in names]
        fields = _registers([(n, v) for n, v in values if type(v) is int])
        return trace_call(current, name, fields, steps)

    return call


def trace_call(current: Thread, name: str, fields: Fields, steps: Steps[int]) -> Steps[int]:
    """Run a call between the events of its begin and end."""
    log = current.kernel.processor.log
    log.emit(CallBegun(current.cpu, current.name, name, fields))
    result = yield from steps
    log.emit(CallEnded(current.cpu, current.name, name, fields, result))
    return result


def refused(current: Thread, errno: int, rule: str, **asked: int) -> int:
    """Emit the rule of `refusals` and the arguments that broke it; return -errno."""
    log = current.kernel.processor.log
    if log.on:
        log.emit(CallRefused(current.cpu, current.name, rule, errno, _registers(asked.items())))
    return -errno


def refused_call(current: Thread, name: str, errno: int, rule: str, **asked: int) -> int:
    """As `refused`, for a call that emits its begin and end only if it is refused."""
    log = current.kernel.processor.log
    if log.on:
        fields = _registers(asked.items())
        log.emit(CallBegun(current.cpu, current.name, name, fields))
        log.emit(CallRefused(current.cpu, current.name, rule, errno, fields))
        log.emit(CallEnded(current.cpu, current.name, name, fields, -errno))
    return -errno


def _registers(values: Iterable[tuple[str, int]]) -> Fields:
    """Values as registers hold them: 64 bits, whatever a caller in Python passes."""
    return tuple([(n, v if v < 0 else v & MASK64) for n, v in values])


def request_name(version: KernelVersion, cmd: int) -> str:
    """The name of an ioctl of /dev/sgx_enclave; the number of a request that it does not have."""
    return version.interface.requests.get(cmd, f"ioctl {cmd:#x}")


def trace_arguments(current: Thread, block: Structure, **more: int) -> None:
    """Emit the argument block of an ioctl as it was copied; `more` is from memory it points to."""
    log = current.kernel.processor.log
    if log.on:
        fields = (*_numbers(block), *more.items())
        log.emit(IoctlArguments(current.cpu, current.name, fields))


def trace_results(current: Thread, block: Structure) -> None:
    """Emit the fields that are written back."""
    log = current.kernel.processor.log
    if log.on:
        fields = tuple([(n, v) for n, v in _numbers(block) if n in ("result", "count")])
        log.emit(IoctlResults(current.cpu, current.name, fields))


def trace_signal(current: Thread, signal: Signal) -> int:
    """Emit that an exception becomes a signal; return the event's number, 0 without a listener."""
    log = current.kernel.processor.log
    if not log.on:
        return 0
    name, at, code = signal.text, signal.address, signal.error_code
    log.emit(SignalSent(current.cpu, current.name, name, at, signal.vector, code))
    return log.seq


def trace_vdso(current: Thread, vector: int, code: int, address: int) -> None:
    """Emit that the vDSO function returns an exception."""
    log = current.kernel.processor.log
    if log.on:
        log.emit(VdsoReturned(current.cpu, current.name, vector, code, address))


def _numbers(block: Structure) -> Fields:
    return tuple([(field.name, getattr(block, field.name)) for field in block.FIELDS])
