"""Which memory more than one task touches, found out while executions are explored.

A granule is 8 aligned bytes at a linear address. It is shared once two parties were seen to touch
it and one of them wrote. Only accesses to shared granules, and to memory of the host, need a point:
no other task can tell when any other access takes place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

GRANULE_SHIFT: Final = 3


def granules(address: int, size: int) -> range:
    """The numbers of the granules that an access touches."""
    return range(address >> GRANULE_SHIFT, (address + max(size, 1) - 1 >> GRANULE_SHIFT) + 1)


class Sharing:
    """What was touched by whom, in all executions so far.

    everything   whether all accesses have points, to find out what is shared
    points       the granules whose accesses have points
    """

    def __init__(self) -> None:
        self.everything = True
        self.points: frozenset[int] = frozenset()
        # Bit masks of parties by granule.
        self._loaded: dict[int, int] = {}
        self._stored: dict[int, int] = {}

    def touched(self, party: int, address: int, size: int, write: bool) -> None:
        """Note an access. A party is a task, or a handler that runs on top of one."""
        masks = self._stored if write else self._loaded
        bit = 1 << party
        for granule in granules(address, size):
            known = masks.get(granule, 0)
            if not known & bit:
                masks[granule] = known | bit

    def has_point(self, address: int, size: int) -> bool:
        """Whether an access to the enclave has a point."""
        return self.everything or any(granule in self.points for granule in granules(address, size))

    @property
    def shared(self) -> frozenset[int]:
        """The granules that are shared as far as is known."""
        found = []
        for granule, stored in self._stored.items():
            parties = stored | self._loaded.get(granule, 0)
            if parties & (parties - 1):
                found.append(granule)
        return frozenset(found)

    @property
    def unmarked(self) -> list[int]:
        """Addresses of granules that are shared and have no point, in order."""
        return [granule << GRANULE_SHIFT for granule in sorted(self.shared - self.points)]

    def mark(self, more: Iterable[int] = ()) -> bool:
        """Give points to all shared granules, and to those at the addresses `more`.

        False if they had points already.
        """
        wanted = self.points | self.shared | {address >> GRANULE_SHIFT for address in more}
        if wanted == self.points:
            return False
        self.points = wanted
        return True
