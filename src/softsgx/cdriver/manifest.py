"""What a driver object says of itself: a section of JSON in the ELF file."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Final

from softsgx.cdriver.errors import DriverError
from softsgx.image.elf_format import IDENT, Ehdr, Shdr
from softsgx.linux.version import VERSION_DEFAULT

SECTION: Final = ".softsgx"
C: Final = Path(__file__).with_name("c")
"""The C code of this package: headers, and the run time that is linked to a driver."""

CALL: Final = "call"
TRAP: Final = "trap"
_LATER: Final = (6, 2)
_LATEST: Final = (6, 18)
ENCLS: Final = (CALL, TRAP)
"""How ENCLS is served: a call in its place, or the instruction itself, which is #UD."""


@dataclass(frozen=True)
class Manifest:
    """headers  digest of the C code of softsgx; an object fits only the same
    linux    the release of the tree
    encls    how ENCLS is served
    inputs   digest of each file of the tree that was read, by its name in the tree
    compiler the version of the compiler
    """

    headers: str
    linux: str
    encls: str
    inputs: dict[str, str]
    compiler: str

    def pack(self) -> bytes:
        """As it stands in the section."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @property
    def identity(self) -> str:
        """Eight hexadecimal digits, the same for objects that were made of the same inputs."""
        return sha256(self.pack()).hexdigest()[:8]

    @property
    def kernel(self) -> str:
        """The kernel of `linux.version` that is nearest: of all code but the driver."""
        major, minor = (int(part) for part in self.linux.split(".")[:2])
        if (major, minor) >= _LATEST:
            return "6.18"
        return "6.1" if (major, minor) < _LATER else VERSION_DEFAULT


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return sha256(path.read_bytes()).hexdigest()


def headers_digest() -> str:
    """One digest of all C files of this package."""
    total = sha256()
    for path in sorted(C.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(C)} {digest(path)}\n".encode())
    return total.hexdigest()


def read(path: Path) -> Manifest:
    """The manifest of a driver object. DriverError if the file is not one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DriverError(f"{path}: {error.strerror}") from None
    try:
        found = json.loads(section(data, SECTION))
        return Manifest(**{field.name: found[field.name] for field in fields(Manifest)})
    except (ValueError, KeyError, TypeError, struct.error, IndexError):
        raise DriverError(
            f"{path}: not a driver object: make one with softsgx driver build"
        ) from None


def fitting(path: Path) -> Manifest:
    """As `read`; DriverError if the object was built for another softsgx."""
    manifest = read(path)
    if manifest.headers != headers_digest():
        raise DriverError(
            f"{path}: built for another softsgx: build it again: softsgx driver build"
        )
    return manifest


def section(data: bytes, name: str) -> bytes:
    """The contents of a section of an ELF file. ValueError or struct.error if there is none."""
    if not data.startswith(IDENT[:6]):
        raise ValueError("not ELF")
    header = Ehdr.unpack(data[: Ehdr.SIZE])
    rows = [
        Shdr.unpack(data[at : at + Shdr.SIZE])
        for at in range(header.e_shoff, header.e_shoff + header.e_shnum * Shdr.SIZE, Shdr.SIZE)
    ]
    names = rows[header.e_shstrndx]
    strings = data[names.sh_offset : names.sh_offset + names.sh_size]
    for row in rows:
        if strings[row.sh_name :].split(b"\0", 1)[0] == name.encode():
            return data[row.sh_offset : row.sh_offset + row.sh_size]
    raise ValueError(f"no section {name}")
