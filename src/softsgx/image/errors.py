"""What is wrong with an enclave image, or with a file that should hold one."""

from __future__ import annotations


class ImageError(ValueError):
    """An image, a file or an option that cannot be used; the text is one line, `where: why`.

    `where` names the field, and its byte offset if it comes from a file.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why
