"""Code that waits for others without PAUSE is detected; code that works is not taken for it.

The story: 50 threads at an unfair lock took 1,109 s, 997 of them emulating threads that tried to
take it; the holder waited for a whole slice of each.
"""

from __future__ import annotations

import pytest

from softsgx.runner.emulator import control
from softsgx.runner.emulator.blocks import Why
from softsgx.runner.emulator.turns import Turns
from tests.runner.emulator.engine_rig import EngineRig, HostPages, rig
from tests.runner.gcc import needs_gcc
from tests.runner.ringing import ring

pytestmark = needs_gcc

# RDI: a word that another changes from 0 (or from 1, where it is a lock) to end the loop.
SPINNING = {
    "poll": "1: cmp dword ptr [rdi], 1; je 1b; enclu",
    "xchg": "1: mov eax, 1; xchg [rdi], eax; test eax, eax; jne 1b; enclu",
    "cmpxchg": "1: xor eax, eax; mov ecx, 1; lock cmpxchg [rdi], ecx; jne 1b; enclu",
    "bts": "1: lock bts dword ptr [rdi], 0; jc 1b; enclu",
    "function": """
        1:      call    2f
                test    eax, eax
                jne     1b
                enclu
        2:      push    rbx
                mov     ebx, 1
                xchg    [rdi], ebx
                mov     eax, ebx
                pop     rbx
                ret
    """,
    # As the SDK's mutex: a lock inside protects the owner; it is taken and given back each time.
    "mutex": """
        1:      mov     eax, 1
                xchg    [rdi + 8], eax
                test    eax, eax
                jne     1b
                mov     edx, [rdi]
                test    edx, edx
                jne     2f
                mov     dword ptr [rdi], 1
        2:      mov     dword ptr [rdi + 8], 0
                test    edx, edx
                jne     1b
                enclu
    """,
}


@pytest.fixture(autouse=True)
def _a_machine_that_is_never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices do not end by time."""
    monkeypatch.setattr(control, "SLICE_NS", 10**12)


def _spins(r: EngineRig, slices: int = 8) -> list[Why]:
    return [r.run().why for _ in range(slices)]


@pytest.mark.parametrize("text", SPINNING.values(), ids=SPINNING)
def test_a_loop_that_changes_nothing_gives_way(text: str) -> None:
    """In each slice after a few blocks; and it goes on once the word has changed."""
    with rig(text, timed=True) as r:
        r.lp().store(r.data, (1).to_bytes(8, "little"))
        r.set(rdi=r.data, rsp=r.data + 0x800)
        assert set(_spins(r)) == {Why.SPIN}
        assert r.engine.spins.trials == 1
        assert r.engine.blocks.left > control.SLICE_BLOCKS - 64
        r.lp().store(r.data, bytes(8))
        r.expect_exit()


def test_a_word_of_the_host_is_polled_from_slice_to_slice() -> None:
    pages = HostPages(1)
    with rig("1: mov rax, [rdi]; test al, 1; je 1b; enclu; inc rax; jmp 1b", timed=True) as r:
        r.set(rdi=pages.address)
        assert set(_spins(r)) == {Why.SPIN}
        pages.map[0:8] = (1).to_bytes(8, "little")
        r.expect_exit()
        assert r.get("rax") == 1


def test_a_word_of_the_host_is_answered_in_the_slice_that_sees_it() -> None:
    """A call without exits is one slice, and some rounds of the loop that waits for the next one.

    The story: each call waited for the end of a slice; 500,000 of them did not end in 400 s.
    """
    pages = HostPages(1)
    text = "1: mov rax, [rdi]; test al, 1; je 1b; inc rax; mov [rdi], rax; jmp 1b"
    with rig(text, timed=True) as r:
        r.set(rdi=pages.address)
        assert set(_spins(r)) == {Why.SPIN}
        for call in range(200):
            pages.map[0:8] = (2 * call + 1).to_bytes(8, "little")
            assert r.run().why is Why.SPIN
            assert pages.word() == 2 * call + 2
            assert r.engine.blocks.left > control.SLICE_BLOCKS - 64
        assert r.engine.spins.trials == 1


@pytest.mark.parametrize("pause", ["", "pause"])
def test_who_waits_alone_for_the_host_stays_where_it_is(
    monkeypatch: pytest.MonkeyPatch, pause: str
) -> None:
    """One slice for many calls; code that spins is not even executed until the host has written."""
    pages = HostPages(1)
    calls = 100
    text = f"1: {pause}; mov rax, [rdi]; test al, 1; je 1b; inc rax; mov [rdi], rax; jmp 1b"
    with rig(text, timed=True) as r:
        r.set(rdi=pages.address)
        r.run()
        renew, looks, starts = r.host.renew, [0], [0]
        start = r.engine.uc.start

        def host() -> bool | None:
            looks[0] += 1
            if looks[0] % 10 == 0:
                if pages.word() == 2 * calls:
                    ring(r.mailboxes)
                elif pages.word() % 2 == 0:
                    pages.map[0:8] = (pages.word() + 1).to_bytes(8, "little")
            return renew()

        def started(rip: int, until: int) -> int:
            starts[0] += 1
            return start(rip, until)

        monkeypatch.setattr(r.host, "renew", host)
        monkeypatch.setattr(r.engine.uc, "start", started)
        assert r.engine.run(r.lp(), alone=True).why in (Why.SPIN, Why.PAUSE, Why.DOORBELL)
        assert pages.word() == 2 * calls
        assert looks[0] >= 10 * calls
        assert starts[0] <= (12 * calls if pause else calls + 2)


WORKING = {
    "registers": "1: dec rcx; jne 1b; enclu",
    "memory": "1: dec qword ptr [rdi]; jne 1b; enclu",
    "memory, by a function": "1: call 2f; jne 1b; enclu; 2: dec qword ptr [rdi]; ret",
    "flags": "1: pushfq; pop rax; xor rax, 1; push rax; popfq; dec qword ptr [rdi]; jne 1b; enclu",
    "xmm": """
                pcmpeqd xmm1, xmm1
                movq    xmm0, [rdi]
        1:      paddq   xmm0, xmm1
                ptest   xmm0, xmm2
                jne     1b
                movq    [rdi], xmm0
                enclu
    """,
}


@pytest.mark.parametrize("text", WORKING.values(), ids=WORKING)
def test_a_loop_that_works_has_its_slices(text: str) -> None:
    """Nor one whose registers are the same each time; and few rounds are tried in vain."""
    rounds = 20 * control.SLICE_BLOCKS
    with rig("movq xmm2, rbx;" + text, timed=True) as r:
        r.lp().store(r.data, rounds.to_bytes(8, "little"))
        r.set(rdi=r.data, rsp=r.data + 0x800, rcx=rounds, rbx=(1 << 64) - 1)
        slices = 0
        while (stop := r.run()).why is not Why.ENCLU:
            assert stop.why is Why.BUDGET
            slices += 1
            r.doorbell.look()
        assert r.peek(r.data) == 0 or "rcx" in text
        assert r.engine.spins.trials < 12


def test_a_loop_that_stores_to_the_host_works() -> None:
    pages = HostPages(1)
    pages.map[0:8] = (3000).to_bytes(8, "little")
    with rig("1: lock dec qword ptr [rdi]; jne 1b; enclu", timed=True) as r:
        r.set(rdi=pages.address)
        while (stop := r.run()).why is not Why.ENCLU:
            assert stop.why is Why.BUDGET
        assert pages.word() == 0


def test_a_block_that_spun_once_works_as_others_do() -> None:
    """It is watched, but only now and then."""
    with rig("1: cmp qword ptr [rdi], 1; je 1b; dec rcx; jne 1b; enclu", timed=True) as r:
        r.lp().store(r.data, (1).to_bytes(8, "little"))
        r.set(rdi=r.data, rcx=100_000)
        assert set(_spins(r)) == {Why.SPIN}
        r.lp().store(r.data, bytes(8))
        while (stop := r.run()).why is not Why.ENCLU:
            assert stop.why is Why.BUDGET
        assert r.engine.spins.trials == 1


def test_without_time_nothing_is_suspected() -> None:
    """Explored executions depend on the code alone."""
    with rig(SPINNING["xchg"]) as r:
        r.lp().store(r.data, (1).to_bytes(8, "little"))
        r.set(rdi=r.data)
        assert set(_spins(r, 40)) == {Why.BUDGET}
        assert r.engine.spins.trials == 0


def test_stores_to_the_host_make_the_clock_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once time is over, a slice ends after some stores, not after all of its blocks.

    The story: three threads that store to host memory stood still for 0.4 s at a time.
    """
    pages = HostPages(1)
    with rig("1: mov [rdi], rcx; mov [rdi + 64], rcx; dec rcx; jne 1b; enclu", timed=True) as r:
        r.set(rdi=pages.address, rcx=1 << 20)
        monkeypatch.setattr(control, "SLICE_NS", 0)
        assert r.run().why is Why.BUDGET
        assert (1 << 20) - r.get("rcx") <= control.QUANTUM_BLOCKS // 128 + 1


