"""Seeded randomness: the only file below `runner` that may import random.

Reproducible across processes, platforms and Python versions: the generator is the Mersenne Twister
seeded by an integer, of which only getrandbits() is used; both are stable, while randrange(),
shuffle() and seeding by anything else have changed between versions. The rest is built on it here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import MutableSequence, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Rng:
    """A source of numbers that are the same for the same seed."""

    __slots__ = ("seed", "_path", "_bits")

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._start(str(seed))

    def _start(self, path: str) -> None:
        self._path = path
        # Hashed, because Random takes the absolute value of an integer.
        digest = hashlib.sha256(path.encode()).digest()
        self._bits = random.Random(int.from_bytes(digest, "big")).getrandbits

    def stream(self, name: str) -> Rng:
        """The substream of this name, from its start.

        Depends only on the seed and the names that lead to it, not on what was drawn before: a new
        user of randomness does not change the numbers of the others.
        """
        stream = Rng.__new__(Rng)
        stream.seed = self.seed
        # The length keeps stream("a/b") apart from stream("a").stream("b").
        stream._start(f"{self._path}/{len(name)}:{name}")
        return stream

    def below(self, n: int) -> int:
        """A number in [0, n), all equally likely."""
        assert n > 0, f"a number below {n}"
        bits = (n - 1).bit_length()
        value = self._bits(bits)
        while value >= n:
            value = self._bits(bits)
        return value

    def bytes(self, n: int) -> bytes:
        """n bytes."""
        return self._bits(8 * n).to_bytes(n, "little")

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def shuffle(self, items: MutableSequence[Any]) -> None:
        """Shuffle the items in place, all orders equally likely."""
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
