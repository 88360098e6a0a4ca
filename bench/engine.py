"""The reference engine by itself: enclave code in this process, without a program around it."""

from __future__ import annotations

from collections.abc import Callable

from bench.measure import Figure, per_call, table
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PENDING, REG, R, W, X
from tests.runner.emulator.engine_rig import rig

_BLOCKS = 1_000_000
_BYTES = PAGE_SIZE
_ROUNDS = 64


def _block(what: str, rights: int, target: float) -> Figure:
    """A loop of one block that stores 8 bytes to a data page, or to its own page."""
    with rig("1: mov [rdi], rcx; dec rcx; jne 1b; enclu", code_rights=rights) as r:
        to = r.code + 0x800 if rights & W else r.data

        def run() -> None:
            r.set(rip=r.code, rdi=to, rcx=_BLOCKS)
            r.expect_exit()

        run()
        return per_call(what, run, number=1, rounds=5, target=target, divide=_BLOCKS)


def _copy(apart: int) -> Figure:
    """REP MOVSB of a page, over and over."""
    text = "1: mov rdi, rdx; mov rsi, rbp; mov rcx, rax; rep movsb; dec rbx; jne 1b; enclu"
    with rig(text) as r:
        source, target = r.enclave.heap, r.enclave.heap + apart * PAGE_SIZE
        for page in (source, target):
            r.enclave.eaug(page)
            assert r.enclave.eaccept(page, REG | R | W | PENDING, r.lp()) == 0

        def run() -> None:
            r.set(rip=r.code, rdx=target, rbp=source, rax=_BYTES, rbx=_ROUNDS)
            r.expect_exit()

        run()
        what = f"REP MOVSB between pages {apart} apart, a byte"
        divide = _BYTES * _ROUNDS
        return per_call(what, run, number=1, rounds=5, target=0.15, divide=divide)


def _spinner() -> Figure:
    """A slice of a thread that waits for a lock which another one holds."""
    text = "1: mov eax, 1; xchg [rdi], eax; test eax, eax; jne 1b; enclu"
    with rig(text, timed=True) as r:
        r.lp().store(r.data, (1).to_bytes(8, "little"))
        r.set(rdi=r.data)
        for _ in range(10):
            r.run()
        return per_call("slice of a thread that spins", r.run, number=1000, rounds=5)


def figures() -> list[Figure]:
    """All figures of this module."""
    return [
        _block("block of code that stores, elsewhere", R | X, 0.0),
        _block("block of code that stores to its own page", R | W | X, 0.2),
        *(_copy(apart) for apart in (1, 64, 128)),
        _spinner(),
    ]


def main(show: Callable[[str], None]) -> None:
    """Print the section."""
    show(table("The reference engine", figures()))
