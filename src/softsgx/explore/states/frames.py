"""Suspended generators: where they stand, and everything that their frames hold.

The collector of cycles knows every object that a frame holds: locals, cells, and what is on the
value stack, such as the iterator of a for loop and the generator of a `yield from`. It does not say
which locals are unset, so their names are asked for as well.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from gc import get_referents
from types import GeneratorType
from typing import Any, Final, TypeAlias

from softsgx.explore.states.kinds import PLAIN, code_token
from softsgx.sim import Task

Generating: TypeAlias = "GeneratorType[Any, Any, Any]"


class Frame:
    """What a generator that does not run holds, ready to be written.

    `pieces` are runs of values that do not change, each followed by an object that may; `rest` is
    the last run. `head` is code, place, and names of the locals that are set; () if it has ended.
    """

    __slots__ = ("generator", "head", "pieces", "rest", "sub")

    def __init__(self, generator: Generating, known: Mapping[int, Any]) -> None:
        self.generator = generator
        self.sub = generator.gi_yieldfrom
        self.pieces: list[tuple[list[Any], Any]] = []
        run: list[Any] = []
        frame = generator.gi_frame
        self.head: tuple[Any, ...] = ()
        if frame is not None:
            # Sorted: the order is that in which the names were first asked for.
            names = tuple(sorted(frame.f_locals))
            self.head = (code_token(frame.f_code), frame.f_lasti, names)
            for held in get_referents(generator)[_SKIPPED:]:
                token = held if type(held) in PLAIN else known.get(id(held))
                if token is None and held is not None:
                    self.pieces.append((run, held))
                    run = []
                else:
                    run.append(token)
        self.rest = run


def _listed(generator: Generating) -> tuple[tuple[str, ...], list[object]]:
    # f_locals first: what it creates, the frame object and the dictionary, is among the referents.
    frame = generator.gi_frame
    assert frame is not None
    names = tuple(frame.f_locals)
    return names, get_referents(generator)


def _skipped() -> int:
    """How many referents precede the first local: code, names, frame, function.

    It differs between versions of Python, so it is measured once, on a generator that holds known
    objects in a local, on the stack of a for loop and by `yield from`.
    """
    mark = object()

    def probe(local: object) -> Generator[object, None, None]:
        for each in (1, 2):
            yield from iter((each, each))

    generator: Any = probe(mark)
    next(generator)
    names, referents = _listed(generator)
    kinds = [type(held).__name__ for held in referents]
    places = [place for place, held in enumerate(referents) if held is mark]
    if names != ("local", "each") or kinds.count("tuple_iterator") != 2 or not places:
        return -1
    return places[0]


_SKIPPED: Final = _skipped()


def readable() -> bool:
    """Whether this Python shows what a suspended generator holds."""
    return _SKIPPED >= 0


class Frames:
    """The frames of the tasks of one execution; they are read again when their task has stepped."""

    def __init__(self, known: Mapping[int, Any]) -> None:
        self._known = known
        self._frames: dict[int, Frame] = {}
        # The frames of each task, from the outermost to the innermost.
        self._chains: dict[Task, list[Frame]] = {}
        self._stepped: dict[Task, None] = {}

    def of(self, generator: Generating) -> Frame:
        """The frame of a generator that does not run."""
        return self._frames.get(id(generator)) or Frame(generator, self._known)

    def stepped(self, task: Task) -> None:
        """A task takes a step: its frames change."""
        self._stepped[task] = None

    def read(self, tasks: Sequence[Task]) -> None:
        """Read the frames of new tasks, and again those of tasks that have stepped."""
        chains, stepped = self._chains, self._stepped
        for task in stepped:
            if task.done:
                for frame in chains.pop(task, ()):
                    del self._frames[id(frame.generator)]
        for task in tasks:
            if task in stepped or task not in chains:
                self._read(task)
        stepped.clear()

    def _read(self, task: Task) -> None:
        frames = self._frames
        old, new = self._chains.get(task, ()), []
        for frame in old:
            del frames[id(frame.generator)]
        body: Any = task.body
        place = 0
        while isinstance(body, GeneratorType):
            sub = body.gi_yieldfrom
            known = old[place] if place < len(old) else None
            same = known is not None and known.generator is body and known.sub is sub
            # If it waits for the same `yield from`, it has not run since.
            frame = known if known and same and sub else Frame(body, self._known)
            frames[id(body)] = frame
            new.append(frame)
            body, place = sub, place + 1
        self._chains[task] = new
