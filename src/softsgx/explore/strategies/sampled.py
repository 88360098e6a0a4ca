"""The strategies whose executions are drawn at random, by name."""

from __future__ import annotations

from softsgx.explore.orders import OrdersWatch
from softsgx.explore.plan import PCT, RANDOM
from softsgx.explore.scenario import Scenario
from softsgx.explore.strategies.guided import Guided
from softsgx.explore.strategies.pct import Pct
from softsgx.explore.strategies.walk import Walk
from softsgx.sim import Rng


def sampled(
    name: str,
    scenario: Scenario,
    seed: int,
    count: int,
    first: int = 0,
    *,
    depth: int = 1,
    steps: int = 1,
) -> Walk | Pct:
    """`count` executions of the seed from number `first` on, whose orders are noted.

    `depth`, `steps`: as of Pct, for DEEP strategies.
    """
    watch = OrdersWatch(scenario)
    if name == RANDOM:
        return Walk(Rng(seed), count, first, watch=watch)
    kind = Pct if name == PCT else Guided
    return kind(Rng(seed), count, depth, steps, first, watch=watch)
