"""What a thread that is not traced keeps of the reserved signals when it executes a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from softsgx.runner.host.abi import SIG_IGN
from softsgx.runner.inserted import systrap_layout as lay

if TYPE_CHECKING:
    from softsgx.runner.process.held import HeldThread


class KeptByExec(NamedTuple):
    """Masks of the blocked and of the ignored; what waits for the thread, and for its process."""

    blocked: int = 0
    ignored: int = 0
    of_thread: bytes = b""
    of_process: bytes = b""

    @classmethod
    def of(cls, held: HeldThread) -> KeptByExec:
        """What the next program of this thread begins with."""
        _, ignored, _ = held.masks(0, 0, 0)
        of_process = held.family.waiting(held.long("PROCESS"))
        return cls(
            held.long("VBLOCKED"),
            ignored,
            bytes(held.waiting()),
            b"" if of_process is None else bytes(of_process),
        )

    def put(self, held: HeldThread) -> None:
        """Prepare the record of a new program."""
        held.set_long("VBLOCKED", self.blocked)
        ignore = SIG_IGN.to_bytes(8, "little").ljust(lay.ACTION_STRIDE, b"\0")
        for number in range(1, lay.SIGNALS + 1):
            if self.ignored >> (number - 1) & 1:
                held.set_action(number, ignore)
        of_process = held.family.waiting(held.long("PROCESS"))
        held.waiting()[: len(self.of_thread)] = _settled(self.of_thread)
        if of_process is not None:
            of_process[: len(self.of_process)] = _settled(self.of_process)


def _settled(waiting: bytes) -> bytes:
    """Without what a thread was about to put there or to take away when exec killed it."""
    return waiting[:8] + waiting[:8] + waiting[16:]
