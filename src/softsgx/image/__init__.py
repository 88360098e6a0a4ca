"""Enclave images: built from ELF, kept as SGXS, measured, signed. No processor is needed for it.

`image` what is loaded, `elf` and `layout` from a program to that, `sgxs` the stream of what is
measured, `sigstruct` the signed description, `file` which of them a file is.
"""

from softsgx.image.errors import ImageError
from softsgx.image.image import ALL_CHUNKS, NO_CHUNKS, EnclaveImage, Page, Segment

__all__ = ["ALL_CHUNKS", "NO_CHUNKS", "EnclaveImage", "ImageError", "Page", "Segment"]
