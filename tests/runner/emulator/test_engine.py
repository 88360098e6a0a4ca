"""The errors U1 to U9 of Unicorn, as enclave code would see them: none is left."""

from __future__ import annotations

import pytest

from softsgx.runner.emulator import control
from softsgx.runner.emulator.blocks import Why
from softsgx.spec import faults
from softsgx.spec.bits import PAGE_SIZE
from tests.runner.emulator.engine_rig import EngineRig, HostPages, assemble, rig
from tests.runner.gcc import needs_gcc
from tests.runner.instructions import EXECUTED, WRONG
from tests.runner.ringing import ring

pytestmark = needs_gcc

LOCKING = """
1:      mov     eax, 1
        xchg    [rdi], eax
        test    eax, eax
        jne     2f
        mov     dword ptr [rdi], 0
        inc     rcx
        jmp     1b
2:      ud2
"""


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
def test_u1_no_instruction_repeats_at_a_stop(monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    """A lock that is taken twice is found taken; 2000 stops, by budget and by doorbell."""
    monkeypatch.setattr(control, "SLICE_BLOCKS", blocks)
    with rig(LOCKING) as r:
        r.set(rdi=r.data, rcx=0)
        reasons = set()
        for n in range(2000):
            if n % 3 == 0:
                ring(r.mailboxes)
            stop = r.run()
            reasons.add(stop.why)
            assert stop.fault is None, n
            r.doorbell.look()
        assert reasons == {Why.BUDGET, Why.DOORBELL}
        assert r.get("rcx") > 100


def test_u1_a_doorbell_in_the_middle_of_a_slice_ends_it() -> None:
    """The enclave rings it itself, by a store to memory that it shares with us."""
    with rig("mov dword ptr [rdi], 1; jmp 1f; 1: inc rcx; jmp 1b") as r:
        r.set(rdi=r.doorbell.address, rcx=0)
        assert r.run().why is Why.DOORBELL
        assert r.get("rcx") <= 1


def test_u2_locked_increments_of_two_threads_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "SLICE_BLOCKS", 7)
    with rig("1: lock inc qword ptr [rdi]; dec rcx; jne 1b; enclu", lps=2) as r:
        left = [0, 1]
        for number in left:
            r.set(number, rdi=r.data, rcx=3000)
        while left:
            for number in list(left):
                if r.run(number).why is Why.ENCLU:
                    left.remove(number)
        assert r.peek(r.data) == 6000


SPIN = """
        test    rbx, rbx
        jne     2f
1:      pause
        cmp     dword ptr [rdi], 0
        je      1b
        enclu
2:      dec     rcx
        jne     2b
        mov     dword ptr [rdi], 1
        enclu
"""


def test_u3_a_thread_that_spins_on_pause_gives_way() -> None:
    """One thread waits for the other with PAUSE: it uses 64 rounds of a turn, not all of it."""
    with rig(SPIN, lps=2) as r:
        r.set(0, rdi=r.data, rbx=0)
        r.set(1, rdi=r.data, rbx=1, rcx=4 * control.SLICE_BLOCKS)
        turns = 0
        while True:
            stop = r.run(0)
            if stop.why is Why.ENCLU:
                break
            assert stop.why is Why.PAUSE
            # What was not used of the turn: all but the rounds of the spinning loop.
            assert r.engine.blocks.left > control.SLICE_BLOCKS - 3 * control.PAUSES
            assert r.run(1).why is (Why.BUDGET if turns < 4 else Why.ENCLU)
            turns += 1
        assert turns == 5


def test_u4_three_divisions_by_zero_are_three_exceptions() -> None:
    with rig("div rcx; enclu") as r:
        r.set(rcx=0)
        for _ in range(3):
            assert r.fault().vector == faults.DE
            assert r.lp().secs is None
            r.resume()
            assert r.get("rip") == r.code


MIXED = "div rcx; mov rax, [rdi]; hlt; ud2; int3; enclu"
VECTORS = [faults.DE, faults.PF, faults.GP, faults.UD, faults.UD]


