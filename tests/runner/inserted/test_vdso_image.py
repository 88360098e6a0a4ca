"""The vDSO image as files are read, and as real programs take it from AT_SYSINFO_EHDR."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile

from softsgx.runner.code.elf_dynamic import (
    Symbol,
    defined_symbols,
    gnu_hash,
    gnu_hash_order,
    notes,
    sysv_hash,
)
from softsgx.runner.host.abi import AT_SYSINFO_EHDR
from softsgx.runner.inserted.layout import STUB, VDSO, VDSO_SIZE_MAX
from softsgx.runner.inserted.mailboxes import Mailboxes
from softsgx.runner.inserted.stub import stub_image
from softsgx.runner.inserted.vdso import FUNCTION_NAME, vdso_image
from softsgx.spec.registers import RCX, RDI, RIP
from tests.patience import until
from tests.runner.inserted.harness import compile_c

ELSEWHERE = 0x7FFF_1234_5000
getauxval = ctypes.CDLL(None).getauxval
getauxval.restype = ctypes.c_ulong
REAL_BASE = int(getauxval(ctypes.c_ulong(AT_SYSINFO_EHDR)))
needs_vdso = pytest.mark.skipif(not REAL_BASE, reason="this kernel shows no vDSO")


def real_vdso() -> bytes:
    """This process's own, every page of it."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        if line.endswith("[vdso]"):
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            assert start == REAL_BASE
            return ctypes.string_at(start, end - start)
    raise AssertionError("no [vdso]")


def small_vdso(tmp_path: Path, *options: str) -> bytes:
    """A shared object with three functions, one of them the kernel's SGX function."""
    source = tmp_path / "small.c"
    names = ("__vdso_time", "time", FUNCTION_NAME.decode())
    source.write_text("".join(f"int {name}(void) {{ return 1; }}\n" for name in names))
    output = tmp_path / "small.so"
    command = ["gcc", "-shared", "-nostdlib", "-fPIC", *options, str(source), "-o", str(output)]
    subprocess.run(command, check=True)
    return output.read_bytes()


def test_sysv_hash_is_the_one_of_the_abi() -> None:
    # vd_hash in the vDSO of every Linux.
    assert sysv_hash(b"LINUX_2.6") == 0x3AE75F6


@pytest.mark.parametrize(("name", "wanted"), [(b"", 5381), (b"printf", 0x156B2BB8)])
def test_gnu_hash_is_the_one_of_the_linker(name: bytes, wanted: int) -> None:
    assert gnu_hash(name) == wanted


