"""The filters, run by a small machine for classic BPF over struct seccomp_data."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from softsgx.linux.char_device import ANSWERS
from softsgx.linux.errno import EPERM
from softsgx.runner.host import nr
from softsgx.runner.host.abi import (
    AUDIT_ARCH_X86_64,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_TRACE,
)
from softsgx.runner.host.ptrace import PTRACE_ATTACH, PTRACE_CONT, PTRACE_SEIZE
from softsgx.runner.inserted.layout import GATE
from softsgx.runner.process import call_filters as filters

FD = 7
SUPERVISOR = 4711
FUTEX, EPOLL_WAIT, GETPID = 202, 232, 39


def execute(
    code: bytes, number: int, args: Sequence[int], ip: int = 0x400000
) -> tuple[int, set[int]]:
    """The action, and what was loaded on the way to it."""
    data = struct.pack("<IIQ6Q", number, AUDIT_ARCH_X86_64, ip, *args, *(0,) * (6 - len(args)))
    loaded: set[int] = set()
    at = word = 0
    while True:
        operation, yes, no, k = struct.unpack_from("<HBBI", code, 8 * at)
        at += 1
        if operation == 0x20:
            loaded.add(k)
            (word,) = struct.unpack_from("<I", data, k)
        elif operation == 0x06:
            return k, loaded
        else:
            holds = {
                0x15: word == k, 0x25: word > k, 0x35: word >= k, 0x45: bool(word & k)
            }[operation]  # fmt: skip
            at += yes if holds else no


FILTER = filters.descriptor_filter(FD)


@pytest.mark.parametrize("number", [*filters.ON_DESCRIPTOR, nr.IOCTL, nr.FSTAT, nr.DUP, nr.DUP3])
def test_calls_on_the_descriptor_stop(number: int) -> None:
    assert execute(FILTER, number, [FD])[0] == SECCOMP_RET_TRACE
    assert execute(FILTER, number, [FD + 1, FD, FD])[0] == SECCOMP_RET_ALLOW
    assert execute(FILTER, number, [FD], ip=GATE)[0] == SECCOMP_RET_ALLOW  # a call of ours


@pytest.mark.parametrize(
    ("number", "args", "stops"),
    [
        (nr.SENDFILE, [FD, 3], True),
        (nr.SENDFILE, [3, FD], True),
        (nr.SENDFILE, [3, 4, FD], False),
        (nr.SPLICE, [FD, 0, 3], True),
        (nr.SPLICE, [3, 0, FD], True),
        (nr.SPLICE, [3, FD, 4], False),
        (nr.COPY_FILE_RANGE, [3, 0, FD], True),
    ],
)
def test_calls_on_two_descriptors(number: int, args: Sequence[int], stops: bool) -> None:
    assert (execute(FILTER, number, args)[0] == SECCOMP_RET_TRACE) == stops


@pytest.mark.parametrize("number", [FUTEX, EPOLL_WAIT, GETPID])
@pytest.mark.parametrize(
    "code",
    [
        filters.base_filter(SUPERVISOR),
        filters.range_filter(0x10000, 0x20000),
        FILTER,
    ],
    ids=["base", "range", "descriptor"],
)
def test_other_calls_pass_by_their_number_alone(code: bytes, number: int) -> None:
    """Then the kernel does not run the filters for them at all (Linux 5.11, kernel/seccomp.c)."""
    action, loaded = execute(code, number, [FD])
    assert action == SECCOMP_RET_ALLOW
    assert loaded <= {0, 4}


@pytest.mark.parametrize(
    ("args", "stops"),
    [
        # old address, old length, new length, flags, new address
        ((0x5000_0000, 0x1000, 0x2000, 3, 0x7000_0000), False),
        ((0x1000_0000, 0x1000, 0x2000, 1, 0), True),
        ((0x5000_0000, 0x1000, 0x2000, 3, 0x1000_0000), True),
        ((0x5000_0000, 0x1000, 0x2000, 3, 0x0F80_0000), True),
        ((0x5000_0000, 0x1000, 0x4000_0000, 3, 0x0100_0000), True),
        ((0x5000_0000, 0x1000, 1 << 32, 3, 0x0100_0000), True),
    ],
)
def test_mremap_stops_if_it_may_reach_the_area(args: Sequence[int], stops: bool) -> None:
    """The story: an area that grows while it moves was judged by the length it had before."""
    code = filters.range_filter(0x1000_0000, 0x2000_0000)
    action = SECCOMP_RET_TRACE if stops else SECCOMP_RET_ALLOW
    assert execute(code, nr.MREMAP, args)[0] == action


def test_the_filter_of_all_descriptors() -> None:
    code = filters.descriptor_filter(None)
    for fd in (0, FD, 0xFFFFFFFF):
        assert execute(code, nr.READ, [fd])[0] == SECCOMP_RET_TRACE
    assert execute(code, nr.READ, [0], ip=GATE)[0] == SECCOMP_RET_ALLOW
    assert execute(code, FUTEX, [0])[0] == SECCOMP_RET_ALLOW


@pytest.mark.parametrize(
    "code", [filters.base_filter(SUPERVISOR, True), filters.everything_filter()]
)
@pytest.mark.parametrize(
    "number", [nr.READ, nr.MPROTECT, nr.MREMAP, nr.SPLICE, nr.DUP2, nr.TIMER_SETTIME]
)
def test_one_filter_stands_for_all_that_could_be_added(code: bytes, number: int) -> None:
    """The story: without seccomp(2), timers on processor clocks were the kernel's own."""
    assert execute(code, number, [0])[0] == SECCOMP_RET_TRACE
    assert execute(code, number, [0], ip=GATE)[0] == SECCOMP_RET_ALLOW
    assert execute(code, FUTEX, [0])[0] == SECCOMP_RET_ALLOW


@pytest.mark.parametrize(
    ("number", "first", "stops"),
    [
        (nr.SECCOMP, 0, True),
        (nr.SECCOMP, 1, True),
        (nr.SECCOMP, 2, False),  # GET_ACTION_AVAIL
        (nr.PRCTL, 22, True),
        (nr.PRCTL, 21 | 1 << 32, True),  # an int
        (nr.PRCTL, 38, True),
        (nr.PRCTL, 39, True),
        (nr.PRCTL, 15, False),  # PR_SET_NAME
    ],
)
def test_calls_that_confine_stop(number: int, first: int, stops: bool) -> None:
    action = SECCOMP_RET_TRACE if stops else SECCOMP_RET_ALLOW
    assert execute(filters.base_filter(SUPERVISOR), number, [first])[0] == action


def test_every_call_that_stops_has_an_answer() -> None:
    sided = {f"{name} {side}" for name in ("sendfile", "splice") for side in ("from", "to")}
    assert set(ANSWERS) == set(filters.ON_DESCRIPTOR.values()) | sided | {"copy_file_range"}


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize(
    ("request_", "pid", "action"),
    [
        (PTRACE_ATTACH, SUPERVISOR, SECCOMP_RET_ERRNO | EPERM),
        (PTRACE_SEIZE, SUPERVISOR, SECCOMP_RET_ERRNO | EPERM),
        (PTRACE_ATTACH, SUPERVISOR + 1, SECCOMP_RET_ALLOW),
        (PTRACE_CONT, SUPERVISOR, SECCOMP_RET_ALLOW),
    ],
)
def test_the_supervisor_cannot_be_traced(
    request_: int, pid: int, action: int, everything: bool
) -> None:
    code = filters.base_filter(SUPERVISOR, everything)
    assert execute(code, nr.PTRACE, [request_, pid])[0] == action
