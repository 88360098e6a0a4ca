"""The vDSO that supervised programs see: the real one's symbols, and __vdso_sgx_enter_enclave.

An ELF shared object that is mapped as it is. Programs find the function by the dynamic section
(glibc, musl and the kernel's selftest) or by the section headers (some runtimes), with or without
the version LINUX_2.6; the image supports them all, with both hash tables. Notes are the real ones
(programs take the version of the kernel from them), except for the build id, by which debuggers
identify an image. The real vDSO stays mapped and is called where it is: its symbols get values
relative to the new image, modulo 2**64. An unwinder that starts inside the real vDSO finds no frame
description, because programs are told only of the new image.

The function is `vdso.s`, written from its contract: Linux 6.12, arch/x86/include/uapi/asm/sgx.h.
"""

from collections.abc import Sequence
from hashlib import sha1
from struct import pack, unpack_from
from typing import Final, NamedTuple

from softsgx.image.elf_format import (
    DT_GNU_HASH,
    DT_HASH,
    DT_SONAME,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMENT,
    DT_SYMTAB,
    DT_VERDEF,
    DT_VERDEFNUM,
    DT_VERSYM,
    NT_GNU_BUILD_ID,
    PT_DYNAMIC,
    PT_GNU_EH_FRAME,
    PT_NOTE,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHT_DYNAMIC,
    SHT_DYNSYM,
    SHT_GNU_HASH,
    SHT_GNU_VERDEF,
    SHT_GNU_VERSYM,
    SHT_HASH,
    SHT_NOTE,
    SHT_PROGBITS,
    SHT_STRTAB,
    Dyn,
    Sym,
)
from softsgx.runner.code.elf_dynamic import (
    Note,
    SharedObject,
    Strings,
    Symbol,
    defined_symbols,
    gnu_hash_order,
    gnu_hash_table,
    hash_table,
    notes,
    sysv_hash,
)
from softsgx.runner.inserted.assembled import code_of, labels_of
from softsgx.runner.inserted.layout import VDSO_SIZE_MAX
from softsgx.runner.inserted.machine_code import VDSO_CODE, VDSO_EH_FRAME
from softsgx.spec.bits import MASK64

FUNCTION_NAME: Final = b"__vdso_sgx_enter_enclave"
SONAME: Final = b"linux-vdso.so.1"
VERSION: Final = b"LINUX_2.6"

_STB_GLOBAL_STT_FUNC: Final = 0x12
_VER_NDX_BASE: Final = 1
_VER_NDX_LINUX: Final = 2
_VER_FLG_BASE: Final = 1
_TEXT: Final = 1
_BUILD_ID_SIZE: Final = 20


class VdsoImage(NamedTuple):
    """The image, to be mapped R-X at the base it was made for, and addresses in it.

    `enclu` is the AEP: the RIP of a request, and of a thread inside as its signal handler sees it.
    `jump` is the only instruction between `enclu` and the stub: a thread stopped there is at
    `enclu` except for its RIP. `exception` is where a fix-up continues.
    """

    image: bytes
    function: int
    enclu: int
    jump: int
    exception: int


_CODE: Final = code_of(VDSO_CODE)
_LABELS: Final = labels_of(VDSO_CODE)


def vdso_image(real: bytes, real_base: int, base: int, enclu_target: int) -> VdsoImage:
    """Build the image for `base`; its ENCLU continues at `enclu_target`.

    `real` is the memory of the real vDSO at `real_base`, empty if there is none.
    """
    elf = SharedObject(segments=3)
    # The code comes first, so that its address does not depend on the real vDSO.
    code_at = elf.next_offset(64)
    text = elf.add(
        b".text",
        SHT_PROGBITS,
        _jumping(base + code_at, enclu_target),
        flags=SHF_ALLOC | SHF_EXECINSTR,
        align=64,
    )
    assert text == _TEXT
    symbols = [
        Symbol(s.name, s.info, s.other, (real_base + s.value - base) & MASK64, s.size)
        for s in (defined_symbols(real) if real else [])
        # A kernel with SGX has a function of this name, too.
        if s.name != FUNCTION_NAME
    ]
    size = _LABELS["function_end"] - _LABELS["function"]
    ours = Symbol(FUNCTION_NAME, _STB_GLOBAL_STT_FUNC, 0, code_at + _LABELS["function"], size)
    _add_symbols(elf, [*symbols, ours])
    _add_unwinding(elf, code_at)
    build_id = _add_notes(elf, notes(real) if real else [])
    image = elf.image()
    made = sha1(image, usedforsecurity=False).digest()
    image = image[:build_id] + made + image[build_id + _BUILD_ID_SIZE :]
    if len(image) > VDSO_SIZE_MAX:
        raise ValueError(f"vDSO: {len(image)} bytes, more than the {VDSO_SIZE_MAX} reserved for it")
    labels = ("function", "enclu", "jump", "exception")
    return VdsoImage(image, *(base + code_at + _LABELS[label] for label in labels))


