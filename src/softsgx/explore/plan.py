"""The plan of a search: which strategy, how far, from which seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

DEEPENING: Final = "deepening"
EXHAUSTIVE: Final = "exhaustive"
STATES: Final = "states"
DFS: Final = "dfs"
PCT: Final = "pct"
GUIDED: Final = "guided"
RANDOM: Final = "random"

STRATEGIES: Final = (DEEPENING, STATES, EXHAUSTIVE, DFS, PCT, GUIDED, RANDOM)
"""The names of the strategies, as on the command line."""

BOUNDED: Final = (DEEPENING, DFS)
"""The strategies to which a bound of preemptions applies."""

SAMPLED: Final = (PCT, GUIDED, RANDOM)
"""The strategies that draw executions at random, and so are never complete."""

WHOLE: Final = (STATES, GUIDED)
"""The strategies in which each execution depends on those before it: they are not divided."""

DEEP: Final = (PCT, GUIDED)
"""The strategies to which the depth applies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to explore.

    strategy     one of STRATEGIES
    seed         the seed of everything random
    executions   the most executions
    preemptions  bound of DFS, highest bound of DEEPENING; None: no bound
    depth        of DEEP: how many ordering constraints a fault may need
    minimise     make a failing schedule small
    """

    strategy: str = DEEPENING
    seed: int = 0
    executions: int = 1_000_000
    preemptions: int | None = None
    depth: int = 3
    minimise: bool = True

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise ValueError(f"strategy {self.strategy!r}: known are {known}")
        if self.preemptions is not None and self.strategy not in BOUNDED:
            bounded = " and ".join(BOUNDED)
            raise ValueError(f"strategy {self.strategy} has no bound of preemptions: {bounded} do")
        for name, least in (("executions", 1), ("depth", 1), ("preemptions", 0)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(f"{name} = {value!r}: not a number from {least} up")

    @property
    def bounds(self) -> Iterator[int | None]:
        """The bounds of preemptions to search one after the other; None: no bound."""
        if self.strategy != DEEPENING:
            yield self.preemptions if self.strategy == DFS else None
        elif self.preemptions is None:
            yield from count()
        else:
            yield from range(self.preemptions + 1)
