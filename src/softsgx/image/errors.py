"""What is wrong with an enclave image or with a file that should hold one."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """Why the processor refuses a structure: the field, its byte offset, and what is wrong."""

    field: str
    offset: int
    why: str

    def __str__(self) -> str:
        return f"{self.field} at byte {self.offset}: {self.why}"


class ImageError(ValueError):
    """An image, a file or an option that cannot be used; the text is one line, `where: why`.

    `where` names the field, and its byte offset if it comes from a file.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why
