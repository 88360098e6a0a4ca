"""What writes down a state works with: the list that is written, plans for kinds of objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from softsgx.explore.states.frames import Frames
from softsgx.sim import Unmodelled

Token: TypeAlias = tuple[Any, ...]
"""A mark in the list: what follows, the number of an object, a name. Values are never tuples."""


class Uncovered(Unmodelled):
    """An object of which nobody knows all that a step could read: `thing`, and `why`."""

    def __init__(self, thing: object, why: str) -> None:
        super().__init__(why)
        self.thing = thing
        self.why = why


class Keyed(Protocol):
    """An object that says itself what its state is, such as a processor or memory in C."""

    def state_key(self) -> tuple[object, Sequence[object], Sequence[object]]:
        """A value of what `marshal` writes; objects that it refers to; objects it accounts for.

        The first two together say how the object will behave. Of the third, always in the same
        order, nothing is written but which of them it is, if other objects refer to it.
        """


class Out(Protocol):
    """A state that is being written. `known` has tokens of objects by id(), `seen` those met."""

    out: list[Any]
    known: dict[int, Token]
    seen: dict[int, Token]
    frames: Frames
    keep: list[Any]

    def value(self, value: Any) -> None:
        """Write a value, or the number of an object."""

    def values(self, values: Iterable[Any]) -> None:
        """Write several values."""

    def alone(self, thing: Any) -> bytes:
        """A digest of one object and what it refers to, whatever else there is."""


Write: TypeAlias = Callable[[Out, Any], None]


class Plan:
    """How objects of one type are written; `inline`: as a value, without a number."""

    __slots__ = ("inline", "write")

    def __init__(self, write: Write, inline: bool) -> None:
        self.write = write
        self.inline = inline
