"""A liar whose lies come in runs: what its kernel does between calls, and requests held back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from softsgx.linux.sgx.encl import sgx_zap_enclave_ptes
from softsgx.sim import Steps
from softsgx.spec.translation import PTE_PFN_MASK
from softsgx.system.enclave import EnclaveAbort
from softsgx.system.host import HostThread, SignalRaised
from softsgx.system.loaded_enclave import EnclaveFault
from softsgx.system.runtimes.untrusted import Answer, Untrusted
from softsgx.system.scenarios.liar import MENUS, Liar
from softsgx.system.scene import Scene

HELD: Final = "held"
MOVE: Final = "move"

MOVES: Final = (
    "nothing more",
    "the first PTE is put back",
    "the address leads to another page's frame",
    "another address leads to the frame",
    "a fresh page in its place",
    "an old call again, on its TCS",
    "an old call again, on another TCS",
)

RUN_MENUS: Final = {
    **MENUS,
    HELD: ("in order", "done later, said to be done"),
    MOVE: MOVES,
    "call": ("protect", "uncommit", "commit"),
}
"""MENUS, and those of a run. A request is held back before its own menu is asked."""


class Request(NamedTuple):
    """An ioctl that the host has said to be done."""

    name: str
    address: int
    length: int
    what: int


class Composer(Liar):
    """Tells up to `lies` lies in one execution: in answers, by holding requests, and in moves.

    `page` is the address that the moves are about, `calls` the enclave's entry points by name. A
    call can be repeated once it was made. Completing a request that is held is no lie of its own.
    """

    def __init__(self, honest: Untrusted, scene: Scene, page: int, lies: int) -> None:
        super().__init__(honest, scene)
        self.page = page
        self.left = lies
        self.first_pte = scene.mm.space.lookup(page)
        self.calls: dict[str, Callable[[HostThread, int], Steps[Any]]] = {}
        self.made: list[str] = []
        self.held: list[Request] = []
        self.removing = 0

    def _lie(self, what: str) -> str:
        truth = MENUS[what][0]
        if not self.left:
            return truth
        lie = super()._lie(what)
        if lie != truth:
            self.left -= 1
        return lie

    # Requests that are held back

    def _hold(self, name: str, address: int, length: int, what: int) -> bool:
        if not self.left or not self.draw(2, HELD):
            return False
        self.left -= 1
        self.held.append(Request(name, address, length, what))
        return True

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        """RESTRICT_PERMISSIONS, a lie about it, or later."""
        if self._hold("restrict", address, length, rights):
            return Answer(0, 0, length)
        return (yield from super().restrict(host, address, length, rights))

    def modify_types(
        self, host: HostThread, address: int, length: int, page_type: int
    ) -> Steps[Answer]:
        """MODIFY_TYPES, a lie about it, or later."""
        if self._hold("modify_types", address, length, page_type):
            return Answer(0, 0, length)
        return (yield from super().modify_types(host, address, length, page_type))

    def remove(self, host: HostThread, address: int, length: int) -> Steps[Answer]:
        """REMOVE_PAGES, a lie about it, or later."""
        if self._hold("remove", address, length, 0):
            return Answer(0, 0, length)
        self.removing += 1
        answer = yield from super().remove(host, address, length)
        self.removing -= 1
        return answer

    def _complete(self, host: HostThread) -> Steps[None]:
        """What was requested last is done first."""
        name, address, length, what = self.held.pop()
        if name == "restrict":
            yield from Untrusted.restrict(self, host, address, length, what)
        elif name == "modify_types":
            yield from Untrusted.modify_types(self, host, address, length, what)
        else:
            self.removing += 1
            yield from Untrusted.remove(self, host, address, length)
            self.removing -= 1

    # The kernel's moves

    def run(self, host: HostThread, tcs: int, other: int) -> Steps[None]:
        """A run of moves, each drawn at a step of its own; ends when no lie is left, or before.

        An old call is repeated on the thread number `tcs`, or on `other`.
        """
        while self.left or self.held:
            yield ("kernel", "the next lie", True)
            if self.held:
                yield from self._complete(host)
            elif self.left:
                move = MOVES[self.draw(len(MOVES), MOVE)]
                if move == "nothing more":
                    return
                self.left -= 1
                yield from self._move(host, move, tcs, other)

    def _move(self, host: HostThread, move: str, tcs: int, other: int) -> Steps[None]:
        space, data = self.scene.mm.space, self.scene.enclave.data[0]
        if move == "the first PTE is put back":
            space.set(self.page, self.first_pte)
        elif move == "the address leads to another page's frame":
            self._other_frame(host, self.page)
        elif move == "another address leads to the frame":
            space.set(data, space.lookup(data) & ~PTE_PFN_MASK | self.first_pte & PTE_PFN_MASK)
        elif move == "a fresh page in its place":
            yield from self._fresh(host, self.page)
        elif move == "an old call again, on its TCS":
            yield from self._again(host, tcs)
        elif move == "an old call again, on another TCS":
            yield from self._again(host, other)

    def _fresh(self, host: HostThread, address: int) -> Steps[None]:
        """The same, but not while the driver removes pages: it would free one twice."""
        with (yield from self.scene.encl.lock.acquire()):
            taken = not self.removing and (yield from self._take(host, address))
        if taken:
            yield from sgx_zap_enclave_ptes(host.thread, self.scene.encl, address)

    def _again(self, host: HostThread, tcs: int) -> Steps[None]:
        """EENTER with the arguments of a call that was made before; the enclave may refuse."""
        if not self.made:
            return
        name = self.made[self.draw(len(self.made), "call")]
        try:
            yield from self.calls[name](host, tcs)
        except (EnclaveAbort, EnclaveFault, SignalRaised):
            return
