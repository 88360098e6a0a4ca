"""From a signal and an instruction to an exception: `softsgx.runner.native.faults`."""

import signal
import struct

import pytest

from softsgx.cpu import Bare, LogicalProcessor
from softsgx.mem.pagetable import PTE_PFN_MASK
from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.runner.code.maddr import memory_operands
from softsgx.runner.native import faults as nf
from softsgx.spec import faults
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.registers import RBP, RBX, RCX, RDI, RIP, RSI, RSP


@pytest.fixture(scope="module")
def lp() -> LogicalProcessor:
    bare = Bare(32)
    enclave = bare.enclave()
    enclave.enter()
    lp = bare.processor.lps[0]
    CODE.append(enclave.data[0])
    return lp


CODE: list[int] = []


def put(lp: LogicalProcessor, code: str, offset: int = 0x100) -> int:
    """Put code into a page of the enclave, and RIP there; the address of the page."""
    page = CODE[0]
    at = lp.space.lookup(page) & PTE_PFN_MASK | offset
    lp.processor.memory.write(at, bytes.fromhex(code))
    lp.regs[RIP] = page + offset
    return page


A, B, STACK = 0x5000_0010, 0x6000_0020, 0x7000_0000


@pytest.mark.parametrize(
    ("name", "code", "address", "access"),
    [
        ("mov rax, [rcx]", "488b01", A, READ),
        ("mov [rcx], rax", "488901", A, WRITE),
        ("add [rcx], rax", "480101", A, WRITE),
        ("cmp [rcx], 0", "833900", A, READ),
        ("test [rcx], eax", "8501", A, READ),
        ("xchg [rcx], eax", "8701", A, WRITE),
        ("lock cmpxchg [rcx], rdx", "f0480fb111", A, WRITE),
        ("cmpxchg16b [rcx]", "480fc709", A, WRITE),
        ("lock inc [rcx]", "f0ff01", A, WRITE),
        ("movups [rcx], xmm0", "0f1101", A, WRITE),
        ("movups xmm0, [rcx]", "0f1001", A, READ),
        ("movntdq [rcx], xmm2", "660fe711", A, WRITE),
        ("movnti [rcx], eax", "0fc301", A, WRITE),
        ("vmovups [rcx], ymm0", "c5fc1101", A, WRITE),
        ("vmovups ymm0, [rcx]", "c5fc1001", A, READ),
        ("fxsave [rcx]", "0fae01", A, WRITE),
        ("fxrstor [rcx]", "0fae09", A, READ),
        ("xsave [rcx], its third page", "0fae21", A + 0x800, WRITE),
        ("fld [rcx]", "d901", A, READ),
        ("fistp [rcx]", "df39", A, WRITE),
        ("div [rcx]", "48f731", A, READ),
        ("bt [rcx], eax", "0fa301", A, READ),
        ("bts [rcx], eax", "0fab01", A, WRITE),
        ("movsb, its source", "a4", B, READ),
        ("movsb, its destination", "a4", A, WRITE),
        ("rep movsq, its destination", "f348a5", A, WRITE),
        ("cmpsb", "a6", A, READ),
        ("push [rcx], its source", "ff31", A, READ),
        ("push [rcx], the stack", "ff31", STACK - 8, WRITE),
        ("push rax", "50", STACK - 8, WRITE),
        ("call", "e800000000", STACK - 8, WRITE),
        ("pop rax", "58", STACK, READ),
        ("pop [rcx]", "8f01", A, WRITE),
        ("ret", "c3", STACK, READ),
    ],
)
def test_the_instruction_says_what_the_access_was(
    lp: LogicalProcessor, name: str, code: str, address: int, access: int
) -> None:
    put(lp, code)
    lp.regs[RCX] = lp.regs[RDI] = A
    lp.regs[RSI], lp.regs[RSP], lp.regs[RBP] = B, STACK, STACK
    assert nf.access_of(lp, address, 0) == access, name


def test_a_fault_at_rip_is_a_fetch_unless_that_page_can_be_executed(lp: LogicalProcessor) -> None:
    page = put(lp, "488905f9ffffff")  # mov [rip - 7], rax: itself
    assert nf.access_of(lp, page + 0x100, 0) == FETCH
    assert nf.access_of(lp, page + 0x100, READ | FETCH) == WRITE


