"""The layouts and numbers of ELF, each once; names are those of the standard.

System V ABI, "Object Files", "Program Loading" and "Dynamic Linking"; x86-64 psABI.

pyelftools could give these few structures, and little more. The search for CPUID and ENCLU
instructions (`runner.code`) looks into every library that a program maps, before the program may go
on: 47 ms of processor time for one of 24 MB with 48,000 functions. pyelftools reads the same call
frame information in 5.6 s and the same symbols in 1.1 s, because it makes an object of every entry
and has no look-up by address. Importing it takes 13 to 21 ms of the start of a command. Of 300
damaged copies of one program it refused 210, with six kinds of exception; 76 have damage that
matters to the kernel. It writes no files, so the vDSO would still be written by hand. So nothing
here uses it. The tests do: they compare with it what is read and written here.
"""

from typing import Final

from softsgx.spec.structure import Structure, raw, u8, u16, u32, u64

MAGIC: Final = b"\x7fELF"
ELFCLASS64: Final = 2
ELFDATA2LSB: Final = 1
IDENT: Final = (MAGIC + bytes((ELFCLASS64, ELFDATA2LSB, 1))).ljust(16, b"\0")

E_TYPES: Final = {0: "ET_NONE", 1: "ET_REL", 2: "ET_EXEC", 3: "ET_DYN", 4: "ET_CORE"}
ET_EXEC: Final = 2
ET_DYN: Final = 3
E_MACHINES: Final = {
    0: "EM_NONE",
    2: "EM_SPARC",
    3: "EM_386",
    8: "EM_MIPS",
    20: "EM_PPC",
    21: "EM_PPC64",
    22: "EM_S390",
    40: "EM_ARM",
    43: "EM_SPARCV9",
    50: "EM_IA_64",
    62: "EM_X86_64",
    183: "EM_AARCH64",
    243: "EM_RISCV",
    247: "EM_BPF",
    258: "EM_LOONGARCH",
}
EM_X86_64: Final = 62

PT_LOAD: Final = 1
PT_DYNAMIC: Final = 2
PT_INTERP: Final = 3
PT_NOTE: Final = 4
PT_GNU_EH_FRAME: Final = 0x6474_E550
PF_X: Final = 1
PF_W: Final = 2
PF_R: Final = 4

SHT_PROGBITS: Final = 1
SHT_SYMTAB: Final = 2
SHT_STRTAB: Final = 3
SHT_HASH: Final = 5
SHT_DYNAMIC: Final = 6
SHT_NOTE: Final = 7
SHT_NOBITS: Final = 8
SHT_DYNSYM: Final = 11
SHT_GNU_HASH: Final = 0x6FFF_FFF6
SHT_GNU_VERDEF: Final = 0x6FFF_FFFD
SHT_GNU_VERSYM: Final = 0x6FFF_FFFF
SHF_ALLOC: Final = 2
SHF_EXECINSTR: Final = 4
SHN_UNDEF: Final = 0
SHN_ABS: Final = 0xFFF1

STT_FUNC: Final = 2
STT_GNU_IFUNC: Final = 10

DT_NULL: Final = 0
DT_NEEDED: Final = 1
DT_PLTRELSZ: Final = 2
DT_HASH: Final = 4
DT_STRTAB: Final = 5
DT_SYMTAB: Final = 6
DT_RELA: Final = 7
DT_RELASZ: Final = 8
DT_STRSZ: Final = 10
DT_SYMENT: Final = 11
DT_SONAME: Final = 14
DT_REL: Final = 17
DT_JMPREL: Final = 23
DT_RELR: Final = 36
DT_GNU_HASH: Final = 0x6FFF_FEF5
DT_VERSYM: Final = 0x6FFF_FFF0
DT_VERDEF: Final = 0x6FFF_FFFC
DT_VERDEFNUM: Final = 0x6FFF_FFFD

NT_GNU_BUILD_ID: Final = 3

R_X86_64_NONE: Final = 0
R_X86_64_RELATIVE: Final = 8


class Ehdr(Structure, size=64):
    """The ELF header."""

    e_ident: bytes = raw(0, 16)
    e_type: int = u16(16)
    e_machine: int = u16(18)
    e_version: int = u32(20)
    e_entry: int = u64(24)
    e_phoff: int = u64(32)
    e_shoff: int = u64(40)
    e_flags: int = u32(48)
    e_ehsize: int = u16(52)
    e_phentsize: int = u16(54)
    e_phnum: int = u16(56)
    e_shentsize: int = u16(58)
    e_shnum: int = u16(60)
    e_shstrndx: int = u16(62)


class Phdr(Structure, size=56):
    """A program header."""

    p_type: int = u32(0)
    p_flags: int = u32(4)
    p_offset: int = u64(8)
    p_vaddr: int = u64(16)
    p_paddr: int = u64(24)
    p_filesz: int = u64(32)
    p_memsz: int = u64(40)
    p_align: int = u64(48)


class Shdr(Structure, size=64):
    """A section header."""

    sh_name: int = u32(0)
    sh_type: int = u32(4)
    sh_flags: int = u64(8)
    sh_addr: int = u64(16)
    sh_offset: int = u64(24)
    sh_size: int = u64(32)
    sh_link: int = u32(40)
    sh_info: int = u32(44)
    sh_addralign: int = u64(48)
    sh_entsize: int = u64(56)


class Sym(Structure, size=24):
    """An entry of a symbol table."""

    st_name: int = u32(0)
    st_info: int = u8(4)
    st_other: int = u8(5)
    st_shndx: int = u16(6)
    st_value: int = u64(8)
    st_size: int = u64(16)


class Dyn(Structure, size=16):
    """An entry of the dynamic section."""

    d_tag: int = u64(0)
    d_val: int = u64(8)


class Rela(Structure, size=24):
    """A relocation with an addend."""

    r_offset: int = u64(0)
    r_info: int = u64(8)
    r_addend: int = u64(16)