def test_u4_exceptions_of_all_kinds_follow_each_other() -> None:
    """Each three times, then the next one, as a handler skips an instruction."""
    sizes = [3, 3, 1, 2, 1]
    with rig(MIXED) as r:
        at = r.code
        r.set(rcx=0, rdi=0x1000)
        for vector, size in zip(VECTORS, sizes, strict=True):
            for _ in range(3):
                r.set(rip=at)
                assert r.fault().vector == vector
                r.resume()
                assert r.get("rip") == at
            at += size
        r.set(rip=at)
        r.expect_exit()


VEX = {
    "vpaddd xmm2, xmm0, xmm1": "128",
    "vpxor xmm1, xmm1, xmm1": "128",
    "vmovdqu xmm0, [rdi]": "128 load",
    "vaddsd xmm0, xmm1, xmm2": "scalar",
    "vmovq rax, xmm0": "to a general register",
    "vzeroupper": "without operands",
    "vpaddd ymm2, ymm0, ymm1": "256",
    "vpgatherdd xmm0, [rdi + xmm1], xmm2": "avx2",
    "vfmadd132ps xmm0, xmm1, xmm2": "fma",
    "vcvtph2ps xmm0, xmm1": "f16c",
    "vaesenc xmm0, xmm1, xmm2": "aes",
    "vpclmulqdq xmm0, xmm1, xmm2, 1": "pclmul",
    "vpaddd zmm2, zmm0, zmm1": "avx512",
    "kmovw k1, eax": "opmask",
    "vstmxcsr [rdi]": "state",
}
OTHERS = {
    "sha1nexte xmm0, xmm1": "sha",
    "adcx rax, rbx": "adx",
    "xsavec [rdi]": "xsavec",
    "rdpid rax": "rdpid",
    "clflushopt [rdi]": "clflushopt",
    "clwb [rdi]": "clwb",
    "rdpkru": "pku",
    "movdiri [rdi], eax": "movdiri",
    "serialize": "serialize",
    "gf2p8mulb xmm0, xmm1": "gfni",
}


@pytest.mark.parametrize("feature", WRONG)
def test_u5_what_the_emulator_takes_for_something_else_is_ud(feature: str) -> None:
    with rig(bytes.fromhex("48ffc1" + WRONG[feature]) + b"\x90" * 16) as r:
        r.set(rcx=5, rdi=r.data)
        assert r.fault().vector == faults.UD
        r.resume()
        assert (r.get("rip"), r.get("rcx")) == (r.code + 3, 6)


@pytest.mark.parametrize("instruction", [*VEX, *OTHERS])
def test_u5_u6_what_xfrm_3_excludes_is_ud(instruction: str) -> None:
    """Between legal instructions of one block: those before it execute once, it does not."""
    with rig(f"inc rcx; mov [rdi], rcx; nop; 1: {instruction}; inc rcx; enclu") as r:
        r.set(rcx=5, rdi=r.data)
        before = r.lp().x.legacy
        fault = r.fault()
        assert (fault.vector, fault.code) == (faults.UD, 0)
        r.resume()
        assert r.get("rip") == r.code + 7
        assert (r.get("rcx"), r.peek(r.data)) == (6, 6)
        assert r.lp().x.legacy == before


BMI = {
    "andn rax, rbx, rcx": ~0xF0F0 & 0xFF00FF,
    "bextr rax, rcx, rbx": 0xFF00FF >> 0xF0 & 0,
    "blsi rax, rcx": 1,
    "blsmsk rax, rcx": 1,
    "blsr rax, rcx": 0xFF00FE,
    "bzhi rax, rcx, rdx": 0xFF,
    "mulx rax, rbx, rcx": 0,
    "pdep rax, rcx, rbx": 0xF0F0,
    "pext rax, rcx, rbx": 0x0F,
    "rorx rax, rcx, 8": 0xFF << 56 | 0xFF00,
    "sarx rax, rcx, rdx": 0xFF,
    "shlx rax, rcx, rdx": 0xFF00FF << 16,
    "shrx rax, rcx, rdx": 0xFF,
}


@pytest.mark.parametrize("instruction", BMI)
def test_u5_vex_forms_of_general_registers_compute(instruction: str) -> None:
    with rig(f"1: {instruction}; enclu") as r:
        r.set(rax=0, rbx=0xF0F0, rcx=0xFF00FF, rdx=16)
        r.expect_exit()
        assert r.get("rax") == BMI[instruction]


