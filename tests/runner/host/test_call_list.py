"""Functions of C called one after the other: all of them, or up to the first that fails."""

from __future__ import annotations

import ctypes
from typing import Any

from softsgx.runner.host.call_list import CallList, argument_word, function_word

_LIBC = ctypes.CDLL(None)


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _calls(made: list[tuple[int, ...]], *results: int) -> tuple[CallList, list[Any]]:
    """A list of functions that return these results, and note their arguments."""
    kind = ctypes.PYFUNCTYPE(ctypes.c_int, *[ctypes.c_uint64] * 6)
    calls, kept = CallList(len(results)), []

    def function(result: int) -> Any:
        def call(*words: int) -> int:
            made.append(words)
            return result

        return kind(call)

    for number, result in enumerate(results):
        kept.append(function(result))
        calls.set(number, _address(kept[-1]), number, 1 << 63, expected=7)
    return calls, kept


def test_all_are_called_in_order_with_their_arguments() -> None:
    made: list[tuple[int, ...]] = []
    calls, kept = _calls(made, 7, 7, 7)
    assert kept
    assert calls.run() == -1
    assert made == [(number, 1 << 63, 0, 0, 0, 0) for number in range(3)]


def test_the_first_other_result_ends_it() -> None:
    """Only 32 bits are compared: functions that return an int leave others undefined."""
    made: list[tuple[int, ...]] = []
    calls, kept = _calls(made, 7, -1, 7)
    assert kept
    assert calls.run() == 1
    assert calls.result(1) == 0xFFFF_FFFF
    assert len(made) == 2


def test_a_call_whose_function_is_0_is_left_out() -> None:
    made: list[tuple[int, ...]] = []
    calls, kept = _calls(made, 7, -1, 7)
    calls.words[function_word(1)] = 0
    calls.words[argument_word(2, 5)] = 99
    assert kept
    assert calls.run() == -1
    assert made == [(0, 1 << 63, 0, 0, 0, 0), (2, 1 << 63, 0, 0, 0, 99)]
    calls.set(1, _address(_LIBC.abs), 5, expected=5)
    assert calls.run() == -1
