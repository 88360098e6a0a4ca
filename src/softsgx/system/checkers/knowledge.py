"""What an ioctl over a range reports to its caller is true.

Verified for RESTRICT_PERMISSIONS without a concurrent one: below `count` every page has the rights
asked for and PR set, from `count` on none has changed; errno 0 comes with a complete count.
Not verified: which of several errnos it should have been.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softsgx.explore import Violation
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PR, RWX

if TYPE_CHECKING:
    from softsgx.system.scene import Scene

RULE = "caller misinformed"


def check_restrict(
    scene: Scene, before: dict[int, int], rights: int, answer: tuple[int, Any]
) -> None:
    """`before` has the EPCM words of the range, `answer` is (errno, argument block)."""
    errno, block = answer
    pages = sorted(before)
    length = len(pages) * PAGE_SIZE
    for place, address in enumerate(pages):
        word = scene.epcm_word(address)
        changed = word is not None and word != before[address]
        if place * PAGE_SIZE < block.count:
            if word is None or not word & PR or word & RWX & ~rights:
                raise Violation(RULE, f"{address:#x} is counted, but was not restricted")
        elif changed:
            raise Violation(RULE, f"{address:#x} is not in count {block.count:#x}, yet it changed")
    if not errno and block.count != length:
        raise Violation(RULE, f"errno {errno} with count {block.count:#x} of {length:#x}")
