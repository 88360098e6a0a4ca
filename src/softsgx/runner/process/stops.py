"""Ways to end the seccomp stop of a system call, for all that serve calls.

A call is either answered without being run, or it runs, perhaps with other arguments, and is
completed at its exit stop. A call that does not concern enclaves is resumed unchanged.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from softsgx.linux.errno import ENOMEM
from softsgx.linux.trace import refused_call
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_SET_MODE_FILTER
from softsgx.runner.inserted.layout import GATE_DONE, SCRATCH
from softsgx.runner.process.scratch import lend
from softsgx.runner.process.tracee import Tracee
from softsgx.runner.ways import WAYS
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE

Handler = Callable[[Tracee, list[int]], None]
Model = Callable[[int, int], int]  # of start and length: 0, or a negated errno


def refuse_invalid(t: Tracee, regs: list[int], address: int, call: Steps[int]) -> None:
    """Refuse a call that Linux refuses for its arguments alone, before it looks for areas.

    The real kernel would give the same answer. If the address is in an enclave area, the model
    answers, so that there is an event for the refusal."""
    if areas(t, address & ~PAGE_MASK, PAGE_SIZE):
        answer(t, regs, t.run(call))
    else:
        resume(t)


def refuse(t: Tracee, regs: list[int], result: int, name: str, rule: str) -> None:
    """Answer with a negated errno, and emit an event that names the rule of `linux.refusals`."""
    if t.world.log.on:
        refused_call(t.model(), name, -result, rule)
    answer(t, regs, result)


def answer(t: Tracee, regs: list[int], result: int) -> None:
    """Skip the call, and make `result` its result."""
    regs[p.ORIG_RAX] = p.MASK64
    regs[p.RAX] = result & p.MASK64
    p.set_regs(t.tid, regs)
    resume(t)


def run_to_exit(t: Tracee, then: Callable[[Tracee, int], int | None]) -> None:
    """Let the call run, then call `then(t, result)`; what it returns replaces the result."""

    def at_exit(t: Tracee) -> None:
        regs = p.get_regs(t.tid)
        new = then(t, signed(regs[p.RAX]))
        if new is not None:
            regs = p.get_regs(t.tid)
            regs[p.RAX] = new & p.MASK64
            p.set_regs(t.tid, regs)

    t.at_exit = at_exit
    p.request(p.PTRACE_SYSCALL, t.tid)


def run_changed(
    t: Tracee,
    regs: list[int],
    changes: dict[int, int],
    then: Callable[[Tracee, int], int | None],
) -> None:
    """Run the call with other registers, then call `then(t, result)` as `run_to_exit` does.

    The program gets its registers back as they were. The kernel judges the changed call by the
    filters again, those of the program included; so it is made as if from the gate.
    """
    changes = {p.RIP: GATE_DONE, **changes}
    before = {at: regs[at] for at in changes if at not in (p.RAX, p.ORIG_RAX)}
    new = list(regs)
    for at, value in changes.items():
        new[at] = value & p.MASK64
    p.set_regs(t.tid, new)

    def restore(t: Tracee, result: int) -> int | None:
        after = p.get_regs(t.tid)
        for at, value in before.items():
            after[at] = value
        p.set_regs(t.tid, after)
        return then(t, result)

    run_to_exit(t, restore)


def run_instead(
    t: Tracee,
    regs: list[int],
    number: int,
    arguments: dict[int, int],
    then: Callable[[Tracee, int], int | None],
) -> None:
    """As `run_changed`, but run call `number` in place of the program's, with these arguments."""
    run_changed(t, regs, {p.ORIG_RAX: number, p.RAX: number, **arguments}, then)


def serve_at_exit(t: Tracee, regs: list[int], serve: Callable[[Tracee], int]) -> None:
    """Answer the call with what `serve` returns, which may inject calls.

    Injecting needs a stop outside of a system call: the exit stop of getpid, run in its place.
    """
    run_instead(t, regs, nr.GETPID, {}, lambda t, _result: serve(t))


def areas(t: Tracee, address: int, length: int) -> list[tuple[int, int]]:
    """The enclave areas of a range, cut to it."""
    if not t.space.mm.vmas or address + length > 1 << 64:
        return []
    end = address + ((length + PAGE_MASK) & ~PAGE_MASK)
    return [
        (max(vma.start, address), min(vma.end, end))
        for vma in t.space.mm.for_each_vma(address, end)
    ]


def split(
    t: Tracee, regs: list[int], start: int, end: int, model: Model, *, past_holes: bool = False
) -> None:
    """Serve a call on [start, end), which has enclave areas, as `split_at_exit` does."""
    if all(ours for _, _, ours in _parts(t, start, end)):
        answer(t, regs, model(start, end - start))
        return
    # Run with length 0, the call does nothing; at its exit stop, calls can be injected.
    run_changed(
        t,
        regs,
        {p.RSI: 0},
        lambda t, _: split_at_exit(t, regs, start, end, model, past_holes=past_holes),
    )


def split_at_exit(
    t: Tracee, regs: list[int], start: int, end: int, model: Model, *, past_holes: bool = False
) -> int:
    """At the exit stop, make the call of `regs` part by part, in the order of addresses: `model`
    answers for enclave areas, the kernel for the rest.

    The first error ends it and is the result. With `past_holes`, -ENOMEM does not end it, but is
    the result if no other error follows.
    """
    missing = 0
    for low, high, ours in _parts(t, start, end):
        if ours:
            result = model(low, high - low)
        else:
            more = (regs[p.RDX], regs[p.R10])
            result = t.inject(regs[p.ORIG_RAX], low, high - low, *more)
        if result == -ENOMEM and past_holes:
            missing = result
        elif result:
            return result
    return missing


def _parts(t: Tracee, start: int, end: int) -> list[tuple[int, int, bool]]:
    """A range, cut where enclave areas begin and end: start, end, whether it is an enclave area."""
    parts: list[tuple[int, int, bool]] = []
    at = start
    for low, high in areas(t, start, end - start):
        if at < low:
            parts.append((at, low, False))
        parts.append((low, high, True))
        at = high
    if at < end:
        parts.append((at, end, False))
    return parts


def add_filter(t: Tracee, code: bytes) -> bool:
    """Add a filter for all threads of the process; whether the kernel accepted it."""
    if WAYS.filter_by_prctl or t.all_stops:
        return True  # another filter stops everything already
    at = lend_filter(t, code)
    return t.inject(nr.SECCOMP, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, at) == 0


def lend_filter(t: Tracee, code: bytes) -> int:
    """Put a struct sock_fprog and its filter where one injected call can read them."""
    return lend(t.tid, struct.pack("<QQ", len(code) // 8, SCRATCH + 16) + code)


def resume(t: Tracee) -> None:
    p.request(p.PTRACE_CONT, t.tid)


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def signed32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
