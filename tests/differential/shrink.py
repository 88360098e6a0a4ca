"""The shortest stream that still differs in the same way, as a test that can be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tests.differential.compare import Difference
from tests.differential.operations import Op, Setting

Stream = list[Op]
Tell = Callable[[Stream], Difference | None]
_TRIES_MAX: Final = 3000


class Shrinker:
    """Leaves out operations, then makes those that are left simpler."""

    def __init__(self, tell: Tell, first: Difference) -> None:
        self._tell = tell
        self._what = first.what
        self.difference = first
        self.tries = 0

    def shrink(self, ops: Stream) -> Stream:
        """A part of the stream, in which nothing more can be left out or simplified."""
        ops = ops[: self.difference.at + 1]
        before: Stream = []
        while before != ops and self.tries < _TRIES_MAX:
            before = ops
            ops = self._simpler(self._shorter(ops))
        return ops

    def _fails(self, ops: Stream) -> bool:
        self.tries += 1
        found = self._tell(ops)
        if found is None or found.what != self._what:
            return False
        self.difference = found
        return True

    def _shorter(self, ops: Stream) -> Stream:
        size = max(len(ops) // 2, 1)
        while size:
            at = 0
            while at < len(ops) and self.tries < _TRIES_MAX:
                shorter = ops[:at] + ops[at + size :]
                if self._fails(shorter):
                    ops = shorter
                else:
                    at += size
            size //= 2
        return ops

    def _simpler(self, ops: Stream) -> Stream:
        for at in range(len(ops)):
            again = True
            while again and self.tries < _TRIES_MAX:
                again = False
                for op in _simplified(ops[at]):
                    simpler = [*ops[:at], op, *ops[at + 1 :]]
                    if self._fails(simpler):
                        ops, again = simpler, True
                        break
        return ops


def _simplified(op: Op) -> Iterator[Op]:
    """The same operation with one thing less."""
    if op.fail is not None:
        yield op._replace(fail=None)
        if op.fail.times > 1:
            yield op._replace(fail=op.fail._replace(times=1))
    if op.pause:
        yield op._replace(pause=0)
    if op.name in ("enter", "resume") and len(op.args) > 5:
        yield op._replace(args=op.args[:-3])
        yield op._replace(args=(*op.args[:2], *op.args[5:]))
    for n, number in enumerate(op.args):
        for less in dict.fromkeys((0, 1, number // 2)):
            if less < number:
                yield op._replace(args=(*op.args[:n], less, *op.args[n + 1 :]))


def story(linux: str, setting: Setting, ops: Stream) -> str:
    """A test module that tells the stream."""
    lines = "".join(f"    {op!r},\n" for op in ops)
    names = "Failure, Op, Setting" if any(op.fail for op in ops) else "Op, Setting"
    return (
        "import pytest\n\n"
        "from tests.differential.agree import agree\n"
        f"from tests.differential.operations import {names}\n\n"
        f"OPS = (\n{lines})\n\n\n"
        "def test_both_drivers_agree(tmp_path_factory: pytest.TempPathFactory) -> None:\n"
        f"    agree({linux!r}, tmp_path_factory, {setting!r}, OPS)\n"
    )
