"""Many streams, in several processes if wanted; each depends on its seed and number alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from tests.differential.compare import Difference, Seen, compare
from tests.differential.operations import Op, Setting, episode
from tests.differential.shrink import Shrinker

LENGTH: Final = 200
_CHUNK: Final = 20


class Found(NamedTuple):
    """A stream on which the drivers differ."""

    number: int
    setting: Setting
    ops: list[Op]
    difference: Difference


class Part(NamedTuple):
    """What some streams have shown."""

    operations: int
    counts: Counter[str]
    found: list[Found]


def stretch(driver: Path, linux: str, seed: int, length: int, numbers: range) -> Part:
    """Tell some streams, up to the first that differs."""
    seen, operations = Seen(), 0
    for number in numbers:
        setting, ops = episode(seed, number, length)
        difference = compare(driver, linux, setting, ops, seen)
        operations += len(ops)
        if difference is not None:
            return Part(operations, seen.counts, [Found(number, setting, ops, difference)])
    return Part(operations, seen.counts, [])


def campaign(
    driver: Path, linux: str, *, seed: int, first: int, streams: int, length: int, jobs: int
) -> Iterator[Part]:
    """Tell streams number `first` and on, by parts."""
    chunks = [
        range(at, min(at + _CHUNK, first + streams)) for at in range(first, first + streams, _CHUNK)
    ]
    one = partial(stretch, driver, linux, seed, length)
    with ProcessPoolExecutor(jobs) if jobs > 1 else nullcontext() as pool:
        yield from map(one, chunks) if pool is None else pool.map(one, chunks)


def shrunk(driver: Path, linux: str, found: Found) -> tuple[list[Op], Difference]:
    """The shortest stream that differs as the one that was found."""
    shrinker = Shrinker(lambda ops: compare(driver, linux, found.setting, ops), found.difference)
    ops = shrinker.shrink(found.ops)
    return ops, shrinker.difference
