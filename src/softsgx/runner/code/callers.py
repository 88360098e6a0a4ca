"""Bytes that look like near calls or jumps into given parts of a segment.

Assembly without call frame information is entered from compiled code by direct calls. The search
uses the upper half of the distance, which varies little within a block, so that the regular
expression engine rejects almost all other bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

_BLOCK: Final = 1 << 16
_SIZE: Final = 5  # opcode and 32-bit distance


def near_calls(
    content: bytes, vaddr: int, gaps: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """(target, address) of bytes that may be a CALL or JMP from outside into one of the gaps."""
    end = len(content) - _SIZE + 1
    for block in range(0, end, _BLOCK):
        stop = min(block + _BLOCK, end)
        pattern = _pattern(vaddr + block, vaddr + stop, gaps)
        # The pattern looks at the whole distance, which may end beyond the block.
        for match in pattern.finditer(content, block, stop + _SIZE - 1):
            start = match.start()
            at = vaddr + start
            distance = int.from_bytes(content[start + 1 : start + _SIZE], "little", signed=True)
            target = at + _SIZE + distance
            if any(low <= target < high and not low <= at < high for low, high in gaps):
                yield target, at


def _pattern(first: int, stop: int, gaps: Sequence[tuple[int, int]]) -> re.Pattern[bytes]:
    """Calls and jumps at addresses in [first, stop) that may lead into a gap."""
    uppers = set()
    for low, high in gaps:
        nearest, farthest = low - stop - _SIZE, high - first - _SIZE
        uppers |= {upper & 0xFFFF for upper in range(nearest >> 16, (farthest >> 16) + 1)}
    third = b"".join(sorted({re.escape(bytes([upper & 0xFF])) for upper in uppers}))
    fourth = b"".join(sorted({re.escape(bytes([upper >> 8])) for upper in uppers}))
    # A lookahead, which consumes no bytes: the next call may begin inside these.
    return re.compile(rb"[\xe8\xe9](?=..[" + third + rb"][" + fourth + rb"])", re.DOTALL)
