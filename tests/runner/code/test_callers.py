"""Near calls into gaps between functions: the fast search against a look at every byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from softsgx.runner.code.callers import near_calls

BASE = 0x40_1000


def every_byte(content: bytes, vaddr: int, gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found = []
    for at in range(len(content) - 4):
        distance = int.from_bytes(content[at + 1 : at + 5], "little", signed=True)
        target = vaddr + at + 5 + distance
        into = any(low <= target < high and not low <= vaddr + at < high for low, high in gaps)
        if content[at] in (0xE8, 0xE9) and into:
            found.append((target, vaddr + at))
    return found


@given(
    st.integers(64, 200_000),
    st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 70_000)), min_size=1, max_size=4),
    st.lists(
        st.tuples(st.integers(0, 200_000), st.integers(0, 200_000), st.booleans()), max_size=20
    ),
)
def test_fast_search_finds_what_the_slow_one_finds(
    size: int, gaps: list[tuple[int, int]], calls: list[tuple[int, int, bool]]
) -> None:
    content = bytearray(size)
    for at, target, jump in calls:
        if at + 5 <= size:
            content[at] = 0xE9 if jump else 0xE8
            content[at + 1 : at + 5] = (target - at - 5).to_bytes(4, "little", signed=True)
    places = [(BASE + low, BASE + low + length) for low, length in gaps]
    found = list(near_calls(bytes(content), BASE, places))
    assert found == every_byte(bytes(content), BASE, places)


def test_call_whose_bytes_cross_a_block() -> None:
    content = bytearray(0x2_0000)
    for at in range(0xFFFC, 0x1_0002, 5):
        content[at] = 0xE8
        content[at + 1 : at + 5] = (0x1_8000 - at - 5).to_bytes(4, "little")
    found = list(near_calls(bytes(content), 0, [(0x1_8000, 0x1_8001)]))
    assert found == [(0x1_8000, 0xFFFC), (0x1_8000, 0x1_0001)]


def test_short_segments() -> None:
    assert list(near_calls(b"", BASE, [(BASE, BASE + 9)])) == []
    assert list(near_calls(b"\xe8\0\0\0", BASE, [(0, 1 << 47)])) == []
    assert list(near_calls(b"\xe8\0\0\0\0", BASE, [(BASE + 5, BASE + 6)])) == [(BASE + 5, BASE)]
