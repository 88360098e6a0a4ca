"""The schedule string: every choice of one execution, short enough to paste.

    1:a3ba12=2c

Version 1: task a three times, b once, a twelve times, a draw that gave 2, task c. In full:

    schedule = "1:" item*
    item     = task run?          run: how often in a row, decimal; 1 if left out
             | "=" value ("^" run)?
    task     = [B-Z][A-Z]* [a-z] | [a-z]

A task is its index in base 26 with the last digit in lower case: a..z are 0..25, Ba is 26, Bb 27.
Only real choices are in it: a step is recorded if more than one task was enabled, a draw if more
than one value was possible. So a change of what runs alone (setting up, tidying up) does not
invalidate a schedule, and the stretch after all other tasks have ended costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Final, TypeAlias

from softsgx.sim.errors import ScheduleError

Choice: TypeAlias = int
"""A task's index, or ~value of a draw. One int each, because one is recorded per step."""

VERSION: Final = "1"

# A few characters stand for any number of choices; a typo must not exhaust memory.
MAX_CHOICES: Final = 10_000_000

_ITEM: Final = re.compile(
    r"(?P<task>(?:[B-Z][A-Z]*)?[a-z])(?P<run>[0-9]*)|=(?P<value>[0-9]+)(?:\^(?P<times>[0-9]+))?"
)
_MAX_DIGITS: Final = 18


def letters(index: int) -> str:
    """The letters that stand for the task of this index."""
    high, low = divmod(index, 26)
    text = chr(ord("a") + low)
    while high:
        high, digit = divmod(high, 26)
        text = chr(ord("A") + digit) + text
    return text


def encode(choices: Iterable[Choice]) -> str:
    """The string of these choices."""
    return f"{VERSION}:" + "".join(_item(c, sum(1 for _ in run)) for c, run in groupby(choices))


def decode(text: str) -> list[Choice]:
    """The choices of this string; ScheduleError if it is not a schedule."""
    version, colon, _ = text.partition(":")
    if not colon:
        raise ScheduleError(text, 0, f"no version; a schedule starts with '{VERSION}:'")
    if version != VERSION:
        raise ScheduleError(text, 0, f"version {version!r}; only version {VERSION} is understood")
    choices: list[Choice] = []
    position = len(VERSION) + 1
    while position < len(text):
        item = _ITEM.match(text, position)
        if item is None:
            raise ScheduleError(text, position, f"no task and no draw: {text[position]!r}")
        if len(item[0]) > _MAX_DIGITS:
            raise ScheduleError(text, position, f"longer than {_MAX_DIGITS} characters")
        run = int(item["run"] or item["times"] or 1)
        if run == 0:
            raise ScheduleError(text, position, "a run of 0")
        if len(choices) + run > MAX_CHOICES:
            raise ScheduleError(text, position, f"more than {MAX_CHOICES} choices")
        choice = ~int(item["value"]) if item["value"] else _index(item["task"])
        choices.extend([choice] * run)
        position = item.end()
    return choices


def _item(choice: Choice, run: int) -> str:
    if choice < 0:
        return f"={~choice}" + (f"^{run}" if run > 1 else "")
    return letters(choice) + (str(run) if run > 1 else "")


def _index(task: str) -> int:
    index = 0
    for digit in task.lower():
        index = index * 26 + ord(digit) - ord("a")
    return index
