"""What enclave code on the emulator sees of memory: its own, changed under it, and the host's."""

from __future__ import annotations

import mmap

import pytest

from softsgx.mem.pagetable import PTE_A, PTE_W
from softsgx.runner.emulator import control
from softsgx.runner.emulator.blocks import Why
from softsgx.runner.emulator.emulator import Emulator
from softsgx.runner.process import hostmem
from softsgx.runner.ways import WAYS
from softsgx.spec import faults
from softsgx.spec.bits import MASK64, PAGE_SIZE
from softsgx.spec.epcm import MODIFIED, PENDING, REG, TRIM, R, W, X
from tests.runner.emulator.engine_rig import HostPages, assemble, rig
from tests.runner.gcc import needs_gcc

pytestmark = needs_gcc

LOAD = "1: mov rax, [rdi]; enclu; jmp 1b"
STORE = "1: mov [rdi], rax; enclu; jmp 1b"
PF_READ = 0x4
SGX_WRITE = 0x8007


# Translations are kept across entries while nothing has changed, and only then


def test_translations_survive_an_entry_if_nothing_changed() -> None:
    with rig(LOAD) as r:
        r.set(rdi=r.data)
        r.expect_exit()
        fills = r.engine.fills
        for _ in range(2):
            r.reenter()
            r.set(rdi=r.data)
            r.expect_exit()
            assert r.engine.fills == fills


def test_a_restricted_page_is_refused_after_the_next_entry() -> None:
    with rig(STORE) as r:
        r.set(rdi=r.data, rax=1)
        r.expect_exit()
        assert r.bare.emodpr(r.page(r.data), R) == 0
        r.reenter()
        r.set(rdi=r.data, rax=2)
        assert r.fault().code == SGX_WRITE
        assert r.peek(r.data) == 1


def test_a_changed_page_table_entry_is_seen_after_the_next_entry() -> None:
    with rig(STORE) as r:
        r.set(rdi=r.data, rax=1)
        r.expect_exit()
        space = r.processor.space
        space.set(r.data, space.lookup(r.data) & ~PTE_W)
        r.reenter()
        r.set(rdi=r.data)
        assert r.fault().code == 0x7


def test_a_missed_shootdown_stays_visible_until_the_next_entry() -> None:
    """The translation is used until something flushes it, and no longer.

    The story: changes seen at the start of a slice were taken for changes seen by all translations,
    so that those older than them outlived the AEX.
    """
    with rig(STORE + "; nop") as r:
        r.set(rdi=r.data, rax=1)
        r.expect_exit()
        assert r.bare.emodpr(r.page(r.data), R) == 0
        for value in (2, 3):
            r.set(rip=r.code, rax=value)
            r.expect_exit()
            assert r.peek(r.data) == value
        r.lp().interrupt()
        r.resume()
        r.set(rip=r.code, rax=4)
        fault = r.fault()
        assert (fault.code, fault.address) == (SGX_WRITE, r.data)
        assert r.peek(r.data) == 3


def test_a_cleared_accessed_bit_is_set_again_after_the_next_entry() -> None:
    with rig(LOAD) as r:
        for expected in (True, True):
            r.set(rdi=r.data)
            r.expect_exit()
            assert bool(r.processor.space.lookup(r.data) & PTE_A) is expected
            assert r.processor.space.test_and_clear_accessed(r.data)
            r.set(rip=r.code)
            r.expect_exit()
            assert not r.processor.space.lookup(r.data) & PTE_A, "in the TLB still"
            r.reenter()


def test_two_processors_have_translations_of_their_own() -> None:
    """One got its translation before the page was restricted, the other asks afterwards."""
    with rig(STORE, lps=2) as r:
        r.set(0, rdi=r.data, rax=1)
        r.expect_exit(0)
        assert r.bare.emodpr(r.page(r.data), R) == 0
        for value in (2, 3):
            r.set(1, rdi=r.data, rax=99, rip=r.code)
            stop = r.finish(1)
            assert stop.fault is not None
            assert stop.fault.code == SGX_WRITE
            r.set(0, rip=r.code, rax=value)
            r.expect_exit(0)
            assert r.peek(r.data) == value


