"""Small inputs for the image room: ELF files byte by byte, images, and enclaves built from them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from softsgx.cpu.bare import ENCLAVE_BASE, Bare, BareEnclave
from softsgx.image.image import NO_CHUNKS, EnclaveImage, Segment
from softsgx.mem.pagetable import direct
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import REG, TCS, R, W, X
from softsgx.spec.sigstruct import SIGSTRUCT
from softsgx.spec.tcs import TCS as TCS_PAGE

EHDR = Struct("<16sHHIQQQIHHHHHH")
PHDR = Struct("<IIQQQQQQ")
ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
PF_X, PF_W, PF_R = 1, 2, 4
DT_NEEDED, DT_RELA, DT_RELASZ, DT_REL, DT_RELR = 1, 7, 8, 17, 36
DT_JMPREL, DT_PLTRELSZ, DT_NOTHING = 23, 2, 21

# Byte offsets of fields, from the standard; the tests name them as the errors do.
E_TYPE, E_MACHINE, E_ENTRY, E_PHOFF, E_PHENTSIZE, E_PHNUM = 16, 18, 24, 32, 54, 56
P_FLAGS, P_OFFSET, P_VADDR, P_FILESZ, P_MEMSZ = 4, 8, 16, 32, 40


class Seg(NamedTuple):
    """A program header and the bytes it has in the file."""

    vaddr: int
    content: bytes
    flags: int = PF_R
    memsz: int = -1
    kind: int = PT_LOAD


TEXT = Seg(0x1000, b"\x0f\x01\xd7" * 100, PF_R | PF_X)
DATA = Seg(0x2000, b"data" * 10, PF_R | PF_W, memsz=0x1800)


def elf_file(
    *segments: Seg,
    e_type: int = ET_DYN,
    e_entry: int = 0x1000,
    e_machine: int = 62,
    ident: bytes = b"\x7fELF\x02\x01\x01",
) -> bytes:
    """An ELF file without sections: header, program headers, contents one after the other."""
    at = EHDR.size + PHDR.size * len(segments)
    headers, contents = b"", b""
    for seg in segments:
        memsz = len(seg.content) if seg.memsz < 0 else seg.memsz
        offset = at + len(contents)
        headers += PHDR.pack(
            seg.kind, seg.flags, offset, seg.vaddr, seg.vaddr, len(seg.content), memsz, 4096
        )
        contents += seg.content
    count = len(segments)
    ehdr = EHDR.pack(
        *(ident.ljust(16, b"\0"), e_type, e_machine, 1, e_entry, EHDR.size, 0, 0),
        *(EHDR.size, PHDR.size, count, 0, 0, 0),
    )
    return ehdr + headers + contents


def poke(data: bytes, at: int, value: int, width: int) -> bytes:
    """`data` with an integer of `width` bytes replaced."""
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


def phdr_at(number: int, field: int) -> int:
    """Byte offset of a field of a program header."""
    return EHDR.size + number * PHDR.size + field


def tcs_page(**fields: int | bytes) -> bytes:
    """A TCS for entry at offset 0 with one SSA page at 0x3000; `fields` change it."""
    values: dict[str, int | bytes] = {"OSSA": 0x3000, "NSSA": 1, "OENTRY": 0}
    values.update(fields)
    return TCS_PAGE(**values).pack()


def small_image(**fields: int) -> EnclaveImage:
    """Code, TCS, SSA, one page that is loaded but not measured, one measured in part."""
    half = b"x" * 256 + bytes(256) + b"y" * 512
    segments = (
        Segment(0x0, 0x2000, REG | R | X, b"code" * 1025),
        Segment(0x2000, 0x1000, TCS, tcs_page()),
        Segment(0x3000, 0x1000, REG | R | W),
        Segment(0x5000, 0x1000, REG | R | W, b"host", NO_CHUNKS),
        Segment(0x6000, 0x1000, REG | R, half, (3, 0)),
    )
    return EnclaveImage(size=0x8000, segments=segments, **fields)


def load(
    image: EnclaveImage, sig: SIGSTRUCT | None = None, base: int = ENCLAVE_BASE
) -> tuple[BareEnclave, int]:
    """Load an image as a driver would; the enclave, and what EINIT returns for `sig` (0: good)."""
    bare = Bare(epc_pages=image.page_count() + 8)
    enclave = BareEnclave(bare, bare.ecreate(image.secs(base)), base, image.size)
    for page in image.pages():
        added = bare.eadd(enclave.secs, base + page.offset, page.content, page.flags)
        for chunk in page.chunks:
            rcx = bare.address(added) + 256 * chunk
            bare.lp.encls(leaves.EEXTEND, bare.address(enclave.secs), rcx)
        enclave.map(base + page.offset, added)
    enclave.tcs = [base + offset for offset in image.tcs]
    status = bare.einit(enclave.secs, sig) if sig is not None else 0
    assert status is not None
    return enclave, int(status)


def einit_bytes(enclave: BareEnclave, raw: bytes) -> int:
    """What EINIT returns for an encoded SIGSTRUCT, in which reserved bytes may be set; no token."""
    bare = enclave.bare
    memory = bare.processor.memory
    at = memory.alloc(2) << PAGE_SHIFT
    memory.write(at, raw)
    secs = bare.address(enclave.secs)
    status = bare.lp.encls(leaves.EINIT, direct(at), secs, direct(at + 4096))
    assert status is not None
    return int(status)


def gcc(directory: Path, source: str, *options: str, name: str = "program") -> bytes:
    """Compile C or, by `#as` in its first line, assembly without any library; the ELF file."""
    suffix = ".S" if source.startswith("#as") else ".c"
    path, output = directory / f"{name}{suffix}", directory / name
    path.write_text(source.removeprefix("#as"), encoding="utf-8")
    command = ["gcc", "-O1", "-nostdlib", *options, str(path), "-o", str(output)]
    subprocess.run(command, check=True)
    return output.read_bytes()


def measured_bytes(image: EnclaveImage) -> Iterator[bytes]:
    """The blocks of MRENCLAVE written out independently, from the table of the manual."""
    yield b"ECREATE\0" + image.ssaframesize.to_bytes(4, "little") + image.size.to_bytes(8, "little")
    yield bytes(44)
    for segment in image.segments:
        data = segment.content + bytes(segment.size - len(segment.content))
        for at in range(0, segment.size, 4096):
            offset = segment.offset + at
            yield b"EADD\0\0\0\0" + offset.to_bytes(8, "little")
            yield segment.flags.to_bytes(8, "little") + bytes(40)
            for chunk in segment.chunks:
                yield b"EEXTEND\0" + (offset + 256 * chunk).to_bytes(8, "little") + bytes(48)
                yield data[at + 256 * chunk : at + 256 * chunk + 256]
