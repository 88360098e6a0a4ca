"""Which CPUID and ENCLU bytes of a program are instructions. Patching any other corrupts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from softsgx.runner.code import sites
from softsgx.runner.code.sites import Sites, patchable, scan
from tests.runner.code.small_elfs import PROBE, bare, build, disassembled, strip, symbols


def proven(found: Sites) -> list[tuple[int, str]]:
    assert found.reason == ""
    return [(site.vaddr, site.kind) for site in found.patch]


LINKING = {
    "pie": ["-pie", "-fpie"],
    "dynamic-non-pie": ["-no-pie"],
    "static-non-pie": ["-static", "-no-pie"],
    "static-pie": ["-static-pie", "-fpie"],
    "one-segment": ["-Wl,-z,noseparate-code"],
}


@pytest.mark.parametrize("stripped", [False, True])
@pytest.mark.parametrize("linking", LINKING)
def test_compiled_program(linking: str, stripped: bool, tmp_path: Path) -> None:
    """Every instruction is found, in whatever way the program is linked.

    main itself has three; one more pattern lies inside a `mov`, and in one layout the constant is
    in the executable segment. A static program has those of the C library, too.
    """
    path = build(tmp_path, PROBE, *LINKING[linking])
    if stripped:
        strip(path)
    found = scan(path.read_bytes())
    assert proven(found) == disassembled(path)
    assert [site.kind for site in found.patch if site.kind == "enclu"] == ["enclu"]
    inside = [one for one in found.unproven if one.why.startswith("inside the instruction at ")]
    assert inside
    if linking == "one-segment":
        assert "in no known function" in [one.why for one in found.unproven]
    data = path.read_bytes()
    for site in found.patch:
        assert data[site.offset :].startswith((b"\x0f\xa2", b"\x0f\x01\xd7"))


def test_a_cpuid_in_a_loop_is_found_twice(tmp_path: Path) -> None:
    """The story: a search by the majority of linear sweeps missed the second CPUID of a loop.

    The program then read zeros from the real processor, and found no EPC.
    """
    source = """
    #include <cpuid.h>
    unsigned long total(void)
    {
        unsigned a, b, c, d;
        unsigned long size = 0;
        for (int i = 2;; i++) {
            __cpuid_count(0x12, i, a, b, c, d);
            if (!(a & 0xf))
                return size;
            size += (c & 0xfffff000) + ((unsigned long)(d & 0xfffff) << 32);
        }
    }
    int main(void) { return total() + total() == 0; }
    """
    path = build(tmp_path, source, "-funroll-loops", "-O3")
    found = proven(scan(path.read_bytes()))
    assert found == disassembled(path)
    assert len(found) >= 2


CRYPTO = Path("/usr/lib/x86_64-linux-gnu/libcrypto.so.3")


@pytest.mark.skipif(not CRYPTO.exists(), reason="no libcrypto on this machine")
def test_library_with_data_between_its_functions() -> None:
    """Its tables lie between functions in .text, where even objdump takes them for code."""
    found = scan(CRYPTO.read_bytes())
    listed = disassembled(CRYPTO)
    assert proven(found)
    assert [site for site in proven(found) if site not in listed] == []
    between = [one.vaddr for one in found.unproven if one.why == "in no known function"]
    inside = [one.vaddr for one in found.unproven if one.why.startswith("inside")]
    assert len(found.unproven) == len(between) + len(inside)
    assert {address for address, _ in listed} <= {s.vaddr for s in found.patch} | set(between)


EXIT = "mov $60, %eax\nxor %edi, %edi\nsyscall\n"


def test_asm_program_is_followed_from_its_entry(tmp_path: Path) -> None:
    source = f"""
        .globl _start
        .text
    data_before: .byte 0x0f, 0xa2
    _start:
        test %rsp, %rsp
        je there
        call helper
    one:    cpuid
    two:    enclu
        {EXIT}
    data_behind_exit: .byte 0x0f, 0xa2, 0x0f, 0x01, 0xd7, 0xc3
    helper:
    three:  cpuid
        ret
    data_behind_ret: .byte 0x0f, 0xa2
    there:
    four:   cpuid
        jmp one
        .section .rodata
    constant: .byte 0x0f, 0xa2
    """
    path = bare(tmp_path, source)
    at = symbols(path)
    found = scan(strip(path).read_bytes())
    expected = [(at["one"], "cpuid"), (at["two"], "enclu")]
    expected += [(at["three"], "cpuid"), (at["four"], "cpuid")]
    assert proven(found) == sorted(expected)
    places = [at["data_before"], at["data_behind_exit"], at["data_behind_exit"] + 2]
    assert [one.vaddr for one in found.unproven] == [*places, at["data_behind_ret"]]


def test_data_behind_a_call_that_does_not_return_is_not_believed(tmp_path: Path) -> None:
    """The bytes after the call decode for a while: `cpuid`, then something that is no code."""
    source = f"""
        .globl _start
    _start:
        call die
    data: .byte 0x0f, 0xa2, 0x06, 0x06
    die: {EXIT}
    """
    path = bare(tmp_path, source)
    found = scan(path.read_bytes())
    assert found.patch == ()
    assert [one.vaddr for one in found.unproven] == [symbols(path)["data"]]


def test_overlapping_decodings_prove_nothing(tmp_path: Path) -> None:
    """A jump into the middle of an instruction: one of the two readings would be destroyed."""
    source = f"""
        .globl _start
    _start:
        test %eax, %eax
        je outer + 1
    outer: mov $0x0000a20f, %ecx
        {EXIT}
    """
    found = scan(bare(tmp_path, source).read_bytes())
    assert found.patch == ()
    assert len(found.unproven) == 1


def test_code_that_nothing_leads_to_is_reported(tmp_path: Path) -> None:
    source = f"""
        .globl _start
    _start:
        lea pointed(%rip), %rax
        jmp *%rax
    pointed: cpuid
        {EXIT}
    """
    path = bare(tmp_path, source)
    found = scan(path.read_bytes())
    assert [one.vaddr for one in found.unproven] == [symbols(path)["pointed"]]
    assert found.unproven[0].why == "in no known function"


def test_stub_without_frame_information_is_known_by_its_symbol(tmp_path: Path) -> None:
    source = f"""
        .globl _start
    _start:
        lea stub(%rip), %rax
        call *%rax
        {EXIT}
        .type stub, @function
    stub: enclu
        ret
        .size stub, . - stub
    """
    path = bare(tmp_path, source)
    assert proven(scan(path.read_bytes())) == [(symbols(path)["stub"], "enclu")]


def test_stub_without_anything_is_known_by_the_call_to_it(tmp_path: Path) -> None:
    """An own ENCLU stub as runtimes write it: no .type, no CFI, called from C."""
    (tmp_path / "stub.S").write_text(
        ".globl stub\n.text\nstub: xor %eax, %eax\nenclu: .byte 0x0f, 0x01, 0xd7\nret\n"
        'behind: .byte 0x0f, 0xa2\n.section .note.GNU-stack,""\n'
    )
    source = "int stub(int); int main(int c, char **v) { (void)v; return stub(c) + 1; }"
    path = build(tmp_path, source, str(tmp_path / "stub.S"))
    at = symbols(path)
    found = scan(strip(path).read_bytes())
    assert proven(found) == [(at["enclu"], "enclu")]
    assert [one.vaddr for one in found.unproven] == [at["behind"]]


def test_data_inside_a_function_does_not_hide_what_is_behind_it(tmp_path: Path) -> None:
    source = f"""
        .globl _start
    _start:
        .cfi_startproc
        jmp over
    data: .byte 0x06, 0x06, 0x0f, 0xa2
    over: cpuid
        {EXIT}
        .cfi_endproc
    """
    path = bare(tmp_path, source)
    found = scan(path.read_bytes())
    assert proven(found) == [(symbols(path)["over"], "cpuid")]
    assert [one.vaddr for one in found.unproven] == [symbols(path)["data"] + 2]


@pytest.mark.parametrize("prefix", ["0x66", "0x48", "0xf3"])
def test_cpuid_with_a_prefix_is_one_enclu_is_not(prefix: str, tmp_path: Path) -> None:
    source = f"""
        .globl _start
    _start: .byte {prefix}
        cpuid
        .byte 0x66, 0x0f, 0x01, 0xd7
        {EXIT}
    """
    path = bare(tmp_path, source)
    found = scan(path.read_bytes())
    assert proven(found) == [(symbols(path)["_start"] + 1, "cpuid")]
    assert [one.kind for one in found.unproven] == ["enclu"]


def test_nothing_is_parsed_without_a_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bare(tmp_path, f".globl _start\n_start:\n{EXIT}")
    monkeypatch.setattr(sites, "_prove", pytest.fail)
    assert scan(path.read_bytes()) == Sites()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an ELF file"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (b"\x7fELF\x02\x01\x01", "ELF header cut short"),
        (b"\x7fELF\x01\x01\x01" + bytes(80), "not a 64-bit x86-64 ELF file"),
    ],
)
def test_other_files_have_a_reason(data: bytes, reason: str) -> None:
    assert scan(data) == Sites(reason=reason)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/usr/bin/app", True),
        ("/opt/libc.so.d/app", True),
        ("/usr/lib/x86_64-linux-gnu/libcrypto.so.3", True),
        ("/usr/lib/libcurl.so.4", True),
        ("/usr/lib/libmount.so.1", True),
        ("/tmp/app (deleted)", True),
        ("/lib/x86_64-linux-gnu/libc.so.6", False),
        ("/lib/x86_64-linux-gnu/libm.so.6", False),
        ("/lib/x86_64-linux-gnu/libmvec.so.1", False),
        ("/lib/x86_64-linux-gnu/libpthread.so.0", False),
        ("/lib/x86_64-linux-gnu/libc-2.31.so", False),
        ("/lib64/ld-linux-x86-64.so.2", False),
        ("/lib/x86_64-linux-gnu/ld-2.31.so", False),
        ("/lib/ld-musl-x86_64.so.1", False),
        ("/lib/libc.musl-x86_64.so.1", False),
        ("[vdso]", False),
        ("", False),
    ],
)
def test_the_c_library_keeps_the_real_processor(path: str, expected: bool) -> None:
    assert patchable(path) is expected