def _jumping(code: int, target: int) -> bytes:
    """The code for the address `code`, with its jump out of the image set to `target`."""
    jump = _LABELS["jump"]
    end = jump + 5
    return _CODE[: jump + 1] + pack("<i", target - (code + end)) + _CODE[end:]


def _add_symbols(elf: SharedObject, symbols: Sequence[Symbol]) -> None:
    """Add .hash, .gnu.hash, .dynsym, .dynstr, the version sections and .dynamic."""
    order = {name: at for at, name in enumerate(gnu_hash_order(s.name for s in symbols))}
    symbols = sorted(symbols, key=lambda s: order[s.name])
    strings = Strings()
    table = bytes(Sym.SIZE)
    for s in symbols:
        table += Sym.S.pack(strings.offset(s.name), s.info, s.other, _TEXT, s.value, s.size)
    soname = strings.offset(SONAME)
    verdef = _verdef(strings)
    dynstr = elf.add(b".dynstr", SHT_STRTAB, strings.data, align=1)
    dynsym = elf.add(b".dynsym", SHT_DYNSYM, table, link=dynstr, info=1, entsize=Sym.SIZE)
    words = hash_table([b"", *(s.name for s in symbols)])
    hashes = elf.add(b".hash", SHT_HASH, pack(f"<{len(words)}I", *words), link=dynsym, entsize=4)
    gnu = elf.add(
        b".gnu.hash", SHT_GNU_HASH, gnu_hash_table([s.name for s in symbols]), link=dynsym
    )
    indices = pack(f"<{len(symbols) + 1}H", 0, *[_VER_NDX_LINUX] * len(symbols))
    versym = elf.add(b".gnu.version", SHT_GNU_VERSYM, indices, link=dynsym, entsize=2)
    versions = elf.add(b".gnu.version_d", SHT_GNU_VERDEF, verdef, link=dynstr, info=2)
    tags = [
        (DT_SONAME, soname),
        (DT_HASH, elf.offset(hashes)),
        (DT_GNU_HASH, elf.offset(gnu)),
        (DT_STRTAB, elf.offset(dynstr)),
        (DT_SYMTAB, elf.offset(dynsym)),
        (DT_STRSZ, len(strings.data)),
        (DT_SYMENT, Sym.SIZE),
        (DT_VERSYM, elf.offset(versym)),
        (DT_VERDEF, elf.offset(versions)),
        (DT_VERDEFNUM, 2),
        (0, 0),
    ]
    data = b"".join(Dyn.S.pack(*tag) for tag in tags)
    dynamic = elf.add(b".dynamic", SHT_DYNAMIC, data, link=dynstr, entsize=Dyn.SIZE)
    elf.segment(PT_DYNAMIC, dynamic)


def _verdef(strings: Strings) -> bytes:
    """Elf64_Verdef and Elf64_Verdaux of the object itself and of the version LINUX_2.6."""
    data = b""
    for flags, index, name, following in (
        (_VER_FLG_BASE, _VER_NDX_BASE, SONAME, 28),
        (0, _VER_NDX_LINUX, VERSION, 0),
    ):
        data += pack("<HHHHIII", 1, flags, index, 1, sysv_hash(name), 20, following)
        data += pack("<II", strings.offset(name), 0)
    return data


def _add_notes(elf: SharedObject, real: Sequence[Note]) -> int:
    """Add .note; returns the offset where the build id is to be written."""
    kept = [n for n in real if (n.name, n.type) != (b"GNU", NT_GNU_BUILD_ID)]
    build_id = Note(b"GNU", NT_GNU_BUILD_ID, bytes(_BUILD_ID_SIZE))
    data = b"".join(note.pack() for note in (*kept, build_id))
    section = elf.add(b".note", SHT_NOTE, data, align=4)
    elf.segment(PT_NOTE, section)
    return elf.offset(section) + len(data) - _BUILD_ID_SIZE


def _add_unwinding(elf: SharedObject, function: int) -> None:
    """Add .eh_frame for the function, and the search table that unwinders start from."""
    frames = bytearray(bytes.fromhex(VDSO_EH_FRAME))
    frames_at = elf.next_offset(8)
    # A CIE, then the FDE: length, distance to the CIE, first address relative to its own place.
    fde = 4 + unpack_from("<I", frames)[0]
    frames[fde + 8 : fde + 12] = pack("<i", function - (frames_at + fde + 8))
    elf.add(b".eh_frame", SHT_PROGBITS, bytes(frames) + bytes(4))
    # Version 1; encodings: pcrel sdata4, udata4, datarel sdata4. LSB Core, 10.6 "Exception Frames".
    at = elf.next_offset(4)
    table = pack("<BBBBiI", 1, 0x1B, 0x03, 0x3B, frames_at - (at + 4), 1)
    table += pack("<ii", function - at, frames_at + fde - at)
    header = elf.add(b".eh_frame_hdr", SHT_PROGBITS, table, align=4)
    elf.segment(PT_GNU_EH_FRAME, header)
