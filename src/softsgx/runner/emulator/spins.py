"""Code that spins: it comes back to a block in the same state, so it will until others change it.

The hook suspects it when a block begins twice with the same registers. Whether memory is the same,
too, one more round shows: the emulator's TLB is emptied, so that each page that the round writes to
asks first, and is compared afterwards. From then on the hook ends a slice as soon as the
registers are the same there. A wrong guess costs time only: the slice is over, and another comes.
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
    """What is known of the code of one emulator.

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
        self._quanta = 0  # without looking, after the last suspicion that came to nothing
        self._random = 0
        self._left = 0
        self.trials = 0

    @property
    def suspected(self) -> bool:
        """Whether the hook has ended the slice because of a block that is not known to spin."""
        return (
            self._blocks.control.reason == SPIN and self._blocks.control.watched not in self._known
        )

    @property
    def trial(self) -> bool:
        """Whether a round is being tried."""
        return self._before is not None

    def begin(self, state: object) -> None:
        """A round begins in this state, at the block that is suspected."""
        control = self._blocks.control
        self.trials += 1
        self._block, self._state = control.watched, state
        self._before, self._stored = {}, False
        self._blocks.flag(self._block, SPINNER)
        control.watched = control.reason = control.resting = 0
        control.quantum, control.left = ROUND_BLOCKS, 0

    def wrote(self, number: int) -> None:
        """EPC page `number` is about to be writable."""
        if self._before is not None and number not in self._before:
            self._before[number] = self._page(number)

    def stored(self) -> None:
        """Something else was stored, that was not there before."""
        self._stored = True

    def end(self, state: object) -> None:
        """The round is over, in this state, or something else has happened."""
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

    def further(self) -> int:
        """A thread waits, and others want to execute: why; 0 if it does not.

        It has some more blocks, not always as many. For who stops at the same place of a loop each
        time may hold there what the others wait for, as the lock inside of a mutex that it tries to
        take again and again: they would wait for ever.
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

    def settle(self, why: int) -> None:
        """These blocks are over."""
        control = self._blocks.control
        if control.reason == USED_UP:
            control.reason, control.left = why, self._left

    def _page(self, number: int) -> bytes:
        return self._memory.read_page(self._memory.first + number)
