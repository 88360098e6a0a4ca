"""What is not explained, or not well enough, each with the reason."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tests.explained.judge import Finding


class Excuse(NamedTuple):
    """Findings whose `what` and `why` match, and the reason."""

    what: str
    why: str
    reason: str


EXCUSES: Final[tuple[Excuse, ...]] = (
    Excuse(
        r"vDSO .* of no rule",
        "not explained",
        "tests/linux/test_vdso.py: a scripted enclave ends in exceptions out of nothing",
    ),
)


def excused(finding: Finding) -> bool:
    """Whether an entry matches."""
    return any(
        re.fullmatch(excuse.what, finding.what) and re.fullmatch(excuse.why, finding.why)
        for excuse in EXCUSES
    )