# Code that changes


RETURNS = "mov eax, {}; ret"
JIT = """
1:      mov     qword ptr [rdi], rsi
        call    rdi
        mov     [rdx], rax
        enclu
        jmp     1b
"""


def _code(value: int) -> int:
    return int.from_bytes(assemble(RETURNS.format(value)).ljust(8, b"\x90"), "little")


def test_code_that_the_enclave_writes_runs_as_written() -> None:
    """Written, called, overwritten, called again; with entries in between, and without."""
    with rig(JIT, code_rights=R | W | X) as r:
        for value in (3, 4, 5, 6):
            r.set(rdi=r.code + 0x800, rsi=_code(value), rsp=r.data + 0x800, rdx=r.data)
            if value > 3:
                r.set(rip=r.code)
            r.expect_exit()
            assert r.peek(r.data) == value
            if value == 4:
                r.reenter()


def test_an_illegal_instruction_that_is_written_over_a_legal_one_is_ud() -> None:
    """The blocks of pages that can be written are compared every time."""
    with rig(JIT, code_rights=R | W | X) as r:
        r.set(rdi=r.code + 0x800, rsi=_code(3), rsp=r.data + 0x800, rdx=r.data)
        r.expect_exit()
        cpuid = int.from_bytes(assemble("cpuid; ret").ljust(8, b"\x90"), "little")
        r.set(rip=r.code, rsi=cpuid)
        assert r.fault().vector == faults.UD
        r.resume()
        assert r.get("rip") == r.code + 0x800


def test_an_illegal_instruction_written_by_another_thread_is_ud() -> None:
    """The page is executable when the first thread runs; only the second can write it."""
    with rig(JIT, lps=2, code_rights=R | W | X) as r:
        r.set(0, rip=r.code + 0x800, rsp=r.data + 0x800)
        for number, text in ((1, "enclu"), (1, "cpuid; enclu")):
            code = int.from_bytes(assemble(text).ljust(8, b"\x90"), "little")
            r.set(number, rip=r.code, rdi=r.code + 0x700, rsi=0xD7010F, rdx=r.data)
            r.set(number, rsp=r.data + 0x800)
            r.expect_exit(number)
            r.set(number, rip=r.code, rdi=r.code + 0x800, rsi=code)
            stop = r.finish(number)
            r.set(0, rip=r.code + 0x800)
            assert r.run(0).why is stop.why
        assert stop.why is Why.FAULT


def test_an_illegal_instruction_written_to_the_second_page_of_a_block_is_ud() -> None:
    """The first page cannot be written; but the end of the block can change."""
    filler = b"\x48\xff\xc1" * 1365  # inc rcx, up to one byte before the second page
    legal, cpuid = (assemble(text) for text in ("nop; nop; nop; enclu", "nop; cpuid; enclu"))
    writer = assemble("mov [rdi], rsi; enclu")
    code = (filler + legal).ljust(PAGE_SIZE + 0x800, b"\x90") + writer
    with rig(code, code_pages=2, code_rights=R | W | X) as r:
        second = r.code + PAGE_SIZE
        r.bare.emodpr(r.page(r.code), R | X)
        r.reenter()
        for text in (legal, legal, cpuid):
            r.set(rip=second + 0x800, rdi=second, rsi=int.from_bytes(text[1:9], "little"))
            r.expect_exit()
            r.set(rip=r.code)
            stop = r.run()
            assert stop.why is (Why.FAULT if text is cpuid else Why.ENCLU)


