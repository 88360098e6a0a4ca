"""Cases that are not as on Linux, and why: strict, a case that is right again leaves the list."""

from __future__ import annotations

from typing import Final

from tests.signals.comparing import Known

KNOWN: Final[dict[str, tuple[Known, ...]]] = {}
