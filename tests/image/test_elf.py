"""Reading ELF: what is accepted, and what is refused with field and byte offset."""

import struct

import pytest

from softsgx.image import ImageError, elf
from softsgx.spec.epcm import R, W, X
from tests.image.builders import (
    DATA,
    DT_JMPREL,
    DT_NEEDED,
    DT_NOTHING,
    DT_PLTRELSZ,
    DT_REL,
    DT_RELA,
    DT_RELASZ,
    DT_RELR,
    E_ENTRY,
    E_MACHINE,
    E_PHENTSIZE,
    E_PHNUM,
    E_PHOFF,
    E_TYPE,
    ET_EXEC,
    P_FILESZ,
    P_FLAGS,
    P_MEMSZ,
    P_OFFSET,
    P_VADDR,
    PF_R,
    PF_W,
    PF_X,
    PT_DYNAMIC,
    PT_INTERP,
    TEXT,
    Seg,
    elf_file,
    phdr_at,
    poke,
)

PROGRAM = elf_file(TEXT, DATA)


def test_loads_entry_and_rights() -> None:
    program = elf.read(elf_file(TEXT, DATA, Seg(0x5000, b"only", PF_X), e_entry=0x1020))
    assert (program.e_type, program.e_entry, program.tcs_section) == ("ET_DYN", 0x1020, False)
    assert [(load.number, load.p_vaddr, load.end, load.rights) for load in program.loads] == [
        (0, 0x1000, 0x112C, R | X),
        (1, 0x2000, 0x3800, R | W),
        (2, 0x5000, 0x5004, X),
    ]
    assert [load.content for load in program.loads] == [TEXT.content, DATA.content, b"only"]


def test_headers_without_memory_are_skipped() -> None:
    empty = Seg(0x9000, b"", PF_W)
    program = elf.read(elf_file(empty, TEXT, Seg(0, b"note", kind=4), e_type=ET_EXEC))
    assert [load.number for load in program.loads] == [1]
    assert program.e_type == "ET_EXEC"


def big(number: int, field: int, value: int) -> bytes:
    return poke(PROGRAM, phdr_at(number, field), value, 8)