def test_code_that_the_model_writes_runs_as_written() -> None:
    """EACCEPTCOPY to an address and an EPC page where other code has run before."""
    with rig("1: call rdi; enclu; jmp 1b") as r:
        target, lp = r.enclave.heap, r.lp()
        for value in (7, 8):
            page = r.enclave.eaug(target)
            r.enclave.enter(lp) if lp.secs is None else None
            lp.store(r.enclave.data[1], assemble(RETURNS.format(value)))
            assert r.enclave.eacceptcopy(target, r.enclave.data[1], REG | R | X, lp) == 0
            r.set(rip=r.code, rdi=target, rsp=r.data + 0x800)
            r.expect_exit()
            assert r.get("rax") == value
            assert r.bare.emodt(page, TRIM) == 0
            assert r.bare.etrack(r.enclave.secs) == 0
            r.reenter()
            assert r.enclave.eaccept(target, TRIM | MODIFIED, lp) == 0
            r.processor.space.unmap(target)
            assert r.bare.eremove(page) == 0
            r.bare._next = page
            r.reenter()


def test_an_illegal_instruction_in_another_epc_page_at_the_same_address_is_ud() -> None:
    """Blocks are known by their address: a page that was removed and came again, with other
    contents, is looked at again."""
    with rig("1: call rdi; enclu; jmp 1b") as r:
        target, lp = r.enclave.heap, r.lp()
        for text in ("inc rcx; nop; ret", "cpuid; inc rcx; ret"):
            page = r.enclave.eaug(target)
            lp.store(r.enclave.data[1], assemble(text))
            assert r.enclave.eacceptcopy(target, r.enclave.data[1], REG | R | X, lp) == 0
            r.set(rip=r.code, rdi=target, rsp=r.data + 0x800)
            if "cpuid" in text:
                assert r.fault().vector == faults.UD
                continue
            r.expect_exit()
            assert r.bare.emodt(page, TRIM) == 0
            assert r.bare.etrack(r.enclave.secs) == 0
            r.reenter()
            assert r.enclave.eaccept(target, TRIM | MODIFIED, lp) == 0
            r.processor.space.unmap(target)
            assert r.bare.eremove(page) == 0
            r.reenter()
            assert r.bare.free_page() != page


def test_code_written_on_one_engine_runs_as_written_on_another() -> None:
    """Two processes after fork share an enclave; each has an emulator with translated code.

    The story: whichever looked first took the news that code had changed away from the other; and
    what one wrote to a page that it could write already was never news at all.
    """
    with rig(JIT, lps=2, code_rights=R | W | X) as r:
        other = Emulator(r.memory, r.host, r.doorbell, r.processor.part)
        registers = {"rsp": r.data + 0x800, "rdx": r.data}
        for value in (3, 4, 5, 6):
            r.set(0, rip=r.code, rdi=r.code + 0x800, rsi=_code(value), **registers)
            r.expect_exit(0)
            assert r.peek(r.data) == value
            r.set(1, rip=r.code + 3, rdi=r.code + 0x800, rax=0, **registers)
            assert other.run(r.lp(1)).why is Why.ENCLU
            assert r.peek(r.data) == value
        other.close()


# What the emulator asks for


@pytest.mark.parametrize("apart", [1, 32, 64, 128])
@pytest.mark.parametrize("text", ["rep movsb", "1: mov al, [rsi]; mov [rdi], al; dec rcx; jne 1b"])
def test_pages_that_share_a_slot_of_the_emulators_tlb(text: str, apart: int) -> None:
    """Each page is asked for a few times, not for each byte.

    The story: a hook for stores, of whatever kind, kept the emulator from taking a translation back
    from its victim TLB. Between pages 64 or 128 apart `rep movsb` took 2.5 us a byte.
    """
    with rig(f"{text}; enclu") as r:
        source, target = r.enclave.heap, r.enclave.heap + apart * PAGE_SIZE
        for page in (source, target):
            r.enclave.eaug(page)
            assert r.enclave.eaccept(page, REG | R | W | PENDING, r.lp()) == 0
        r.set(rsi=source, rdi=target, rcx=PAGE_SIZE)
        r.expect_exit()
        assert r.engine.fills < 30


# Memory of the host


