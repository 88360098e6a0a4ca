"""Refused operations, and the advice carried out step by step, exactly as the text says.

An `Attempt` is an access or leaf that can be repeated, if need be with other operands. `take`
carries out the steps of the advice, as the host or from inside on a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from softsgx.linux.sgx import main as m
from softsgx.linux.uapi import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE
from softsgx.report import steps as s
from softsgx.report.explanation import Explanation
from softsgx.report.steps import Advice
from softsgx.sim import Steps
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PR, PT_SHIFT, TCS, TRIM, VALID, R, W, X
from softsgx.spec.paging import SECINFO
from softsgx.system import EnclaveThread, HostThread, Machine
from softsgx.system.v2_enclave import V2Enclave
from tests.linux.world import World, world

THREADS: Final = 12


def rig(machine: Machine | None = None, **layout: int) -> World:
    """A world with a TCS for each attempt, and one more for steps from inside."""
    machine = machine or Machine(cpus=4, epc="1M", explain=True)
    return world(machine, **({"pages": 5, "threads": THREADS, "nssa": 2} | layout))


@dataclass
class Attempt:
    """An access of the enclave (`access` R, W or X at `address`), of the host (`outside`), or a
    leaf with its operands. `secinfo` or `contents` are written to RBX first, if they are given.
    """

    w: World
    address: int = 0
    access: int = 0
    outside: bool = False
    leaf: int | None = None
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    secinfo: int | None = None
    contents: bytes | None = None
    thread: int = 0
    skipped: bool = False
    refusals: list[Explanation] = field(default_factory=list)

    def refused(self) -> Explanation | None:
        """Make it. None if it succeeds or is no longer to be made."""
        if self.skipped:
            return None
        explainer = self.w.machine.explainer
        assert explainer is not None
        told: list[Explanation] = []
        explainer.tell = told.append
        try:
            succeeded = self._outside() if self._is_outside else self._inside()
        finally:
            explainer.tell = None
        if succeeded:
            return None
        assert told, f"{self} was refused without an explanation"
        self.refusals.append(told[-1])
        return told[-1]

    @property
    def _is_outside(self) -> bool:
        return self.outside or self.leaf in (leaves.EENTER, leaves.ERESUME)

    def _inside(self) -> bool:
        """On the next TCS: one that was left by an exception keeps its frame."""
        w = self.w
        result: list[int] = []
        entry, run = w.enclave.entry(self._program(result)), w.enclave.run(self.thread)
        self.thread += 1
        w.do(w.host.enter(entry, run))
        if run.function != leaves.EEXIT:
            entry.abandon(run.tcs)
            return False
        return not result[0]

    def _program(self, result: list[int]) -> Callable[[EnclaveThread], Steps[None]]:
        def program(t: EnclaveThread) -> Steps[None]:
            if self.leaf is not None:
                if self.secinfo is not None:
                    yield from t.store(self.rbx, SECINFO(FLAGS=self.secinfo).pack())
                if self.contents is not None:
                    yield from t.store(self.rbx, self.contents)
                status = yield from t.enclu(self.leaf, self.rbx, self.rcx, self.rdx)
                result.append(0 if status is None else int(status))
                return
            if self.access == W:
                yield from t.store(self.address, b"x")
            elif self.access == R:
                yield from t.load(self.address)
            else:
                assert self.access == X
                yield from t.fetch(self.address)
            result.append(0)

        return program

    def _outside(self) -> bool:
        w = self.w
        if self.leaf is not None:
            run = w.enclave.run()
            run.tcs = self.rbx
            entry = w.enclave.entry(_nothing)
            w.do(w.host.enter(entry, run, self.leaf))
            return run.function == leaves.EEXIT
        from softsgx.system.host import SignalRaised

        try:
            if self.access == W:
                w.do(w.host.store(self.address, b"x"))
            else:
                w.do(w.host.load(self.address, 1))
        except SignalRaised:
            return False
        return True


def _nothing(t: EnclaveThread) -> Steps[None]:
    """Enter and leave."""
    yield from t.load(t.secinfo)


class NotTaken(AssertionError):
    """A step of the advice failed."""


class Said(Exception):
    """The advice ends in `text` that is not a step."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def take(attempt: Attempt, step: s.Step) -> None:
    """Carry out one step; raises `Said` for text."""
    if isinstance(step, s.Say):
        raise Said(step.words)
    taken = _TAKEN.get(type(step))
    assert taken is not None, f"nothing performs {step}"
    taken(attempt, step)


def follow(attempt: Attempt, limit: int = 1, alternative: int = 0) -> None:
    """Make the attempt and take the advice until it succeeds, after at most `limit` refusals.

    No layer refuses for the same reason twice.
    """
    for _ in range(limit):
        found = attempt.refused()
        if found is None:
            return
        assert isinstance(found.advice, Advice), found.text
        ways = found.advice.alternatives
        for step in ways[min(alternative, len(ways) - 1)]:
            try:
                take(attempt, step)
            except NotTaken as error:
                raise AssertionError(f"{error}\n{found.text}") from error
    last = attempt.refused()
    story = "".join(found.text for found in attempt.refusals)
    assert last is None, f"the advice did not help:\n{story}"


def _check(ok: bool, step: s.Step, got: object = "") -> None:
    if not ok:
        raise NotTaken(f"{step} cannot be done: {got}")


def _by_thread(attempt: Attempt, step: s.Step, body: Callable[[EnclaveThread], Steps[Any]]) -> Any:
    """From inside, on the last thread: its SECINFO slot is not the one of the attempt."""
    from softsgx.system import EnclaveFault

    w = attempt.w
    try:
        return w.do(w.enclave.call(w.host, body, thread=len(w.enclave.tcs) - 1))
    except EnclaveFault as fault:
        raise NotTaken(f"{step}: {fault}\n{w.machine.explain()}") from fault