# name: (file, message)
REFUSED: dict[str, tuple[bytes, str]] = {
    "short header": (
        PROGRAM[:40],
        "ELF header at byte 0: needs 64 bytes, but the file ends at byte 40",
    ),
    "magic": (b"\x7fEL\0" + PROGRAM[4:], "ELF header, e_ident at byte 0: 7f454c00 is no ELF magic"),
    "32 bits": (
        elf_file(TEXT, ident=b"\x7fELF\x01\x01\x01"),
        "ELF header, EI_CLASS at byte 4: 01 is no 64-bit program (02)",
    ),
    "big endian": (
        elf_file(TEXT, ident=b"\x7fELF\x02\x02\x01"),
        "ELF header, EI_DATA at byte 5: 02 is no little-endian program (01)",
    ),
    "EI_DATA": (
        elf_file(TEXT, ident=b"\x7fELF\x02\x32\x01"),
        "ELF header, EI_DATA at byte 5: 32 is no little-endian program (01)",
    ),
    "machine": (
        poke(PROGRAM, E_MACHINE, 183, 2),
        "ELF header, e_machine at byte 18: EM_AARCH64 is not EM_X86_64",
    ),
    "unknown machine": (
        poke(PROGRAM, E_MACHINE, 0xABCD, 2),
        "ELF header, e_machine at byte 18: 43981 is not EM_X86_64",
    ),
    "relocatable": (
        poke(PROGRAM, E_TYPE, 1, 2),
        "ELF header, e_type at byte 16: ET_REL is neither ET_EXEC nor ET_DYN: link it first",
    ),
    "e_phentsize": (
        poke(PROGRAM, E_PHENTSIZE, 32, 2),
        "ELF header, e_phentsize at byte 54: 32 is not 56",
    ),
    "e_phoff": (
        poke(PROGRAM, E_PHOFF, 1 << 40, 8),
        "program header 0 at byte 1099511627776: "
        f"needs 56 bytes, but the file ends at byte {len(PROGRAM)}",
    ),
    "too many program headers": (
        poke(PROGRAM, E_PHNUM, 0xFFFF, 2),
        # Headers 2 to 7 are read from contents, whose bytes are no known p_type.
        f"program header 8 at byte 512: needs 56 bytes, but the file ends at byte {len(PROGRAM)}",
    ),
    "no program header": (
        poke(PROGRAM, E_PHNUM, 0, 2),
        "ELF header, e_phnum at byte 56: there is no PT_LOAD with memory, so nothing to load",
    ),
    "p_offset": (
        big(1, P_OFFSET, 0x10000),
        "program header 1, p_offset at byte 128: "
        f"0x10000 + p_filesz 0x28 is past the end of the file ({len(PROGRAM):#x})",
    ),
    "p_filesz": (
        big(1, P_MEMSZ, 0x20),
        "program header 1, p_filesz at byte 152: 0x28 is more than p_memsz 0x20",
    ),
    "p_vaddr": (
        big(1, P_VADDR, (1 << 47) - 0x1000),
        "program header 1, p_vaddr at byte 136: 0x7ffffffff000 + p_memsz 0x1800 is not a user"
        " address",
    ),
    "p_memsz": (
        big(1, P_MEMSZ, 0x8000_0001),
        "program header 1, p_memsz at byte 160: 0x80000001 is more than 0x80000000",
    ),
    "span": (
        big(1, P_VADDR, 0x8000_0000),
        "program header 1, p_memsz at byte 160: the program would span more than 0x80000000 bytes",
    ),
    "order": (
        elf_file(DATA, TEXT),
        "program header 1, p_vaddr at byte 136: 0x1000 is below the end 0x3800 of PT_LOAD 0",
    ),
    "overlap": (
        big(1, P_VADDR, 0x1100),
        "program header 1, p_vaddr at byte 136: 0x1100 is below the end 0x112c of PT_LOAD 0",
    ),
    "W without R": (
        poke(PROGRAM, phdr_at(1, P_FLAGS), PF_W, 4),
        "program header 1, p_flags at byte 124: PF_W without PF_R: EADD refuses such a page",
    ),
    "p_flags": (
        poke(PROGRAM, phdr_at(1, P_FLAGS), 0x10_0006, 4),
        "program header 1, p_flags at byte 124: 0x100006 has bits besides PF_R, PF_W, PF_X",
    ),
    "PT_INTERP": (
        elf_file(TEXT, Seg(0, b"/lib/ld.so\0", kind=PT_INTERP)),
        "program header 1, p_type at byte 120: "
        "PT_INTERP: dynamically linked; link with -static or -static-pie",
    ),
    "DT_NEEDED": (
        elf_file(TEXT, Seg(0, struct.pack("<4Q", 5, 0, DT_NEEDED, 1), kind=PT_DYNAMIC)),
        "dynamic section, d_tag at byte 492: "
        "DT_NEEDED: shared libraries; link with -static or -static-pie",
    ),
    "dynamic outside": (
        poke(elf_file(TEXT, Seg(0, bytes(16), kind=PT_DYNAMIC)), phdr_at(1, P_FILESZ), 1 << 40, 8),
        "program header 1, p_offset at byte 128: "
        "0x1dc + p_filesz 0x10000000000 is past the end of the file",
    ),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_read_refuses(data: bytes, message: str) -> None:
    with pytest.raises(ImageError) as refused:
        elf.read(data)
    assert str(refused.value) == message


def test_dynamic_section_ends_at_dt_null() -> None:
    dynamic = struct.pack("<6Q", DT_RELA, 0x10, 0, 0, DT_NEEDED, 1)
    program = elf.read(elf_file(TEXT, Seg(0, dynamic, kind=PT_DYNAMIC)))
    assert program.dynamic == {"DT_RELA": (0x10, 64 + 2 * 56 + len(TEXT.content))}


def test_half_an_entry_at_the_end_of_the_dynamic_section_is_ignored() -> None:
    dynamic = struct.pack("<4Q", DT_RELA, 0x10, DT_NEEDED, 1)[:31]
    program = elf.read(elf_file(TEXT, Seg(0, dynamic, kind=PT_DYNAMIC), DATA))
    assert list(program.dynamic) == ["DT_RELA"]


RELATIVE, JUMP_SLOT, NONE = 8, 7, 0


def relocatable(
    *entries: tuple[int, int, int],
    tags: tuple[tuple[int, int], ...] = (),
    memsz: int = 0x200,
) -> elf.Elf:
    """A program whose data, at 0x2000, has 0x40 bytes, then the entries, then .bss."""
    table = b"".join(struct.pack("<3Q", *entry) for entry in entries)
    tags = tags or ((DT_RELA, 0x2040), (DT_RELASZ, len(table)))
    dynamic = b"".join(struct.pack("<2Q", *tag) for tag in tags)
    data = Seg(0x2000, b"d" * 0x40 + table, PF_R | PF_W, memsz=memsz)
    return elf.read(elf_file(TEXT, data, Seg(0, dynamic, kind=PT_DYNAMIC)))


def test_relative_relocations_are_applied() -> None:
    program = relocatable(
        (0x2008, RELATIVE, 0x1010), (0x2000, NONE, 5), (0x21F8, RELATIVE, (1 << 64) - 8)
    )
    moved = elf.relocate(program, 0x7F00_0000_0000)
    before, after = program.loads[1].content, moved.loads[1].content
    assert after[:8] == before[:8]
    assert after[8:16] == (0x7F00_0000_1010).to_bytes(8, "little")
    assert after[16:0x40] == before[16:0x40]
    # The last one is in .bss, so the content now extends to it.
    assert after[0x1F8:] == (0x7EFF_FFFF_FFF8).to_bytes(8, "little")
    assert not any(after[len(before) : 0x1F8])
    assert moved.loads[0] == program.loads[0]


def test_program_without_relocations_stays_as_it_is() -> None:
    program = elf.read(PROGRAM)
    assert elf.relocate(program, 0x10000) == program


def test_relocations_of_the_procedure_table_are_applied_too() -> None:
    program = relocatable((0x2000, RELATIVE, 1), tags=((DT_JMPREL, 0x2040), (DT_PLTRELSZ, 24)))
    content = elf.relocate(program, 0x1000).loads[1].content
    assert content[:8] == (0x1001).to_bytes(8, "little")


UNRELOCATABLE: dict[str, tuple[elf.Elf, str]] = {
    "type": (
        relocatable((0x2000, RELATIVE, 1), (0x2000, JUMP_SLOT, 0)),
        "DT_RELA entry 1 at address 0x2058, r_info: "
        "type 7: only R_X86_64_RELATIVE (8) can be applied here",
    ),
    "target": (
        relocatable((0x21F9, RELATIVE, 1)),
        "DT_RELA entry 0 at address 0x2040, r_offset: 0x21f9 is not in the program",
    ),
    "table outside": (
        relocatable((0x2000, RELATIVE, 1), tags=((DT_RELA, 0x4000), (DT_RELASZ, 24))),
        "dynamic section, DT_RELASZ at byte 636: 0x18 bytes at 0x4000 are not in the program",
    ),
    "table in .bss": (
        relocatable((0x2000, RELATIVE, 1), tags=((DT_RELA, 0x2048), (DT_RELASZ, 24))),
        "dynamic section, DT_RELASZ at byte 636: 0x18 bytes at 0x2048 are not in the program",
    ),
    "table without address": (
        relocatable((0x2000, RELATIVE, 1), tags=((DT_RELASZ, 24),)),
        "dynamic section, DT_RELASZ at byte 620: 0x18 bytes at 0x0 are not in the program",
    ),
    "table cut": (
        relocatable((0x2000, RELATIVE, 1), tags=((DT_RELA, 0x2040), (DT_RELASZ, 23))),
        "dynamic section, DT_RELASZ at byte 636: 0x17 is not a multiple of 24",
    ),
    "DT_RELR": (
        relocatable(tags=((DT_RELR, 0x2040),)),
        "dynamic section, d_tag at byte 596: "
        "DT_RELR: only DT_RELA can be applied here: link with -z nopack-relative-relocs",
    ),
    "DT_REL": (
        relocatable(tags=((DT_NOTHING, 0), (DT_REL, 0x2040))),
        "dynamic section, d_tag at byte 612: "
        "DT_REL: only DT_RELA can be applied here: link with -z nopack-relative-relocs",
    ),
}


@pytest.mark.parametrize(("program", "message"), UNRELOCATABLE.values(), ids=UNRELOCATABLE.keys())
def test_relocate_refuses(program: elf.Elf, message: str) -> None:
    with pytest.raises(ImageError) as refused:
        elf.relocate(program, 0)
    assert str(refused.value) == message


def test_broken_sections_are_no_reason_to_refuse() -> None:
    """Nothing is loaded by sections; only the name .tcs is looked for."""
    e_shoff, e_shentsize, e_shnum, e_shstrndx = 40, 58, 60, 62
    data = poke(poke(PROGRAM, e_shentsize, 64, 2), e_shnum, 2, 2)
    for number in (0, 1, 2, 5):
        for offset in (0, 100, 1 << 60):
            broken = poke(poke(data, e_shoff, offset, 8), e_shstrndx, number, 2)
            assert elf.read(broken).tcs_section is False
    assert elf.read(poke(PROGRAM, E_ENTRY, 0xFFFF_FFFF_FFFF_FFFF, 8)).e_entry == (1 << 64) - 1