def test_stores_to_the_host_are_seen_at_once_and_loads_after_a_slice() -> None:
    pages = HostPages(1)
    with rig("1: mov [rdi], rax; 2: cmp rbx, [rdi + 8]; je 2b; mov rcx, [rdi + 8]; enclu") as r:
        r.set(rdi=pages.address, rax=77, rbx=0)
        assert r.run().why is Why.BUDGET
        assert pages.word() == 77
        pages.map[8:16] = (88).to_bytes(8, "little")
        r.expect_exit()
        assert r.get("rcx") == 88


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("offset", [-15, -9, -8, -7, -4, -3, -2, -1, 0])
def test_accesses_of_every_width_at_the_edge_of_a_page(size: int, offset: int) -> None:
    """Copied from host to host by the enclave, through a register of the width.

    The story: a store over the edge was compared with one copy, found stale, and tried for ever.
    """
    register = {1: "al", 2: "ax", 4: "eax", 8: "rax", 16: "xmm0"}[size]
    move = "movdqu" if size == 16 else "mov"
    pages = HostPages(4)
    pages.map[:] = bytes(n * 7 & 0xFF for n in range(len(pages.map)))
    expected = bytearray(pages.map[:])
    source, target = PAGE_SIZE + offset, 3 * PAGE_SIZE + offset
    expected[target : target + size] = expected[source : source + size]
    with rig(f"{move} {register}, [rsi]; {move} [rdi], {register}; enclu") as r:
        r.set(rsi=pages.address + source, rdi=pages.address + target)
        r.expect_exit()
    assert pages.map[:] == bytes(expected)


def test_a_store_to_a_read_only_page_of_the_host() -> None:
    """#PF with P; nothing is written, although a debugger's interface could."""
    pages = HostPages(1)
    pages.map[0:8] = b"original"
    pages.protect(mmap.PROT_READ)
    with rig(STORE) as r:
        r.set(rdi=pages.address + 8, rax=1)
        fault = r.fault()
        assert (fault.vector, fault.code, fault.address) == (faults.PF, 0x7, pages.address + 8)
        assert pages.word(8) == 0


def test_a_page_of_the_host_that_becomes_read_only_is_seen_in_the_next_slice() -> None:
    """The story: with a translation for writing that was kept, a store went through /proc/pid/mem,
    which checks no rights, and changed read-only pages of the program."""
    pages = HostPages(1)
    with rig(STORE) as r:
        r.set(rdi=pages.address, rax=1)
        r.expect_exit()
        pages.protect(mmap.PROT_READ)
        r.set(rip=r.code, rax=2)
        fault = r.fault()
        assert (fault.code, fault.address) == (0x7, pages.address)
        assert pages.word() == 1
        pages.protect(mmap.PROT_READ | mmap.PROT_WRITE)
        r.resume()
        r.expect_exit()
        assert pages.word() == 2


def test_a_page_of_the_host_that_is_gone_in_the_next_slice() -> None:
    pages = HostPages(1)
    with rig(LOAD) as r:
        r.set(rdi=pages.address)
        r.expect_exit()
        pages.protect(0)
        r.set(rip=r.code)
        fault = r.fault()
        assert (fault.code, fault.address) == (PF_READ, pages.address)
        pages.protect(mmap.PROT_READ | mmap.PROT_WRITE)
        r.resume()
        r.expect_exit()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("mov rax, [rdi]", 8),
        ("movdqu xmm0, [rdi]", 16),
        ("mov [rdi], rax", 8),
        ("mov ax, [rdi]", 2),
    ],
)
def test_an_access_over_the_end_of_a_mapping(text: str, size: int) -> None:
    """The address of the fault is where the second page begins; the last whole one works."""
    pages = HostPages(2)
    pages.protect(0, first=1)
    end = pages.address + PAGE_SIZE
    with rig(f"{text}; enclu") as r:
        r.set(rdi=end - size, rax=5)
        r.expect_exit()
        for over in range(1, size):
            r.set(rip=r.code, rdi=end - size + over, rax=MASK64)
            fault = r.fault()
            assert (fault.vector, fault.address) == (faults.PF, end), over
            r.resume()
        if "[rdi], rax" not in text:
            return
        assert pages.word(PAGE_SIZE - 8) == 5, "a store that faults writes nothing"