ILLEGAL = (
    *("cpuid", "getsec", "rdpmc", "sgdt [rdi]", "sidt [rdi]", "sldt eax", "str eax", "vmcall"),
    *("vmfunc", "smsw eax", "smsw [rdi]", "in al, dx", "in eax, 0x80", "insb", "rep insd"),
    *("out dx, al", "out 0x80, eax", "outsb", "rep outsd", "lcall [rdi]", "ljmp [rdi]"),
    *("rex.w lcall [rdi]", "lret", "lret 8", "int 0x80", "int 3", "int3", "int1", "iret"),
    *(
        "iretq",
        ".byte 0x48, 0x0f, 0xb4, 7",
        ".byte 0x48, 0x0f, 0xb5, 7",
        ".byte 0x0f, 0xb2, 7",
        "mov ds, eax",
    ),
    *("mov es, [rdi]", "mov ss, ecx", "mov fs, eax", "mov gs, eax", "pop fs", "pop gs"),
    *("syscall", "sysenter", ".byte 0xce", ".byte 0xc5, 0x00", ".byte 0xc4, 0x00"),
    *(
        "encls",
        "ud2",
        ".byte 0x1f",
        ".byte 0x07",
        "data16 mov ss, eax",
        ".byte 0xf3, 0x0f, 5",
        ".byte 0xf0, 0x0f, 0xa2",
        ".byte 0x48, 0xc5, 0xf1, 0xfe, 0xd0",
    ),
)


@pytest.mark.parametrize("instruction", ILLEGAL)
def test_u7_illegal_inside_is_ud(instruction: str) -> None:
    """The manual's list, and what 64-bit mode does not have; #UD before any effect."""
    with rig(f"{instruction}; inc rcx; enclu") as r:
        r.set(rcx=7, rdi=r.data, rsi=r.data, rsp=r.data + 0x800, rdx=0x80)
        before = list(r.lp().regs)
        fault = r.finish().fault
        assert fault is not None
        assert (fault.vector, r.lp().regs) == (faults.UD, before)
        assert r.peek(r.data) == 0


PRIVILEGED = (
    *("hlt", "cli", "sti", "clts", "invd", "wbinvd", "rdmsr", "wrmsr", "lgdt [rdi]"),
    *("lidt [rdi]", "lldt ax", "ltr ax", "lmsw ax", "mov rax, cr0", "mov cr3, rax"),
    *("mov rax, dr7", "mov dr0, rax", "swapgs", "xsetbv", "invlpg [rdi]"),
)


@pytest.mark.parametrize("instruction", PRIVILEGED)
def test_u7_privileged_instructions_are_gp(instruction: str) -> None:
    """The code runs at CPL 3."""
    with rig(f"mov eax, cs; {instruction}; inc rcx; enclu") as r:
        r.set(rcx=7, rdi=r.data)
        fault = r.finish().fault
        assert fault is not None
        assert (fault.vector, fault.code, r.get("rcx")) == (faults.GP, 0, 7)
        assert r.get("rax") & 3 == 3


def test_u7_int3_after_an_opt_in_entry_is_bp() -> None:
    with rig("inc rcx; int3; enclu", dbgoptin=True) as r:
        r.set(rcx=0)
        fault = r.finish().fault
        assert fault is not None
        assert (fault.vector, r.get("rcx"), r.get("rip")) == (faults.BP, 1, r.code + 3)


def test_u7_popf_does_not_set_tf_after_an_opt_out_entry() -> None:
    with rig("push 0x346; popf; inc rcx; nop; pushf; pop rax; enclu") as r:
        r.set(rcx=0, rsp=r.data + 0x800)
        r.expect_exit()
        assert r.get("rcx") == 1
        # Neither TF nor IF nor IOPL; PF and ZF as they were set until INC changed them.
        assert r.get("rax") & 0x3302 == 0x202


