"""The operations of requests: their names and numbers are those of the C header."""

from __future__ import annotations

import re
from typing import Final

from softsgx.cdriver.manifest import C

_HEADER: Final = C / "include" / "request.h"
_ENUM: Final = re.compile(r"enum k_operation \{(.*?)\};", re.DOTALL)
_COMMENT: Final = re.compile(r"/\*.*?\*/", re.DOTALL)


def _names() -> list[str]:
    found = _ENUM.search(_HEADER.read_text(encoding="utf-8"))
    assert found is not None, f"{_HEADER}: no enum k_operation"
    return re.findall(r"\bK_(\w+)", _COMMENT.sub("", found[1]))


class Operation:
    """One operation; there is one object of each."""

    __slots__ = ("name", "number")

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name

    def __repr__(self) -> str:
        return f"K_{self.name}"


OPERATIONS: Final = tuple(Operation(number, name) for number, name in enumerate(_names()))
"""By number."""

BY_NAME: Final = {operation.name: operation for operation in OPERATIONS}