def _accept(attempt: Attempt, step: s.Accept) -> None:
    status = _by_thread(
        attempt, step, lambda t: t.eaccept(step.page, step.word & ~(VALID | BLOCKED))
    )
    _check(not status, step, status)


def _extend(attempt: Attempt, step: s.Extend) -> None:
    _by_thread(attempt, step, lambda t: t.emodpe(step.page, step.rights))


def _map(attempt: Attempt, step: s.Map) -> None:
    got = attempt.w.map(step.page, step.prot)
    _check(got == step.page, step, got)


def _map_host(attempt: Attempt, step: s.MapHost) -> None:
    w = attempt.w
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    got = w.do(w.host.mmap(step.page, PAGE_SIZE, step.prot, flags))
    _check(got == step.page, step, got)


def _protect(attempt: Attempt, step: s.Protect) -> None:
    got = attempt.w.protect(step.page, step.prot)
    _check(got == 0, step, got)


def _retype(attempt: Attempt, step: s.Retype) -> None:
    w = attempt.w
    assert step.kind in (TRIM, TCS)
    kind = step.kind >> PT_SHIFT
    got = w.do(w.enclave.modify_types(w.host, step.page, PAGE_SIZE, kind))[0]
    _check(got == 0, step, got)


def _remove(attempt: Attempt, step: s.Remove) -> None:
    got = attempt.w.do(attempt.w.enclave.remove(attempt.w.host, step.page, PAGE_SIZE))[0]
    _check(got == 0, step, got)


def _fresh(attempt: Attempt, step: s.Fresh) -> None:
    _check(attempt.w.encl.page(step.page) is None, step, "there is a page")


def _relax(attempt: Attempt, step: s.Relax) -> None:
    enclave = attempt.w.enclave
    assert isinstance(enclave, V2Enclave)
    got = attempt.w.do(enclave.relax(attempt.w.host, step.page, PAGE_SIZE, step.rights))[0]
    _check(got == 0, step, got)


def _again(attempt: Attempt, step: s.Again) -> None:
    """Time passes: a page that is being evicted is written out."""
    evict_blocked(attempt.w)


def _aligned(attempt: Attempt, step: s.Aligned) -> None:
    name = step.operand.lower()
    setattr(attempt, name, getattr(attempt, name) & -step.size)


def _within(attempt: Attempt, step: s.Within) -> None:
    """A page of the enclave that can be this operand."""
    w, name = attempt.w, step.operand.lower()
    assert (step.start, step.end) == (w.enclave.base, w.enclave.base + w.enclave.size)
    target = name == "rcx" and attempt.leaf in _TARGETS
    setattr(attempt, name, w.enclave.heap if target else spare(w, name))


def _canonical(attempt: Attempt, step: s.Canonical) -> None:
    attempt.address = attempt.w.enclave.data[0]


def _secinfo(attempt: Attempt, step: s.Secinfo) -> None:
    attempt.secinfo = step.word & ~(VALID | BLOCKED)


def _skip(attempt: Attempt, step: s.Skip) -> None:
    """Nothing is due for the page, so the program leaves the leaf out."""
    w = attempt.w
    entry = w.encl.page(attempt.rcx)
    assert entry is not None
    if entry.epc_page is not None:
        due = w.machine.processor.epcm.state[entry.epc_page.number] & (PENDING | MODIFIED | PR)
        _check(not due, step, due)
    attempt.skipped = True


def _other_tcs(attempt: Attempt, step: s.OtherTcs) -> None:
    attempt.rbx = attempt.w.enclave.tcs[-2]


_TARGETS: Final = frozenset({leaves.EACCEPT, leaves.EMODPE, leaves.EACCEPTCOPY})
_TAKEN: Final[dict[type, Callable[[Attempt, Any], None]]] = {
    s.Accept: _accept,
    s.Extend: _extend,
    s.Map: _map,
    s.MapHost: _map_host,
    s.Protect: _protect,
    s.Retype: _retype,
    s.Remove: _remove,
    s.Fresh: _fresh,
    s.Relax: _relax,
    s.Again: _again,
    s.Aligned: _aligned,
    s.Within: _within,
    s.Canonical: _canonical,
    s.Secinfo: _secinfo,
    s.Skip: _skip,
    s.OtherTcs: _other_tcs,
}


def spare(w: World, name: str) -> int:
    """A data page for each operand; SECINFOs and the like lie at its start."""
    return w.enclave.data[{"rbx": 1, "rcx": 2, "rdx": 3}[name]]


def evict_blocked(w: World) -> None:
    """Write out every BLOCKED page, as the reclaimer does that has blocked it."""
    kernel, epcm = w.kernel, w.machine.processor.epcm
    for page in [page for page in kernel.active_page_list if epcm.state[page.number] & BLOCKED]:
        w.do(evict(w.host, page))


def evict(host: HostThread, page: m.SgxEpcPage) -> Steps[None]:
    """Evict one page as the reclaimer does: zap, EBLOCK, ETRACK, EWB."""
    kernel, current = host.kernel, host.thread
    owner = page.owner
    assert owner is not None
    del kernel.active_page_list[page]
    backing = owner.encl.backing.get(owner.address - owner.encl.base >> 12)
    assert backing is not None
    owner.being_reclaimed = True
    yield from m.sgx_reclaimer_block(current, page)
    yield from m.sgx_reclaimer_write(current, page, backing)
    page.flags &= ~m.RECLAIMER_TRACKED
    m.sgx_free_epc_page(kernel, page)
