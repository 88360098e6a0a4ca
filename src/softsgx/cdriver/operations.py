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


OPERATIONS: Final = _names()
"""By number."""
