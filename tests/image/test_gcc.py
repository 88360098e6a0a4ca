"""Compiled programs: made an image, loaded, initialised by EINIT, and entered.

The programs use no library, so a plain gcc is enough.
"""

import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from softsgx.cpu.bare import ENCLAVE_BASE
from softsgx.cpu.signature import development_key
from softsgx.image import EnclaveImage, ImageError, elf, sgxs
from softsgx.image.layout import SelftestLayout, ThreadLayout
from softsgx.image.sigstruct import sign
from softsgx.spec.epcm import REG, TCS, R, W, X
from softsgx.spec.registers import RAX, RIP
from softsgx.spec.tcs import TCS as TCS_PAGE
from tests.image.builders import gcc, load, measured_bytes

PIE = ("-static-pie", "-fpie", "-Wl,-z,max-page-size=4096")
EXEC = ("-static", "-no-pie", "-Wl,-z,max-page-size=4096")
SOURCE = """
volatile int zero[3000];
int seven = 7;
int *where = &seven;                                 /* needs R_X86_64_RELATIVE in a PIE */
const char text[] = "constant";

void _start(void)
{
    zero[2999] = *where + text[0];
    for (;;)
        ;
}
"""
# As in the kernel's selftest: TCS pages ready-made, in a first segment of their own.
SELFTEST_SOURCE = """#as
    .macro TCS_PAGE
    .quad   0, 0, ssa
    .long   0, 1
    .quad   entry, 0, 0, 0
    .long   -1, -1
    .fill   4024, 1, 0
    .endm

    .section .tcs, "aw"
    TCS_PAGE
    TCS_PAGE
    .text
    .fill   16, 1, 0x90
entry:
    lea     stack(%rip), %rsp
    jmp     .
    .data
    .balign 4096
buffer:
    .ascii  "data"
    .balign 4096
ssa:
    .space  4096
    .space  4096
stack:
"""
SELFTEST_SCRIPT = """
PHDRS { tcs PT_LOAD; text PT_LOAD; data PT_LOAD; }
SECTIONS
{
    . = 0;
    .tcs : { *(.tcs*) } : tcs
    . = ALIGN(4096);
    .text : { *(.text*) } : text
    .data : { *(.data*) } : data
    /DISCARD/ : { *(.note*) *(.comment*) }
}
"""


def accepted(image: EnclaveImage, base: int, thread: int = 0) -> int:
    """Load, sign, EINIT, EENTER; RIP after EENTER as an offset from BASEADDR."""
    enclave, status = load(image, sign(image, development_key()), base)
    assert status == 0
    secs = enclave.bare.processor.secs[enclave.secs]
    assert secs.MRENCLAVE == image.mrenclave() == sha256(b"".join(measured_bytes(image))).digest()
    enclave.enter(thread=thread)
    assert enclave.live() == [enclave.bare.lp]
    assert enclave.bare.lp.regs[RAX] == 0
    rip: int = enclave.bare.lp.regs[RIP]
    return rip - base


def symbol(path: Path, name: str) -> int:
    """Address of a symbol, from nm."""
    done = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.endswith(f" {name}"))
    return int(line.split()[0], 16)


def byte_at(image: EnclaveImage, offset: int, count: int) -> bytes:
    """Bytes of an image, within one segment."""
    (segment,) = (s for s in image.segments if s.offset <= offset < s.end)
    start = offset - segment.offset
    return segment.data()[start : start + count]


@pytest.mark.parametrize("base", [ENCLAVE_BASE, 0x10_0000_0000])
def test_static_pie_is_entered_at_its_entry_wherever_it_is_loaded(
    tmp_path: Path, base: int
) -> None:
    data = gcc(tmp_path, SOURCE, *PIE)
    image = ThreadLayout(threads=2).image(data)
    start = symbol(tmp_path / "program", "_start")
    assert image.baseaddr is None
    assert start == elf.read(data).e_entry
    assert accepted(image, base, thread=1) == start


def test_pages_of_a_static_pie(tmp_path: Path) -> None:
    image = ThreadLayout().image(gcc(tmp_path, SOURCE, *PIE))
    program = tmp_path / "program"
    assert byte_at(image, symbol(program, "seven"), 4) == bytes([7, 0, 0, 0])
    assert byte_at(image, symbol(program, "text"), 9) == b"constant\0"
    assert byte_at(image, symbol(program, "zero"), 12000) == bytes(12000)
    flags = {
        name: next(s.flags for s in image.segments if s.offset <= symbol(program, name) < s.end)
        for name in ("_start", "text", "seven", "zero")
    }
    assert flags == {
        "_start": REG | R | X,
        "text": REG | R,
        "seven": REG | R | W,
        "zero": REG | R | W,
    }