@pytest.mark.parametrize("code", ["mov [rdi], rax", "lock add [rdi], rax", "movdqu [rdi], xmm0"])
def test_a_store_into_a_read_only_second_page_writes_nothing(code: str) -> None:
    pages = HostPages(2)
    pages.map[PAGE_SIZE] = 0  # the page is there
    pages.protect(mmap.PROT_READ, first=1)
    with rig(code) as r:
        r.set(rdi=pages.address + PAGE_SIZE - 4, rax=MASK64)
        r.lp().x.legacy = bytes(160) + b"\xff" * 256 + bytes(96)
        fault = r.fault()
        assert (fault.code, fault.address) == (0x7, pages.address + PAGE_SIZE)
    assert not any(pages.map[:])


def test_more_pages_of_the_host_than_copies_in_one_slice() -> None:
    """A loop reads and writes 1500 pages; each is right afterwards."""
    count = 1500
    pages = HostPages(count)
    for page in range(count):
        pages.map[page * PAGE_SIZE : page * PAGE_SIZE + 8] = page.to_bytes(8, "little")
    text = """
        xor     eax, eax
1:      add     rax, [rdi]
        mov     [rdi + 8], rcx
        add     rdi, 4096
        dec     rcx
        jne     1b
        enclu
    """
    assert count > hostmem.SHADOWS
    with rig(text) as r:
        r.set(rdi=pages.address, rcx=count)
        assert r.run().why is Why.ENCLU
        assert r.get("rax") == count * (count - 1) // 2
        assert all(pages.word(n * PAGE_SIZE + 8) == count - n for n in range(count))