@pytest.mark.parametrize("count", [0, 1, 2, 7, 60])
def test_every_symbol_is_in_both_hash_tables(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not symbol_{n}: pyelftools loses its place where two hashes differ in the last bit only.
    names = [f"{n}_symbol" for n in range(count)]
    symbols = [Symbol(name.encode(), 0x12, 0, 8 * n, 8) for n, name in enumerate(names)]
    monkeypatch.setattr("softsgx.runner.inserted.vdso.defined_symbols", lambda _: symbols)
    monkeypatch.setattr("softsgx.runner.inserted.vdso.notes", lambda _: [])
    elf = ELFFile(BytesIO(vdso_image(b"any", 0, VDSO, STUB).image))
    for section in (".hash", ".gnu.hash"):
        table: Any = elf.get_section_by_name(section)
        assert table.get_number_of_symbols() == count + 2
        for name in (*names, FUNCTION_NAME.decode()):
            found = table.get_symbol(name)
            assert found is not None, (section, name)
            assert found.name == name
        assert table.get_symbol("60_symbol") is None
    every = [s.name for s in symbols] + [FUNCTION_NAME]
    dynsym: Any = elf.get_section_by_name(".dynsym")
    assert [s.name.encode() for s in dynsym.iter_symbols()][1:] == gnu_hash_order(every)


def notes_of(image: bytes) -> list[tuple[Any, ...]]:
    """As pyelftools reads them, from the segment and from the section, which are the same."""
    elf: Any = ELFFile(BytesIO(image))
    (segment,) = [s for s in elf.iter_segments() if s["p_type"] == "PT_NOTE"]
    section = elf.get_section_by_name(".note")
    assert section is not None
    assert (section["sh_type"], section.data()) == ("SHT_NOTE", segment.data())
    assert (segment["p_align"], segment["p_flags"]) == (4, 4)
    return [(note["n_name"], note["n_type"], note["n_descdata"]) for note in segment.iter_notes()]


@needs_vdso
def test_the_notes_are_the_real_ones_but_for_the_build_id() -> None:
    """ld.so and programs read the version of the kernel there; debuggers know images by the id."""
    real, made = notes_of(real_vdso()), notes_of(vdso_image(real_vdso(), 0, VDSO, STUB).image)
    *kept, build_id = made
    assert kept == [note for note in real if note[1] != "NT_GNU_BUILD_ID"]
    assert any(name == "Linux" and kind in (0, "NT_VERSION") for name, kind, _ in kept)
    assert build_id[:2] == ("GNU", "NT_GNU_BUILD_ID")
    assert len(build_id[2]) == 20
    assert build_id not in real


def test_images_that_differ_have_different_build_ids() -> None:
    made = [vdso_image(b"", 0, VDSO, target).image for target in (STUB, STUB, STUB + 64)]
    one, again, other = (notes_of(image)[-1][2] for image in made)
    assert one == again
    assert one != other
    assert [note.type for note in notes(made[0])] == [3]


@pytest.mark.parametrize("real", [b"", pytest.param("own", marks=needs_vdso)])
def test_the_function_is_found_in_every_way(real: bytes | str) -> None:
    memory = real_vdso() if isinstance(real, str) else real
    made = vdso_image(memory, ELSEWHERE, VDSO, STUB)
    assert len(made.image) <= VDSO_SIZE_MAX
    elf = ELFFile(BytesIO(made.image))
    offset = made.function - VDSO
    assert elf["e_type"] == "ET_DYN"
    loads = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
    assert [(s["p_vaddr"], s["p_filesz"], s["p_flags"]) for s in loads] == [(0, len(made.image), 5)]

    name = FUNCTION_NAME.decode()
    by_sections: Any = elf.get_section_by_name(".dynsym")
    assert [s["st_value"] for s in by_sections.get_symbol_by_name(name)] == [offset]
    dynamic: Any = next(s for s in elf.iter_segments() if s["p_type"] == "PT_DYNAMIC")
    assert not dynamic["p_flags"] & 2, "a loader would relocate it in place"
    by_hash: Any = elf.get_section_by_name(".hash")
    assert by_hash.get_symbol(name)["st_value"] == offset
    assert [s["st_value"] for s in dynamic.iter_symbols() if s.name == name] == [offset]
    versym: Any = elf.get_section_by_name(".gnu.version")
    assert {versym.get_symbol(i)["ndx"] for i in range(1, by_sections.num_symbols())} == {2}
    verdef: Any = elf.get_section_by_name(".gnu.version_d")
    names = [[aux.name for aux in auxiliaries] for _, auxiliaries in verdef.iter_versions()]
    assert names == [["linux-vdso.so.1"], ["LINUX_2.6"]]
    assert {s.name for s in elf.iter_sections()} >= {".text", ".shstrtab", ".dynstr"}


def test_the_code_does_not_depend_on_the_real_vdso() -> None:
    """So one control page, with one AEP, serves processes of every kind."""
    bare = vdso_image(b"", 0, VDSO, STUB)
    if REAL_BASE:
        assert vdso_image(real_vdso(), REAL_BASE, VDSO, STUB)[1:] == bare[1:]
    at = bare.enclu - VDSO
    assert bare.image[at] == 0xEB, "a short jump"
    assert bare.enclu + 2 + bare.image[at + 1] == bare.jump
    assert bare.image[at + 2] == 0x90, "three bytes in all, as ENCLU has"
    jump = bare.jump - VDSO
    distance = int.from_bytes(bare.image[jump + 1 : jump + 5], "little", signed=True)
    assert (bare.image[jump], bare.jump + 5 + distance) == (0xE9, STUB)


def test_unwinders_find_the_function() -> None:
    made = vdso_image(b"", 0, VDSO, STUB)
    elf = ELFFile(BytesIO(made.image))
    entries = [e for e in elf.get_dwarf_info().EH_CFI_entries() if isinstance(e, FDE)]
    (fde,) = entries
    assert fde["initial_location"] == made.function - VDSO
    header = next(s for s in elf.iter_segments() if s["p_type"] == "PT_GNU_EH_FRAME")
    data = header.data()
    at = int(header["p_vaddr"])
    words = [int.from_bytes(data[i : i + 4], "little", signed=True) for i in range(4, 20, 4)]
    frames = elf.get_section_by_name(".eh_frame")
    assert frames is not None
    assert at + 4 + words[0] == frames["sh_addr"]
    assert words[1] == 1
    assert at + words[2] == made.function - VDSO
    assert at + words[3] == frames["sh_addr"] + fde.offset


@needs_vdso
def test_every_symbol_of_the_real_vdso_is_there_and_where_it_was() -> None:
    real = real_vdso()
    symbols = {s.name: s for s in defined_symbols(real)}
    assert b"__vdso_clock_gettime" in symbols
    made = vdso_image(real, ELSEWHERE, VDSO, STUB)
    for symbol in defined_symbols(made.image):
        if symbol.name != FUNCTION_NAME:
            before = symbols.pop(symbol.name)
            assert (VDSO + symbol.value) % (1 << 64) == ELSEWHERE + before.value
            assert symbol[1:3] == before[1:3]
    assert set(symbols) <= {FUNCTION_NAME}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
@pytest.mark.parametrize("style", ["sysv", "gnu", "both"])
def test_vdsos_with_either_hash_and_with_an_sgx_function(tmp_path: Path, style: str) -> None:
    real = small_vdso(tmp_path, f"-Wl,--hash-style={style}")
    made = vdso_image(real, ELSEWHERE, VDSO, STUB)
    found = {s.name: VDSO + s.value for s in defined_symbols(made.image)}
    assert set(found) == {b"__vdso_time", b"time", FUNCTION_NAME}
    assert found[FUNCTION_NAME] == made.function


@pytest.mark.parametrize("broken", [b"x", b"\x7fELF\2\1\1", b"\x7fELF\1\1\1" + bytes(200)])
def test_what_is_no_vdso_is_refused(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"ELF image|shared object"):
        vdso_image(broken, 0, VDSO, STUB)


def test_an_image_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [Symbol(b"symbol%d" % i, 0x12, 0, 8 * i, 8) for i in range(1000)]
    monkeypatch.setattr("softsgx.runner.inserted.vdso.defined_symbols", lambda image: many)
    monkeypatch.setattr("softsgx.runner.inserted.vdso.notes", lambda image: [])
    with pytest.raises(ValueError, match="reserved"):
        vdso_image(b"real", 0, VDSO, STUB)


@contextmanager
def launched(
    directory: Path, launcher: Path, program: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Mailboxes]]:
    """Run a program with the image of this kernel's vDSO, the stub and a mailbox."""
    mailboxes = Mailboxes()
    vdso, stub = directory / "vdso.so", directory / "stub.bin"
    vdso.write_bytes(b"")
    stub.write_bytes(stub_image())
    fd = os.dup(mailboxes.fd)
    command = [str(launcher), str(vdso), str(stub), str(fd), str(program)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, pass_fds=[fd]) as process:
        os.close(fd)
        assert process.stdin is not None
        assert process.stdout is not None
        pid, base = (int(word) for word in process.stdout.readline().split())
        made = vdso_image(real_vdso(), base, VDSO, STUB)
        vdso.write_bytes(made.image)
        mailboxes.control.aep = made.enclu
        assert mailboxes.control.insert(pid) is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        yield process, mailboxes
    mailboxes.close()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    @cache
    def compile_program(source: str, *options: str) -> Path:
        compiler = "g++" if source.endswith(".cc") else "gcc"
        if shutil.which(compiler) is None:
            pytest.skip(f"no {compiler}")
        directory = tmp_path_factory.mktemp("programs")
        return compile_c(directory, source, *options, name="program", compiler=compiler)

    return compile_program