def test_u7_popf_sets_tf_after_an_opt_in_entry() -> None:
    with rig("push 0x302; popf; inc rcx; nop; enclu", dbgoptin=True) as r:
        r.set(rcx=0, rsp=r.data + 0x800)
        fault = r.finish().fault
        assert fault is not None
        assert (fault.vector, r.get("rcx")) == (faults.DB, 1)


@pytest.mark.parametrize("instruction", ["cpuid", "syscall", "sysenter"])
def test_u8_the_registers_are_those_before_the_instruction(instruction: str) -> None:
    with rig(f"nop; nop; jmp 1f; 1: nop; {instruction}; enclu") as r:
        values = {
            name: 0x1111_0000_0000_0000 * n + 0x1234
            for n, name in enumerate(("rax", "rbx", "rcx", "rdx", "r11", "rsi", "rdi"), 1)
        }
        r.set(**values)
        fault = r.fault()
        assert fault.vector == faults.UD
        r.resume()
        assert {name: r.get(name) for name in values} == values
        assert r.get("rip") == r.code + 5


def test_fetch_outside_elrange_is_gp() -> None:
    pages = HostPages(1)
    with rig("jmp rdi") as r:
        r.set(rdi=pages.address)
        fault = r.fault()
        assert (fault.vector, fault.rule) == (faults.GP, "ACCESS.01")
        r.resume()
        assert r.get("rip") == pages.address


@pytest.mark.parametrize("address", [0x8000_0000_0000_0000, 0x0000_8000_0000_0000])
@pytest.mark.parametrize("code", ["mov rax, [rdi]", "mov [rdi], rax", "lock inc dword ptr [rdi]"])
def test_an_address_that_is_not_canonical_is_gp(code: str, address: int) -> None:
    with rig(code) as r:
        r.set(rdi=address)
        fault = r.fault()
        assert (fault.vector, fault.code) == (faults.GP, 0)


WORKS = {
    "rdrand": "1: rdrand rax; jnc 1b; enclu",
    "rdseed": "1: rdseed rax; jnc 1b; enclu",
    "movbe": "mov rcx, 0x0102030405060708; mov [rdi], rcx; movbe rax, [rdi]; enclu",
    "popcnt": "mov rcx, 0xf0f; popcnt rax, rcx; enclu",
    "lzcnt": "mov ecx, 1; bsr eax, ecx; bsf edx, ecx; or eax, edx; enclu",
    "crc32": "mov eax, 0; mov ecx, 1; crc32 eax, ecx; enclu",
    "fsgsbase": (
        "wrfsbase rdi; wrgsbase rsi; rdfsbase rax; mov fs:[8], rsi; add rax, [rdi+8]; enclu"
    ),
    "rdtscp": "rdtscp; rdtsc; mov eax, 1; enclu",
    "xgetbv": "xor ecx, ecx; xgetbv; enclu",
    "endbr64": "endbr64; mov eax, 5; enclu",
}


def _work(name: str, r: EngineRig) -> int:
    r.set(rdi=r.data, rsi=0x1000, rax=0)
    r.expect_exit()
    return r.get("rax")


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("movbe", 0x0807060504030201),
        ("popcnt", 8),
        ("lzcnt", 0),
        ("crc32", 0xDD45AAB8),
        ("rdtscp", 1),
        ("xgetbv", 3),
        ("endbr64", 5),
    ],
)
def test_u9_works(name: str, result: int) -> None:
    with rig(WORKS[name]) as r:
        assert _work(name, r) == result


def test_u9_fsgsbase_and_segment_overrides() -> None:
    with rig(WORKS["fsgsbase"]) as r:
        assert _work("fsgsbase", r) == r.data + 0x1000
        assert (r.lp().fsbase, r.lp().gsbase) == (r.data, 0x1000)


@pytest.mark.parametrize("feature", EXECUTED)
def test_u9_every_announced_feature_executes(feature: str) -> None:
    code = bytes.fromhex("48ffc1" + EXECUTED[feature])
    with rig(code + assemble("enclu")) as r:
        r.set(rcx=0, rax=r.data, rdi=r.data, rsp=r.data, rdx=0)
        if "xsave" in feature:
            r.set(rax=3, rsp=r.data)
        r.set(rcx=2**64 - 1)
        r.expect_exit()
        assert r.get("rip") == r.code + len(code)


