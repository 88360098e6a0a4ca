"""What is not explained, or not well enough, and why: each entry has its reason."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tests.explained.judge import Finding


class Excuse(NamedTuple):
    """Findings whose `what` and `why` match, and the reason."""

    what: str
    why: str
    reason: str


_CALLS: Final = r"SGX_IOC_\w+|ioctl 0x[0-9a-f]+|mmap|munmap|mprotect|pkey_mprotect|mremap"
EXCUSES: Final = (
    Excuse(rf"({_CALLS}) -E\w+", ".*", "in work: the explanations of calls"),
    Excuse(
        r"(madvise|mlock2?|munlock|msync|open|close|dup|read|write|ioctl) -E\w+",
        "not explained",
        "in work: calls that are no events",
    ),
    Excuse(r".* [A-Z]+\.\d\d", "no way out but the rule itself", "in work: the way out of leaves"),
    Excuse(r".* [A-Z]+\.\d\d", "about another operand.*", "in work: the way out of leaves"),
    Excuse(r"(vDSO .*|SIG\w+ \w+) of no rule", "not explained", "in work: exceptions of programs"),
)


def excused(finding: Finding) -> bool:
    """Whether somebody has said why this is so."""
    return any(
        re.fullmatch(excuse.what, finding.what) and re.fullmatch(excuse.why, finding.why)
        for excuse in EXCUSES
    )