@needs_vdso
@pytest.mark.parametrize("link", [(), ("-static",), ("-no-pie",)], ids=["pie", "static", "no-pie"])
def test_libc_takes_the_image_for_the_vdso(
    tmp_path: Path, compiled: Callable[..., Path], link: tuple[str, ...]
) -> None:
    program = compiled("clock.c", *link)
    alone = subprocess.run([str(program)], capture_output=True, check=False)
    with launched(tmp_path, compiled("launch.c"), program) as (process, _):
        assert process.stdout is not None
        assert int(process.stdout.readline(), 16) == VDSO
        # 0 where clock_gettime needs no system call; then it must not need one here either.
        assert process.wait() == alone.returncode
    assert alone.returncode in (0, 1)


@needs_vdso
@pytest.mark.parametrize("link", [(), ("-static-libgcc", "-static-libstdc++")])
def test_exceptions_of_a_handler_go_through_the_function(
    tmp_path: Path, compiled: Callable[..., Path], link: tuple[str, ...]
) -> None:
    program = compiled("throws.cc", *link)
    with launched(tmp_path, compiled("launch.c"), program) as (process, mailboxes):

        def ended() -> bool:
            for mailbox in mailboxes.wait(0.1):
                registers = list(mailboxes.boxes[mailbox].registers)
                registers[RDI], registers[RIP] = 42, registers[RCX] + 3
                mailboxes.reply(mailbox, registers)
            return process.poll() is not None

        until(ended, "the end of the program")
        assert process.wait() == 0
        assert mailboxes.control.doorbell == 1
