"""The schedule string."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softsgx.sim import ScheduleError, decode, encode, letters

CHOICES = st.lists(st.one_of(st.integers(0, 3), st.integers(-4, -1), st.integers(-1000, 1000)))

EXAMPLES: list[tuple[list[int], str]] = [
    ([], "1:"),
    ([0, 0, 0, 1, *[0] * 12], "1:a3ba12"),
    ([0, ~2, 2], "1:a=2c"),
    ([~0, ~0, ~0, 0, ~11], "1:=0^3a=11"),
    ([25, 26, 27, 27], "1:zBaBb2"),
    ([26 * 26 - 1, 26 * 26], "1:ZzBAa"),
]


@pytest.mark.parametrize(("choices", "text"), EXAMPLES)
def test_examples(choices: list[int], text: str) -> None:
    assert encode(choices) == text
    assert decode(text) == choices


@given(CHOICES)
def test_decode_inverts_encode(choices: list[int]) -> None:
    assert decode(encode(choices)) == choices


@given(st.lists(st.integers(0, 1)))
def test_runs_make_it_short(choices: list[int]) -> None:
    assert len(encode(choices)) <= 2 + len(choices)


@given(st.text("1:ab=^0Z"))
def test_any_text_is_decoded_or_refused(text: str) -> None:
    try:
        choices = decode(text)
    except ScheduleError:
        return
    assert decode(encode(choices)) == choices


def test_letters_are_unique() -> None:
    assert len({letters(index) for index in range(20_000)}) == 20_000


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "no version; a schedule starts with '1:'"),
        ("a3b", 0, "no version; a schedule starts with '1:'"),
        ("2:a", 0, "version '2'; only version 1 is understood"),
        ("1:a3-b", 4, "no task and no draw: '-'"),
        ("1:ab=", 4, "no task and no draw: '='"),
        ("1:3", 2, "no task and no draw: '3'"),
        ("1:Aa", 2, "no task and no draw: 'A'"),
        ("1:aB", 3, "no task and no draw: 'B'"),
        ("1:a b", 3, "no task and no draw: ' '"),
        ("1:a٣", 3, "no task and no draw: '٣'"),
        ("1:ba0", 3, "a run of 0"),
        ("1:a=0^0", 3, "a run of 0"),
        ("1:a5000000b5000001", 10, "more than 10000000 choices"),
        ("1:a=0^12345678901234567890", 3, "longer than 18 characters"),
    ],
)
def test_what_and_where(text: str, position: int, reason: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        decode(text)
    assert (caught.value.position, caught.value.reason) == (position, reason)
