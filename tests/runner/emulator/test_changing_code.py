"""Code on pages that are also written: always executed as it is, and not scanned needlessly.

The story: Gramine's heap without EDMM is RWX. Each block of code there went through Python and the
disassembler whenever it began, 12 us against 0.02.
"""

from __future__ import annotations

from random import Random

import pytest

from softsgx.runner.emulator.blocks import Why
from softsgx.runner.emulator.emulator import Emulator
from softsgx.spec import faults
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R, W, X
from tests.runner.emulator.engine_rig import EngineRig, assemble, rig
from tests.runner.gcc import needs_gcc

pytestmark = needs_gcc

RWX = R | W | X


def test_code_that_stores_to_its_own_page_is_scanned_once() -> None:
    with rig("1: mov [rdi], rcx; dec rcx; jne 1b; enclu", code_rights=RWX) as r:
        r.set(rdi=r.code + 0x800, rcx=100_000)
        r.expect_exit()
        assert r.peek(r.code + 0x800) == 1
        assert r.engine.blocks.scanned < 10
        assert r.engine.fills < 20


def test_a_store_beside_the_code_does_not_make_it_unknown() -> None:
    """The bytes around a block are not its bytes: a counter right after a loop."""
    text = "1: inc qword ptr [rdi]; dec rcx; jne 1b; enclu"
    with rig(text, code_rights=RWX) as r:
        for gap in (0, 1, 8):
            end = len(assemble(text))
            r.set(rip=r.code, rdi=r.code + end + gap, rcx=1000)
            before = r.engine.blocks.scanned
            r.expect_exit()
            assert r.engine.blocks.scanned - before < 10


def _written(r: EngineRig, pages: int = 1) -> None:
    """The enclave has written to the pages of its code: from now on they can change unnoticed."""
    for page in range(pages):
        r.lp().store(r.code + page * PAGE_SIZE + 0xE00, b"\x90")


# Changed by whom


def test_an_instruction_of_the_block_that_is_being_executed() -> None:
    """The store is seen by the very next instruction, the first time and later."""
    with rig("2: mov [rdi + 1], cl; 1: mov al, 1; enclu; jmp 2b", code_rights=RWX) as r:
        at = r.code + len(assemble("mov [rdi + 1], cl"))
        for value in (5, 6, 6, 7):
            r.set(rip=r.code, rdi=at, rcx=value, rax=0)
            r.expect_exit()
            assert r.get("rax") == value


def test_an_instruction_of_a_loop_that_is_being_executed() -> None:
    """Each round changes the next block and, in every other round, its own."""
    loop = """
    1:      mov     [rdi + 1], cl
            mov     [rsi + 1], cl
            jmp     2f
    2:      mov     al, 0
            movzx   eax, al
            add     rbx, rax
    3:      mov     dl, 0
            movzx   edx, dl
            add     rbx, rdx
            dec     rcx
            jne     1b
            enclu
    """
    with rig(loop, code_rights=RWX) as r:
        begin = len(assemble("1: mov [rdi + 1], cl; mov [rsi + 1], cl; jmp 2f; 2:"))
        other = begin + len(assemble("mov al, 0; movzx eax, al; add rbx, rax"))
        r.set(rdi=r.code + begin, rsi=r.code + other, rbx=0, rcx=100)
        r.expect_exit()
        assert r.get("rbx") == 2 * sum(range(1, 101))


@pytest.mark.parametrize("times", [1, 5])
def test_code_in_another_page_that_is_changed_in_turns(times: int) -> None:
    """Written and called, again and again, also when the slow path has long seen no store."""
    caller = "1: mov [rdi], rsi; call rdi; add rbx, rax; add rsi, rdx; dec rcx; jne 1b; enclu"
    code = assemble(caller).ljust(PAGE_SIZE, b"\x90")
    with rig(code, code_rights=RWX, code_pages=2) as r:
        # mov eax, IMM32; ret; the immediate grows by one at each round.
        first = int.from_bytes(assemble("mov eax, 1; ret").ljust(8, b"\x90"), "little")
        for _ in range(times):
            r.set(rip=r.code, rdi=r.code + PAGE_SIZE, rsi=first, rdx=1 << 8, rbx=0, rcx=50)
            r.set(rsp=r.data + 0x800)
            r.expect_exit()
            assert r.get("rbx") == sum(range(1, 51))


def test_another_thread_changes_code_in_turns() -> None:
    write = "2: mov [rdi], rsi; enclu; jmp 2b"
    with rig(f"1: call rdi; enclu; jmp 1b; .org 64; {write}", lps=2, code_rights=RWX) as r:
        target = r.code + 0x700
        for value in (3, 4, 4, 5):
            code = int.from_bytes(assemble(f"mov eax, {value}; ret").ljust(8, b"\x90"), "little")
            r.set(1, rip=r.code + 64, rdi=target, rsi=code)
            r.expect_exit(1)
            r.set(0, rip=r.code, rdi=target, rsp=r.data + 0x800)
            r.expect_exit(0)
            assert r.get("rax", 0) == value