@pytest.mark.parametrize("instruction", ["rep movsq", "rep movsb", "rep stosd", "std; rep movsq"])
@pytest.mark.parametrize("skew", [0, 3])
def test_one_string_instruction_over_more_pages_than_copies(
    monkeypatch: pytest.MonkeyPatch, instruction: str, skew: int
) -> None:
    """Also where elements lie across two pages, which no whole page has.

    The story: of such an element one byte was stored, then all of it again, for ever.
    """
    monkeypatch.setattr(hostmem, "SHADOWS", 16)
    down = "std" in instruction
    half = (1 if down else 20) * PAGE_SIZE
    pages = HostPages(42)
    content = bytes(n * 7 & 0xFF for n in range(half))
    pages.map[:half] = content
    width = {"b": 1, "d": 4, "q": 8}[instruction[-1]]
    stos = "stos" in instruction
    expected = b"\x04\x03\x02\x01" * (half // 4) if stos else content
    with rig(f"{instruction}; enclu") as r:
        last = half - 8 if down else 0
        to = pages.address + half + skew
        r.set(rsi=pages.address + last, rdi=to + last, rcx=half // width, rax=0x01020304)
        r.expect_exit()
        assert r.get("rcx") == 0
        assert r.get("rdi") == to + (-8 if down else half)
    assert pages.map[half + skew : 2 * half + skew] == expected
    assert not any(pages.map[half : half + skew])


def test_a_string_store_that_runs_into_a_read_only_page() -> None:
    """It has stored up to that page, and the registers say so."""
    pages = HostPages(3)
    pages.map[PAGE_SIZE] = 0  # the page is there
    pages.protect(mmap.PROT_READ, first=1)
    with rig("rep stosb; enclu") as r:
        r.set(rdi=pages.address + 100, rcx=8000, rax=0x55)
        fault = r.fault()
        assert (fault.code, fault.address) == (0x7, pages.address + PAGE_SIZE)
        r.resume()
        assert r.get("rdi") == pages.address + PAGE_SIZE
        assert r.get("rcx") == 8000 - (PAGE_SIZE - 100)
        assert pages.map[:PAGE_SIZE] == bytes(100) + b"\x55" * (PAGE_SIZE - 100)


def test_no_room_for_a_copy_in_a_block_with_an_illegal_instruction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The story: such a block runs up to that instruction by a way of its own, which knew neither
    of full copies nor of stale ones."""
    monkeypatch.setattr(hostmem, "SHADOWS", 2)
    pages = HostPages(3)
    text = "mov rax, [rdi]; mov rax, [rdi + 4096]; mov [rdi + 8192], rax; cpuid"
    with rig(text) as r:
        r.set(rdi=pages.address)
        assert r.fault().vector == faults.UD


# Locked instructions


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("lock inc qword ptr [rdi]", 101),
        ("lock xadd [rdi], rsi", 105),
        ("lock bts qword ptr [rdi], 1", 102),
        ("xchg [rdi], rsi", 5),
        ("lock cmpxchg [rdi], rsi", 100),
    ],
)
def test_what_the_host_stores_between_load_and_store_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, text: str, result: int
) -> None:
    """The word was 1 in the copy; it becomes 100 just before the enclave stores. Only once: the
    instruction, executed again, works on 100. CMPXCHG compares with 1, and must fail then."""
    pages = HostPages(1)
    pages.map[0] = 1
    store = hostmem.HostMemory.store_locked

    def late(host: hostmem.HostMemory, offset: int, data: bytes) -> hostmem.Stored:
        if pages.map[0] == 1:
            pages.map[0] = 100
        return store(host, offset, data)

    monkeypatch.setattr(hostmem.HostMemory, "store_locked", late)
    with rig(f"mov r8, rax; {text}; setz cl; enclu") as r:
        r.set(rdi=pages.address, rsi=5, rax=1)
        r.expect_exit()
        assert pages.word() == result
        if "cmpxchg" in text:
            assert (r.get("rax"), r.get("rcx") & 1) == (100, 0)
        elif "rsi" in text:
            assert r.get("rsi") == 100, "what was there, not what the copy had"


def test_increments_of_two_emulators_on_host_memory_add_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two processes that share memory outside, each with an engine; they take turns."""
    monkeypatch.setattr(control, "SLICE_BLOCKS", 7)
    pages = HostPages(1)
    with rig("1: lock inc qword ptr [rdi]; dec rcx; jne 1b; enclu", lps=2) as r:
        host = hostmem.HostMemory(r.host.pid, lambda address: False)
        other = Emulator(r.memory, host, r.doorbell, r.processor.part)
        left = {0: r.engine, 1: other}
        for number in left:
            r.set(number, rdi=pages.address, rcx=500)
        while left:
            for number, engine in list(left.items()):
                if engine.run(r.lp(number)).why is Why.ENCLU:
                    del left[number]
        assert pages.word() == 1000
        other.close()
        host.close()


@pytest.mark.parametrize("by_file", [False, True])
def test_all_copies_of_host_pages_are_renewed_at_once(
    monkeypatch: pytest.MonkeyPatch, by_file: bool
) -> None:
    """Ten pages that the enclave has touched; one is unmapped, and the others are renewed."""
    monkeypatch.setattr(WAYS, "memory_by_file", by_file)
    pages = HostPages(10)
    text = "1: mov rax, [rdi]; add rdi, rsi; dec rcx; jne 1b; enclu; jmp 1b"
    with rig(text) as r:
        for value in (1, 2, 3):
            for page in range(10):
                pages.map[page * PAGE_SIZE] = value + page
            if value == 3:
                pages.protect(0, 4)
            r.set(rip=r.code, rdi=pages.address, rsi=PAGE_SIZE, rcx=10 if value < 3 else 4)
            r.expect_exit()
            assert r.get("rax") == value + (9 if value < 3 else 3)
        r.set(rip=r.code, rdi=pages.address + 4 * PAGE_SIZE, rcx=1)
        assert r.fault().vector == faults.PF
