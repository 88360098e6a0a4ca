"""Strategies: schedulers that search, a file for each."""

from softsgx.explore.strategies.bounded import Bounded
from softsgx.explore.strategies.dpor import Dpor
from softsgx.explore.strategies.guided import Guided
from softsgx.explore.strategies.pct import Pct
from softsgx.explore.strategies.states import States
from softsgx.explore.strategies.strategy import Strategy
from softsgx.explore.strategies.walk import Walk

__all__ = ["Bounded", "Dpor", "Guided", "Pct", "States", "Strategy", "Walk"]
