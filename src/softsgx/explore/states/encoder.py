"""Writing down a state: a flat list of values that is equal for two states if they are alike.

Objects are numbered in the order in which they are first met, from the scenario and its tasks
outwards, and their contents follow in that order. So nothing depends on addresses, and what cannot
be reached does not count. Objects that every execution starts from have a name of their own
(`known`), and their contents are compared elsewhere (`start`).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from marshal import dumps
from typing import Any

from softsgx.explore.states.frames import Frames
from softsgx.explore.states.instances import PLANS, plan_of
from softsgx.explore.states.kinds import MARSHAL, PLAIN
from softsgx.explore.states.plan import Token


class Encoder:
    """Writes one state; see `plan.Out`."""

    def __init__(self, known: dict[int, Token], frames: Frames | None = None) -> None:
        self.out: list[Any] = []
        self.known = known
        self.frames = frames or Frames(known)
        self.seen: dict[int, Token] = {}
        # Objects whose contents are still to be written; kept, so that no id() is used twice.
        self.queue: list[Any] = []
        self.keep: list[Any] = []
        self._written = 0

    def value(self, value: Any) -> None:
        """Write a value, or the number of an object."""
        kind = type(value)
        if kind in PLAIN:
            self.out.append(value)
            return
        key = id(value)
        token = self.known.get(key) or self.seen.get(key)
        if token is not None:
            self.out.append(token)
            return
        plan = PLANS.get(kind) or plan_of(value)
        if plan.inline:
            plan.write(self, value)
            return
        self.seen[key] = token = (len(self.queue),)
        self.queue.append(value)
        self.out.append(token)

    def values(self, values: Iterable[Any]) -> None:
        """Write several values."""
        append, known = self.out.append, self.known
        for each in values:
            if type(each) in PLAIN:
                append(each)
            elif (token := known.get(id(each))) is not None:
                append(token)
            else:
                self.value(each)

    def contents(self) -> None:
        """Write the contents of the objects that were met, and of those that these refer to."""
        queue, at = self.queue, self._written
        while at < len(queue):
            thing = queue[at]
            at += 1
            PLANS[type(thing)].write(self, thing)
        self._written = at

    def digest(self) -> bytes:
        """128 bits of what was written."""
        return blake2b(dumps(self.out, MARSHAL), digest_size=16).digest()

    def alone(self, thing: Any) -> bytes:
        """A digest of one object and what it refers to, whatever else there is."""
        inner = Encoder(self.known, self.frames)
        inner.value(thing)
        inner.contents()
        return inner.digest()
