"""Write runner/inserted/systrap_code.py, the stub of systrap.c and systrap.S: part of `make asm`.

The bytes are committed, so that a machine without a compiler runs programs as well. Another version
of gcc makes other bytes, so the version stands beside them.
"""

import re
import subprocess
import zlib
from base64 import b85encode
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from softsgx.runner.inserted.systrap_layout import SYSTRAP_CODE, SYSTRAP_CONTROL
from softsgx.spec.bits import PAGE_SIZE
from tools.rules import ROOT
from tools.systrap_header import header

INSERTED: Final = ROOT / "src" / "softsgx" / "runner" / "inserted"
CODE: Final = INSERTED / "systrap_code.py"
FLAGS: Final = (
    *("-O2", "-ffreestanding", "-fpie", "-fvisibility=hidden", "-mgeneral-regs-only", "-mfsgsbase"),
    *("-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables"),
    *("-fno-jump-tables", "-std=gnu11", "-Wall", "-Wextra", "-Werror"),
)
_SYMBOLS: Final = {"code": SYSTRAP_CODE, "shared": SYSTRAP_CONTROL, "page": PAGE_SIZE}
_LINE: Final = 88
_HEAD: Final = '''\
"""What systrap.c and systrap.S compile to. Written by `make asm`; do not edit.

IMAGE is base85 of deflated bytes, LABELS are offsets from SYSTRAP_CODE.
"""

from typing import Final

# fmt: off
'''


class Linked(NamedTuple):
    """The image, and the offsets of its labels."""

    image: bytes
    labels: dict[str, int]


def compiler_version() -> str:
    """What gcc says of itself."""
    done = subprocess.run(["gcc", "--version"], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[0]


def link() -> Linked:
    """Compile and link the image."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "systrap.h").write_text("\n".join([*header(), ""]), encoding="utf-8")
        objects: list[Path] = []
        for source in ("systrap.S", "systrap.c"):
            made = directory / f"{source}.o"
            command = ["gcc", *FLAGS, f"-I{directory}", "-c", "-o", str(made)]
            subprocess.run([*command, str(INSERTED / source)], check=True)
            objects.append(made)
        made = directory / "systrap.elf"
        symbols = [f"--defsym={symbol}={value:#x}" for symbol, value in _SYMBOLS.items()]
        script = INSERTED / "systrap.ld"
        flags = ("-static", "-z", "noexecstack", "-T", script)
        subprocess.run(["ld", *flags, *symbols, "-o", made, *objects], check=True)
        with made.open("rb") as file:
            return _read(ELFFile(file))


def _read(elf: ELFFile) -> Linked:
    text = elf.get_section_by_name(".text")
    table = elf.get_section_by_name(".symtab")
    assert text is not None
    assert isinstance(table, SymbolTableSection)
    index = elf.get_section_index(".text")
    labels = {
        symbol.name: symbol["st_value"] - SYSTRAP_CODE
        for symbol in table.iter_symbols()
        if symbol["st_shndx"] == index and re.fullmatch("[a-z_0-9]+", symbol.name)
    }
    return Linked(text.data(), dict(sorted(labels.items(), key=itemgetter(1, 0))))


def _lines(linked: Linked) -> Iterator[str]:
    text = b85encode(zlib.compress(linked.image, 9)).decode()
    yield f'\nCOMPILER: Final = "{compiler_version()}"'
    yield "IMAGE: Final[tuple[str, ...]] = ("
    yield from (f"    {text[at : at + _LINE]!r}," for at in range(0, len(text), _LINE))
    yield ")"
    yield "LABELS: Final = {"
    yield from (f'    "{name}": {offset:#06x},' for name, offset in linked.labels.items())
    yield "}"


def module() -> str:
    """The text of systrap_code.py."""
    return _HEAD + "\n".join([*_lines(link()), ""])