def test_who_works_has_every_other_turn() -> None:
    turns = Turns()
    for name in "abcd":
        turns.append(name, waits=name != "a")  # type: ignore[arg-type] # names stand for threads
    seen = ""
    for _ in range(8):
        t = turns.popleft()
        seen += str(t)
        turns.append(t, waits=str(t) != "a")
    assert seen == "abacadab"
    assert len(turns) == 4
    assert "c" in turns
    turns.remove("c")  # type: ignore[arg-type]
    assert "c" not in turns


MUTEX = """
        1:      mov     eax, 1          # as the SDK's: a lock inside protects the owner
                xchg    [rdi + 8], eax
                test    eax, eax
                je      3f
        2:      pause
                jmp     1b
        3:      mov     edx, [rdi]
                jmp     4f
        4:      test    edx, edx
                jne     5f
                mov     dword ptr [rdi], 1
        5:      mov     dword ptr [rdi + 8], 0
                test    edx, edx
                jne     1b
                enclu
"""


@pytest.mark.parametrize("jmp", range(6))
def test_who_tries_again_and_again_is_not_stopped_where_he_holds_what_others_need(jmp: int) -> None:
    """Two threads try to take a mutex; a third one must look at it before it is given back.

    The story: the loop was watched at the block after the inner lock; each slice ended there,
    with that lock taken. Eight threads of the SDK's memory manager then waited for ever.
    """
    with rig("jmp 1f; 1:" * jmp + MUTEX, lps=3, timed=True) as r:
        r.lp().store(r.data, (1).to_bytes(8, "little"))
        for number in range(3):
            r.set(number, rdi=r.data)
        for _ in range(20):
            r.run(0), r.run(1)
        free = 0
        for _ in range(200):
            for number in range(2):
                r.run(number)
                free += r.peek(r.data + 8, 4) == 0
        assert free > 20