def test_heap_and_stack_are_where_code_finds_them(tmp_path: Path) -> None:
    """The heap at `_end`, rounded up to a page; the top of the stack at the TCS, which is RBX."""
    image = ThreadLayout().image(gcc(tmp_path, SOURCE, *PIE))
    parts = {segment.label: segment for segment in image.segments}
    assert parts["heap"].offset == (symbol(tmp_path / "program", "_end") + 4095) & ~4095
    assert parts["thread 0 stack"].end == parts["thread 0 TCS"].offset == image.tcs[0]


def test_relocated_static_pie(tmp_path: Path) -> None:
    data = gcc(tmp_path, SOURCE, *PIE)
    seven, where = (symbol(tmp_path / "program", name) for name in ("seven", "where"))
    image = ThreadLayout(relocate_to=ENCLAVE_BASE).image(data)
    assert byte_at(image, where, 8) == (ENCLAVE_BASE + seven).to_bytes(8, "little")
    assert accepted(image, ENCLAVE_BASE) == symbol(tmp_path / "program", "_start")


def test_packed_relocations_are_named(tmp_path: Path) -> None:
    data = gcc(tmp_path, SOURCE, *PIE, "-Wl,-z,pack-relative-relocs")
    with pytest.raises(ImageError, match="DT_RELR: only DT_RELA can be applied here"):
        ThreadLayout(relocate_to=ENCLAVE_BASE).image(data)


def test_static_executable_is_entered_at_its_address(tmp_path: Path) -> None:
    image = ThreadLayout().image(gcc(tmp_path, SOURCE, *EXEC))
    program = tmp_path / "program"
    assert image.baseaddr == 0x40_0000
    where = symbol(program, "where") - image.baseaddr
    assert byte_at(image, where, 8) == symbol(program, "seven").to_bytes(8, "little")
    start = symbol(program, "_start")
    assert image.baseaddr + accepted(image, image.baseaddr) == start


def test_dynamic_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="PT_INTERP: dynamically linked"):
        ThreadLayout().image(gcc(tmp_path, SOURCE, "-pie", "-fpie"))


def test_object_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="ET_REL is neither ET_EXEC nor ET_DYN: link it first"):
        ThreadLayout().image(gcc(tmp_path, SOURCE, "-c"))


def test_data_in_a_page_of_text_is_refused(tmp_path: Path) -> None:
    data = gcc(tmp_path, SOURCE, "-static", "-no-pie", "-Wl,-z,max-page-size=512")
    with pytest.raises(ImageError, match="in the same page"):
        ThreadLayout().image(data)


def selftest(tmp_path: Path) -> bytes:
    script = tmp_path / "enclave.lds"
    script.write_text(SELFTEST_SCRIPT, encoding="utf-8")
    options = ("-static-pie", f"-Wl,-T,{script},--build-id=none,-z,max-page-size=4096")
    return gcc(tmp_path, SELFTEST_SOURCE, *options)


@pytest.mark.parametrize("thread", [0, 1])
def test_selftest_layout_is_entered_where_its_tcs_says(tmp_path: Path, thread: int) -> None:
    image = SelftestLayout().image(selftest(tmp_path))
    assert image.tcs == (0x0, 0x1000)
    assert [s.flags for s in image.segments] == [
        TCS,
        REG | R | X,
        REG | R | W,
        REG | R | W,
    ]
    assert symbol(tmp_path / "program", "entry") == 0x2010
    assert accepted(image, ENCLAVE_BASE, thread) == 0x2010
    tcs = TCS_PAGE.unpack(image.segments[0].data()[:4096])
    assert symbol(tmp_path / "program", "ssa") == tcs.OSSA


def test_selftest_program_needs_the_selftest_layout(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as refused:
        ThreadLayout().image(selftest(tmp_path))
    assert str(refused.value) == (
        "section .tcs: the program brings its own TCS pages: use the selftest layout"
    )


def test_stream_of_a_program_has_its_measurement(tmp_path: Path) -> None:
    image = ThreadLayout().image(gcc(tmp_path, SOURCE, *PIE))
    again = sgxs.read(sgxs.write(image))
    assert again.mrenclave() == image.mrenclave()
    assert accepted(again, ENCLAVE_BASE) == symbol(tmp_path / "program", "_start")
