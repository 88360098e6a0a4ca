"""Schedulers that follow one fixed rule; those that search are in the room `explore`."""

from softsgx.sim.schedulers.cooperative import Cooperative
from softsgx.sim.schedulers.follow import Follow
from softsgx.sim.schedulers.run_to_completion import RunToCompletion
from softsgx.sim.schedulers.virtual_time import VirtualTime

__all__ = ["Cooperative", "Follow", "RunToCompletion", "VirtualTime"]