def test_a_debugger_changes_code() -> None:
    """EDBGWR by way of /proc/<pid>/mem, more than once.

    The story: the second change of a page went unnoticed, because the emulator still had its
    translation, and did not ask for it again.
    """
    for rights in (R | X, RWX):
        with rig("1: mov eax, 1; enclu; jmp 1b", code_rights=rights) as r:
            if rights & W:
                _written(r)
            for value in (1, 2, 3):
                r.set(rip=r.code)
                r.expect_exit()
                assert r.get("rax") == value
                physical = r.processor.epc.physical(r.page(r.code))
                r.memory.write(physical, assemble(f"mov eax, {value + 1}"))


def test_a_block_over_the_edge_of_a_page_changes_in_its_second_part() -> None:
    filler = b"\x48\xff\xc1" * 1365  # inc rcx, up to one byte before the second page
    code = filler + assemble("mov eax, 1; enclu")
    with rig(code.ljust(2 * PAGE_SIZE, b"\x90"), code_pages=2, code_rights=RWX) as r:
        _written(r, 2)
        physical = r.processor.epc.physical(r.page(r.code + PAGE_SIZE))
        for value in (1, 7, 7, 9):
            r.memory.write(physical, bytes([value]))
            r.set(rip=r.code + 3 * 1300)
            r.expect_exit()
            assert r.get("rax") == value


@pytest.mark.parametrize("where", [0x700, PAGE_SIZE - 2])
def test_an_illegal_instruction_comes_and_goes(where: int) -> None:
    """#UD while it is there, wherever its block lies."""
    call = assemble("1: call rdi; enclu; jmp 1b")
    with rig(call.ljust(2 * PAGE_SIZE, b"\x90"), code_pages=2, code_rights=RWX) as r:
        _written(r, 2)
        for text in ("nop; nop; ret", "nop; cpuid; ret", "nop; nop; ret", "cpuid; ret"):
            for at, byte in enumerate(assemble(text), r.code + where):
                page = at & ~(PAGE_SIZE - 1)
                physical = r.processor.epc.physical(r.page(page)) | at & (PAGE_SIZE - 1)
                r.memory.write(physical, bytes([byte]))
            r.set(rip=r.code, rdi=r.code + where, rsp=r.data + 0x800)
            if "cpuid" in text:
                assert r.fault().vector == faults.UD
                r.resume()
                assert r.get("rip") == r.code + where + ("nop" in text)
            else:
                r.expect_exit()


# At random


def _slots(r: EngineRig, random: Random, slots: list[int], values: dict[int, int]) -> None:
    """Have one slot written by the enclave, or by the model."""
    slot = random.choice(slots)
    value = values[slot] = random.getrandbits(31)
    code = assemble_mov(value)
    if random.random() < 0.7:
        r.set(rip=r.code, rdi=slot, rsi=int.from_bytes(code, "little"))
        r.expect_exit()
    else:
        page = slot & ~(PAGE_SIZE - 1)
        r.memory.write(r.processor.epc.physical(r.page(page)) | slot & (PAGE_SIZE - 1), code)


def assemble_mov(value: int) -> bytes:
    """mov eax, VALUE; ret"""
    return b"\xb8" + value.to_bytes(4, "little") + b"\xc3\x90\x90"


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_are_seen(seed: int) -> None:
    """Two emulators, as two processes have them, over the same pages."""
    random = Random(seed)
    text = assemble("1: mov [rdi], rsi; enclu; .org 64; call rdi; enclu")
    code = text.ljust(3 * PAGE_SIZE, b"\x90")
    with rig(code, code_pages=3, code_rights=RWX, lps=2) as r:
        other = Emulator(r.memory, r.host, r.doorbell, r.processor.part)
        slots = [r.code + 256 * n for n in range(1, 48)]
        values: dict[int, int] = {}
        for slot in slots:
            values[slot] = 0
            page = slot & ~(PAGE_SIZE - 1)
            physical = r.processor.epc.physical(r.page(page)) | slot & (PAGE_SIZE - 1)
            r.memory.write(physical, assemble_mov(0))
        for _ in range(400):
            _slots(r, random, slots, values)
            for slot in random.sample(slots, 3):
                number = random.randrange(2)
                r.set(number, rip=r.code + 64, rdi=slot, rsp=r.data + 0x800, rax=1)
                stop = other.run(r.lp(1)) if number else r.finish(0)
                assert stop.why is Why.ENCLU
                assert r.get("rax", number) == values[slot], f"{slot - r.code:#x}"
        other.close()


def test_code_that_was_read_before_it_was_executed_is_code() -> None:
    """The story: a page that was read as data could be executed without a look at it, and was not
    marked as code; then its first change went unnoticed."""
    text = assemble("1: mov rbx, [rdi]; call rdi; enclu; jmp 1b").ljust(PAGE_SIZE, b"\x90")
    with rig(text.ljust(2 * PAGE_SIZE, b"\x90"), code_pages=2) as r:
        target = r.code + PAGE_SIZE
        physical = r.processor.epc.physical(r.page(target))
        for value in (1, 2, 3):
            r.memory.write(physical, assemble_mov(value))
            r.set(rip=r.code, rdi=target, rsp=r.data + 0x800)
            r.expect_exit()
            assert r.get("rax") == value
