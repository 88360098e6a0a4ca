"""The kind of an enclave file, recognised by its content and never by its name."""

from __future__ import annotations

from typing import Final

from softsgx.image import elf_format, sgxs
from softsgx.image.errors import ImageError
from softsgx.image.image import EnclaveImage
from softsgx.image.layout import Layout, ThreadLayout
from softsgx.spec.sigstruct import SIGSTRUCT, SIGSTRUCT_HEADER

ELF: Final = "ELF"
SGXS: Final = "SGXS"
SIG: Final = "SIGSTRUCT"
# Enough bytes to tell the kind, except of a SIGSTRUCT with a damaged header.
HEAD_SIZE: Final = SIGSTRUCT.SIZE + 1


def kind(data: bytes) -> str:
    """ELF, SGXS or SIG; `data` may be cut to HEAD_SIZE bytes. Raises ImageError."""
    if data.startswith(elf_format.MAGIC):
        return ELF
    if data.startswith(sgxs.MAGICS):
        return SGXS
    if data.startswith(SIGSTRUCT_HEADER) or len(data) == SIGSTRUCT.SIZE:
        return SIG
    first = data[:8].hex() or "nothing"
    raise ImageError("content", f"begins with {first}: neither ELF, SGXS nor SIGSTRUCT")


def load(data: bytes, layout: Layout | None = None) -> EnclaveImage:
    """The image of an ELF or SGXS file; `layout` is for ELF, default ThreadLayout().

    Raises ImageError.
    """
    found = kind(data)
    if found == SIG:
        raise ImageError("content", "a SIGSTRUCT, which holds no enclave: give an ELF or SGXS file")
    if found == ELF:
        return (layout or ThreadLayout()).image(data)
    if layout is not None:
        raise ImageError("layout", "an SGXS file has its pages laid out already")
    return sgxs.read(data)
