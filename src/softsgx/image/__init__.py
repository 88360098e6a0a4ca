"""Enclave images: built from ELF, kept as SGXS, measured, signed. No processor is needed.

`image` is what is loaded; `elf` and `layout` make it from a program; `sgxs` is the stream of what
is measured; `sigstruct` is the signed description; `file` tells which of these a file is.
"""

from softsgx.image.errors import ImageError
from softsgx.image.image import ALL_CHUNKS, NO_CHUNKS, EnclaveImage, Page, Segment

__all__ = ["ALL_CHUNKS", "NO_CHUNKS", "EnclaveImage", "ImageError", "Page", "Segment"]
