"""Write runner/inserted/machine_code.py from the sources of `module` below: `make asm`.

systrap.c and systrap.S go to systrap_code.py by tools/systrap_image.py.

The assembled bytes are committed, so that a machine without binutils runs programs as well; a test
assembles again and compares. The sources take every number from the declarations in Python.
"""

import subprocess
from collections.abc import Iterator, Mapping
from errno import EINVAL
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from softsgx.linux.uapi import SgxEnclaveRun
from softsgx.runner.emulator.control import HOOK_SYMBOLS
from softsgx.runner.host import abi, nr
from softsgx.runner.inserted import box, layout, systrap_layout
from softsgx.runner.native import slots
from softsgx.spec import leaves
from softsgx.spec.registers import REGISTER_NAMES
from tools import systrap_image
from tools.rules import ROOT

RUNNER: Final = ROOT / "src" / "softsgx" / "runner"
MACHINE_CODE: Final = RUNNER / "inserted" / "machine_code.py"

STUB_SYMBOLS: Final[Mapping[str, int]] = {
    **{name: getattr(layout, name) for name in ("STUB", "STUB_BLOCKS", "BOX", "BOX_MAILBOXES")},
    "MAILBOX_STRIDE": layout.MAILBOX_STRIDE,
    **{f"CONTROL_{name}": offset for name, offset in box.CONTROL_AT.items()},
    **{f"BOX_{name}": box.MAILBOX_AT["REGISTERS"] + 8 * i for i, name in enumerate(REGISTER_NAMES)},
    "BOX_FX": box.MAILBOX_AT["FX"],
    **{name: getattr(box, name) for name in ("IDLE", "REQUEST", "REPLY")},
    **{name: getattr(abi, name) for name in ("RED_ZONE", "FUTEX_WAIT", "FUTEX_WAKE")},
    "SYS_GETTID": nr.GETTID,
    "SYS_FUTEX": nr.FUTEX,
}
VDSO_SYMBOLS: Final[Mapping[str, int]] = {
    **{name: getattr(leaves, name) for name in ("EENTER", "ERESUME", "EEXIT")},
    **{f"RUN_{field.name.upper()}": field.offset for field in SgxEnclaveRun.FIELDS},
    "RUN_SIZE": SgxEnclaveRun.SIZE,
    "EINVAL": EINVAL,
}
PLANTED_SYMBOLS: Final[Mapping[str, int]] = {"RED_ZONE": abi.RED_ZONE, "SYS_BRK": nr.BRK}
RECORDS_SHIFT: Final = (systrap_layout.RECORDS_MAX * systrap_layout.RECORD_STRIDE).bit_length() - 1
NATIVE_SYMBOLS: Final[Mapping[str, int]] = {
    **{f"SLOT_{name}": offset for name, offset in slots.SLOT_AT.items()},
    **{name: getattr(slots, name) for name in ("SAVED", "INSIDE", "OPERATION_SIZE")},
    **{name: getattr(slots, name) for name in ("ARMED", "CLAIMED")},
    **{f"HOST_{name}": slots.SLOT_AT["HOST"] + 8 * i for i, name in enumerate(REGISTER_NAMES)},
    **{name: getattr(layout, name) for name in ("STUB", "BOX", "NATIVE_CODE", "NATIVE_SLOTS")},
    "CONTROL_AEP": box.CONTROL_AT["AEP"],
    "RECORDS_SHIFT": RECORDS_SHIFT,
    "RECORDS_HIGH": systrap_layout.RECORDS >> RECORDS_SHIFT,
    "RECORD_SLOT": systrap_layout.RECORD_AT["NATIVE"],
    "TABLE_MASK": slots.TABLE_SIZE - 1,
    "EENTER": leaves.EENTER,
    "ENCLU_LENGTH": leaves.ENCLU_LENGTH,
    "SYS_GETTID": nr.GETTID,
    "SYS_RT_SIGPROCMASK": nr.RT_SIGPROCMASK,
    "SIG_UNBLOCK": abi.SIG_UNBLOCK,
}

_HEAD: Final = '''\
"""What the sources in assembler assemble to. Written by `make asm`; do not edit.

Code is a list of (label, bytes up to the next label); .eh_frame is as the assembler leaves it, with
the address of the function still to be filled in.
"""

from typing import Final

# ruff: noqa: E501
# fmt: off
'''


class Assembled(NamedTuple):
    """One source: code by label, and the .eh_frame section if it has one."""

    code: list[tuple[str, bytes]]
    eh_frame: bytes


def assemble(source: Path, symbols: Mapping[str, int]) -> Assembled:
    """Run `as`, and refuse code that would need a linker."""
    with TemporaryDirectory() as directory:
        made = Path(directory) / "out.o"
        definitions = [f"--defsym={name}={value}" for name, value in symbols.items()]
        subprocess.run(["as", "--64", *definitions, "-o", made, source], check=True)
        with made.open("rb") as file:
            return _read(ELFFile(file), source)


def _read(elf: ELFFile, source: Path) -> Assembled:
    if elf.get_section_by_name(".rela.text") is not None:
        raise SystemExit(f"softsgx: assemble: {source}: code with relocations")
    section = elf.get_section_by_name(".text")
    assert section is not None
    text = section.data()
    index = elf.get_section_index(".text")
    table = elf.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    labels = [
        (symbol["st_value"], position, symbol.name)
        for position, symbol in enumerate(table.iter_symbols())
        # Symbols beyond the code are the memory around it; those of type SECTION have no name.
        if symbol["st_shndx"] == index and symbol.name and symbol["st_value"] <= len(text)
    ]
    labels.sort()
    ends = [at for at, _, _ in labels[1:]] + [len(text)]
    code = [(name, text[at:end]) for (at, _, name), end in zip(labels, ends, strict=True)]
    assert b"".join(part for _, part in code) == text, "code before the first label"
    eh_frame = elf.get_section_by_name(".eh_frame")
    return Assembled(code, eh_frame.data() if eh_frame is not None else b"")


def _lines(name: str, assembled: Assembled) -> Iterator[str]:
    yield f"\n{name}_CODE: Final[tuple[tuple[str, str], ...]] = ("
    for label, part in assembled.code:
        # A run of one byte, as between the common code and the blocks, is written as a product.
        if len(part) > 64 and len(set(part)) == 1:
            yield f'    ("{label}", "{part[:1].hex()}" * {len(part)}),'
        else:
            yield f'    ("{label}", "{part.hex()}"),'
    yield ")"
    if assembled.eh_frame:
        yield f'{name}_EH_FRAME: Final = "{assembled.eh_frame.hex()}"'


def module() -> str:
    """The text of machine_code.py."""
    stub = assemble(RUNNER / "inserted/stub.s", STUB_SYMBOLS)
    function = assemble(RUNNER / "inserted/vdso.s", VDSO_SYMBOLS)
    planted = assemble(RUNNER / "inserted/planted.s", PLANTED_SYMBOLS)
    native = assemble(RUNNER / "native/native.s", NATIVE_SYMBOLS)
    hook = assemble(RUNNER / "emulator/hook.s", HOOK_SYMBOLS)
    parts = {"STUB": stub, "VDSO": function, "PLANTED": planted, "NATIVE": native, "HOOK": hook}
    return _HEAD + "\n".join(
        [*(line for name, part in parts.items() for line in _lines(name, part)), ""]
    )


if __name__ == "__main__":
    MACHINE_CODE.write_text(module(), encoding="utf-8")
    systrap_image.CODE.write_text(systrap_image.module(), encoding="utf-8")
