"""Code that spins: it returns to a block in the same state, until another thread changes memory.

The hook suspects spinning when a block begins twice with the same registers. One more round shows
whether memory is unchanged, too: the emulator's TLB is emptied, so that the round asks for each
page before it writes there, and these pages are compared afterwards. From then on the hook ends a
slice as soon as the block begins with the same registers. A wrong guess costs only time: the slice
is over, and another follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.runner.emulator.control import PAUSED, SPIN, SPINNER, USED_UP

if TYPE_CHECKING:
    from softsgx.runner.emulator.blocks import Blocks
    from softsgx.runner.process.arena import ArenaMemory

ROUND_BLOCKS: Final = 512
_KNOWN_MAX: Final = 1024
_QUANTA_MAX: Final = 4096
_FURTHER_MAX: Final = 61  # blocks


class Spins:
    """What is known of the blocks of one emulator that may spin.

    During a trial `wrote(page)` is to be called before an EPC page can be written, and `stored()`
    after a store elsewhere.
    """

    def __init__(self, memory: ArenaMemory, blocks: Blocks) -> None:
        self._memory = memory
        self._blocks = blocks
        self._known: set[int] = set()
        self._before: dict[int, bytes] | None = None
        self._state: object = None
        self._block = 0
        self._stored = False
        self._quanta = 0  # how long no block is watched after a wrong suspicion
        self._random = 0
        self._left = 0
        self.trials = 0

    @property
    def suspected(self) -> bool:
        """Whether the hook ended the slice at a block that may spin but is not known to."""
        return (
            self._blocks.control.reason == SPIN and self._blocks.control.watched not in self._known
        )

    @property
    def trial(self) -> bool:
        """Whether a round is being tried."""
        return self._before is not None

    def begin(self, state: object) -> None:
        """Begin a round in this state, at the suspected block."""
        control = self._blocks.control
        self.trials += 1
        self._block, self._state = control.watched, state
        self._before, self._stored = {}, False
        self._blocks.flag(self._block, SPINNER)
        control.watched = control.reason = control.resting = 0
        control.quantum, control.left = ROUND_BLOCKS, 0

    def wrote(self, number: int) -> None:
        """Note that EPC page `number` is about to become writable."""
        if self._before is not None and number not in self._before:
            self._before[number] = self._page(number)

    def stored(self) -> None:
        """Note that a store outside EPC has changed memory."""
        self._stored = True

    def end(self, state: object) -> None:
        """End the round in this state: the block is now known to spin, or is not suspected."""
        before, self._before = self._before, None
        assert before is not None
        control = self._blocks.control
        same = control.reason == SPIN and state == self._state and not self._stored
        if same and all(self._page(number) == page for number, page in before.items()):
            if len(self._known) > _KNOWN_MAX:
                self._known.clear()
            self._known.add(self._block)
            self._quanta = 0
            return
        self._blocks.flag(self._block, 0)
        self._quanta = min(2 * self._quanta + 1, _QUANTA_MAX)
        control.unwatched = self._quanta
        if control.reason == SPIN:
            control.reason = USED_UP

    def extend(self) -> int:
        """If the slice ended because its thread waits, give it a varying number of further blocks.

        Returns the reason why it ended, or 0 if the thread does not wait. Without this, a thread
        might stop at the same place of its loop each time, and hold there what others wait for,
        such as the inner lock of a mutex that it keeps trying to take: they would wait for ever.
        """
        control = self._blocks.control
        why = control.reason
        if why not in (PAUSED, SPIN):
            return 0
        self._random = (self._random * 1103515245 + 12345) & 0x7FFFFFFF
        self._left = self._blocks.left
        control.quantum, control.left = (self._random >> 16) % _FURTHER_MAX, 0
        control.reason = control.watched = 0
        control.pauses = control.resting = 2 * _FURTHER_MAX
        return int(why)

    def extended(self, why: int) -> None:
        """Restore the reason `why` if the slice ended because these blocks are used up."""
        control = self._blocks.control
        if control.reason == USED_UP:
            control.reason, control.left = why, self._left

    def _page(self, number: int) -> bytes:
        return self._memory.read_page(self._memory.first + number)