def test_a_page_that_was_unmapped_for_a_moment_was_fetched(lp: LogicalProcessor) -> None:
    """Rights were added to a page of code for one thread, and another that ran in it stopped at a
    PUSH. That counted as a write to the code, and the program got a #PF with W for no write.
    """
    page = put(lp, "4152")  # push r10
    lp.regs[RSP] = STACK
    assert nf.access_of(lp, page + 0x100, READ | FETCH) == FETCH


def test_an_instruction_that_spans_into_a_missing_page_is_a_fetch(lp: LogicalProcessor) -> None:
    page = put(lp, "48", PAGE_SIZE - 1)
    lp.space.ptes.pop((page + PAGE_SIZE) >> 12, None)
    assert nf.access_of(lp, page + PAGE_SIZE, 0) == FETCH


def info(number: int, code: int, address: int = 0) -> bytes:
    return struct.pack("<iii4xQ", number, 0, code, address).ljust(128, b"\0")


@pytest.mark.parametrize(
    ("name", "code", "number", "si_code", "vector"),
    [
        ("ud2", "0f0b", signal.SIGILL, 2, faults.UD),
        ("hlt", "f4", signal.SIGSEGV, 0x80, faults.GP),
        ("in al, dx", "ec", signal.SIGSEGV, 0x80, faults.UD),
        ("rdpmc", "0f33", signal.SIGSEGV, 0x80, faults.UD),
        ("int 40h", "cd40", signal.SIGSEGV, 0x80, faults.UD),
        ("mov rax, [rcx], not canonical", "488b01", signal.SIGSEGV, 0x80, faults.GP),
        ("div", "48f7f1", signal.SIGFPE, 1, faults.DE),
        ("divps", "0f5ec0", signal.SIGFPE, 3, faults.XM),
        ("mov rax, [rcx], not aligned", "488b01", signal.SIGBUS, 1, faults.AC),
        ("mov rax, [rbp], not canonical", "488b4500", signal.SIGBUS, 0x80, faults.SS),
    ],
)
def test_signals_become_the_exceptions_that_they_were(
    lp: LogicalProcessor, name: str, code: str, number: int, si_code: int, vector: int
) -> None:
    put(lp, code)
    rip = lp.regs[RIP]
    assert nf.exception(lp, number, info(number, si_code)).vector == vector, name
    assert lp.regs[RIP] == rip


def test_int3_is_an_illegal_instruction_at_its_own_address(lp: LogicalProcessor) -> None:
    put(lp, "cc")
    rip = lp.regs[RIP]
    lp.regs[RIP] += 1
    assert nf.exception(lp, signal.SIGTRAP, info(signal.SIGTRAP, 0x80)).vector == faults.UD
    assert lp.regs[RIP] == rip


def test_outside_elrange_every_exception_is_gp(lp: LogicalProcessor) -> None:
    lp.regs[RIP] = 0x1234
    fault = nf.exception(lp, signal.SIGILL, info(signal.SIGILL, 2))
    assert (fault.vector, fault.rule) == (faults.GP, "ACCESS.01")


@pytest.mark.parametrize(
    ("name", "code", "address"),
    [
        ("mov rax, fs:[28h]", "64488b042528000000", 0x10028),
        ("mov rax, gs:[rcx]", "65488b01", 0x20000 + A),
        ("mov [rip + 60h], rax", "48890560000000", None),
        ("mov rax, [rbx + rcx*8 - 1f0h]", "488b84cb10feffff", B + 8 * A - 0x1F0),
        ("mov eax, [ecx]", "678b01", A),
        ("xsave [rcx]", "0fae21", A),
        ("fld tbyte [rcx]", "db29", A),
        ("push rax", "50", STACK - 8),
    ],
)
def test_the_address_of_an_operand(
    lp: LogicalProcessor, name: str, code: str, address: int | None
) -> None:
    page = put(lp, code)
    lp.regs[RCX], lp.regs[RBX], lp.regs[RSP] = A, B, STACK
    lp.fsbase, lp.gsbase = 0x10000, 0x20000
    operands = memory_operands(lp, bytes.fromhex(code))
    expected = page + 0x100 + 7 + 0x60 if address is None else address
    assert operands, name
    assert operands[0][0] == expected, name