@pytest.mark.parametrize("name", ["rdrand", "rdseed"])
def test_u9_random_numbers_differ(name: str) -> None:
    with rig(WORKS[name]) as r:
        values = set()
        for _ in range(4):
            r.set(rip=r.code)
            values.add(_work(name, r))
        assert len(values) == 4


def test_u9_aes_pclmul_and_cmpxchg16b() -> None:
    """One round of FIPS 197 appendix B; (x+1)^2 = x^2+1; one compare succeeds, one fails."""
    text = """
        movdqu  xmm0, [rdi]
        aesenc  xmm0, [rdi + 16]
        movdqu  [rdi + 32], xmm0
        mov     eax, 3
        movq    xmm1, rax
        pclmulqdq xmm1, xmm1, 0
        movq    r8, xmm1
        mov     rax, 0; mov rdx, 0; mov rbx, 0x11; mov rcx, 0x22
        lock cmpxchg16b [rdi + 64]
        sete    r9b
        mov     rax, 1
        lock cmpxchg16b [rdi + 64]
        sete    r10b
        enclu
    """
    block = bytes.fromhex("193de3bea0f4e22b9ac68d2ae9f84808a0fafe1788542cb123a339392a6c7605")
    with rig(text) as r:
        r.set(rdi=r.data, r9=0, r10=0)
        r.lp().store(r.data, block)
        r.expect_exit()
        assert r.lp().load(r.data + 32, 16).hex() == "a49c7ff2689f352b6b5bea43026a5049"
        assert r.get("r8") == 5
        assert (r.get("r9"), r.get("r10")) == (1, 0)
        assert (r.get("rax"), r.get("rdx")) == (0x11, 0x22)


def test_u9_xsave_and_xrstor_follow_xfrm() -> None:
    """XCR0 is XFRM inside: XSAVE writes what it enables, XRSTOR of anything more is #GP."""
    text = """
        mov     eax, 7; xor edx, edx
        movq    xmm3, rdi
        xsave   [rdi]
        pxor    xmm3, xmm3
        xrstor  [rdi]
        movq    rbx, xmm3
        or      qword ptr [rdi + 512], 4
        1: xrstor  [rdi]
        enclu
    """
    with rig(text) as r:
        r.set(rdi=r.data)
        fault = r.fault()
        assert (fault.vector, fault.code) == (faults.GP, 0)
        assert r.peek(r.data + 512) == 7
        r.resume()
        assert r.get("rbx") == r.data


def test_u9_fxsave_and_fxrstor() -> None:
    text = """
        fldpi
        movq    xmm5, rdi
        fxsave64 [rdi]
        fninit
        pxor    xmm5, xmm5
        fxrstor64 [rdi]
        movq    rbx, xmm5
        fstp    qword ptr [rdi + 512]
        enclu
    """
    with rig(text) as r:
        r.set(rdi=r.data)
        r.expect_exit()
        assert r.get("rbx") == r.data
        assert r.peek(r.data + 512) == 0x400921FB54442D18


def test_an_illegal_instruction_over_the_edge_of_a_page() -> None:
    """CPUID with a byte on each page, in the middle of a block."""
    code = b"\x48\xff\xc1" * 1365 + assemble("cpuid; enclu")
    assert len(code) == PAGE_SIZE + 1 + 3
    with rig(code, code_pages=2) as r:
        r.set(rcx=0)
        assert r.fault().vector == faults.UD
        r.resume()
        assert r.get("rip") == r.code + 4095
        assert r.get("rcx") == 1365


def test_a_jump_into_the_middle_of_a_block_that_was_cut() -> None:
    """Code after an illegal instruction is executed when a jump goes there."""
    with rig("inc rcx; inc rcx; cpuid; inc rcx; inc rcx; enclu") as r:
        r.set(rcx=0)
        for _ in range(2):
            assert r.fault().vector == faults.UD
            r.resume()
        r.set(rip=r.code + 8)
        r.expect_exit()
        assert r.get("rcx") == 4
        r.set(rip=r.code + 3)
        assert r.fault().vector == faults.UD
        r.resume()
        assert r.get("rcx") == 5
