"""The enclave's side of memory management: its record of each page, and how pages are changed.

The record changes only after EACCEPT or EACCEPTCOPY has verified the page. So the host can refuse
but not deceive: a page that is not as it should be ends in `EnclaveAbort`, after which the manager
does nothing more. No page is accepted twice for one commit, or the host could swap the frame at an
address for another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from softsgx.linux.errno import EFAULT, errno_text
from softsgx.sim import Mutex, Steps
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE
from softsgx.spec.epcm import PT_TCS, PT_TRIM, RWX, R, W, rwx_text
from softsgx.spec.status import SGX_PAGE_NOT_MODIFIABLE, status_name
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.system.enclave import EnclaveAbort
from softsgx.system.runtimes.untrusted import Answer, Untrusted

if TYPE_CHECKING:
    from softsgx.cpu import Status
    from softsgx.system.enclave import EnclaveThread

# The state of a page in the enclave's record; its rights are kept with it.
RESERVED = "reserved"  # address space only
ON_DEMAND = "on demand"  # to be accepted at its first touch
COMMITTED = "committed"
TRIMMED = "trimmed"  # accepted PT_TRIM; the host may remove it
TCS_STATE = "tcs"


class Order(Protocol):
    """One runtime's order of a permission change. The manager `m` has the steps; all pages of the
    call have the rights `old`."""

    name: str

    def change(
        self, m: TrustedManager, t: EnclaveThread, pages: list[int], old: int, new: int
    ) -> Steps[None]:
        """Change the rights of consecutive pages."""


class TrustedManager:
    """Memory manager of one enclave. A method that takes `t` is a generator of that enclave thread.

    Protected by `lock`, one mutex for everything, as in Intel's EMM: `pages`, which maps a linear
    page to (state, rights).
    """

    def __init__(self, untrusted: Untrusted, order: Order) -> None:
        self.untrusted = untrusted
        self.order = order
        self.lock = Mutex("emm")
        self.pages: dict[int, tuple[str, int]] = {}
        self.aborted = ""

    # The interface

    def reserve(self, address: int, length: int) -> None:
        """Reserve address space."""
        for page in _pages(address, length):
            assert page not in self.pages, f"page {page:#x} is reserved already"
            self.pages[page] = (RESERVED, 0)

    def commit(self, t: EnclaveThread, address: int, length: int) -> Steps[None]:
        """Commit now: EACCEPT every page, whose fault makes the kernel add it. Rights RW."""
        with (yield from self.lock.acquire()):
            for page in _pages(address, length):
                self._expect(page, RESERVED, ON_DEMAND)
                yield from self._accept_new(t, page)

    def commit_on_demand(self, address: int, length: int) -> None:
        """Let the first touch of each page commit it; see `handle_fault`."""
        for page in _pages(address, length):
            self._expect(page, RESERVED)
            self.pages[page] = (ON_DEMAND, 0)

    def handle_fault(self, t: EnclaveThread, address: int) -> Steps[bool]:
        """For the exception handler (CSSA = 1): commit the page if it waits for its first touch.

        True also if another thread has committed it. Otherwise False: the fault is a real one.
        """
        page = address & ~PAGE_MASK
        with (yield from self.lock.acquire()):
            if self.aborted:
                raise EnclaveAbort(self.aborted)
            state, _rights = self.pages.get(page, ("", 0))
            if state == COMMITTED:
                return True  # another thread was faster: try the access again
            if state != ON_DEMAND:
                return False
            yield from self._accept_new(t, page)
        return True

    def commit_copy(self, t: EnclaveThread, address: int, source: int, rights: int) -> Steps[None]:
        """Commit one page by copy, with its final rights at once: EACCEPTCOPY."""
        with (yield from self.lock.acquire()):
            self._expect(address, RESERVED, ON_DEMAND)
            status = yield from t.eacceptcopy(address, source, rights)
            self._verified("EACCEPTCOPY", address, status)
            self.pages[address] = (COMMITTED, rights)

    def protect(self, t: EnclaveThread, address: int, length: int, rights: int) -> Steps[None]:
        """Change the rights of committed pages, in the runtime's order."""
        with (yield from self.lock.acquire()):
            for run, old in self._runs(address, length):
                yield from self.order.change(self, t, run, old, rights)
                held = rights if self.order.name != "enarx" else rights | R
                for page in run:
                    self.pages[page] = (COMMITTED, held)

    def uncommit(self, t: EnclaveThread, address: int, length: int) -> Steps[None]:
        """Trim, accept, let the host remove; the addresses stay reserved."""
        with (yield from self.lock.acquire()):
            for page in _pages(address, length):
                self._expect(page, COMMITTED, TCS_STATE)
            # EACCEPT needs the page mapped; RW is allowed for a TCS as well.
            yield from t.ocall(self.untrusted.mprotect, address, length, R | W)
            yield from self._ask(
                t, "MODIFY_TYPES", self.untrusted.modify_types, address, length, PT_TRIM
            )
            for page in _pages(address, length):
                self._verified("EACCEPT of TRIM", page, (yield from t.accept_trim(page)))
                self.pages[page] = (TRIMMED, 0)
            answer: Answer = yield from t.ocall(self.untrusted.remove, address, length)
            if answer.errno:
                # The pages are trimmed and useless; an honest host would have removed them.
                raise self._abort(f"REMOVE_PAGES at {address:#x}: {errno_text(answer.errno)}")
            # Reserved address space is mapped with all rights, because any page may be added there.
            yield from t.ocall(self.untrusted.mprotect, address, length, RWX)
            for page in _pages(address, length):
                self.pages[page] = (RESERVED, 0)

    def new_tcs(self, t: EnclaveThread, address: int, fields: dict[str, int]) -> Steps[None]:
        """Make a committed page a TCS: fill it, MODIFY_TYPES, EACCEPT."""
        with (yield from self.lock.acquire()):
            self._expect(address, COMMITTED)
            yield from t.store(address, TCS_PAGE(**fields).pack())
            # A TCS may be mapped RW at most: a wider area would refuse every later fault.
            yield from self.mprotect(t, [address], R | W)
            yield from self._ask(
                t, "MODIFY_TYPES", self.untrusted.modify_types, address, PAGE_SIZE, PT_TCS
            )
            self._verified("EACCEPT of TCS", address, (yield from t.accept_tcs(address)))
            self.pages[address] = (TCS_STATE, 0)

    # Steps of an order

    def restrict(self, t: EnclaveThread, pages: list[int], rights: int) -> Steps[None]:
        """RESTRICT_PERMISSIONS of consecutive pages, until all are done."""
        length = len(pages) * PAGE_SIZE
        name = f"RESTRICT_PERMISSIONS({rwx_text(rights)})"
        yield from self._ask(t, name, self.untrusted.restrict, pages[0], length, rights)

    def relax(self, t: EnclaveThread, pages: list[int], rights: int) -> Steps[None]:
        """RELAX_PERMISSIONS of the V2 series, of consecutive pages, until all are done."""
        length = len(pages) * PAGE_SIZE
        name = f"RELAX_PERMISSIONS({rwx_text(rights)})"
        yield from self._ask(t, name, self.untrusted.relax, pages[0], length, rights)

    def extend(self, t: EnclaveThread, pages: list[int], rights: int) -> Steps[None]:
        """EMODPE; a page that still waits for its first touch is committed first."""
        for page in pages:
            if self.pages[page][0] == ON_DEMAND:
                yield from self._accept_new(t, page)
            yield from t.emodpe(page, rights & RWX)

    def accept_restricted(self, t: EnclaveThread, pages: list[int], rights: int) -> Steps[None]:
        """EACCEPT after RESTRICT_PERMISSIONS: verifies rights and tracking."""
        for page in pages:
            status = yield from t.accept_restricted(page, rights)
            self._verified("EACCEPT", page, status)

    def mprotect(self, t: EnclaveThread, pages: list[int], rights: int) -> Steps[None]:
        """Ask the host to set the VMA. Untrusted: a wrong VMA only makes accesses fault."""
        length = len(pages) * PAGE_SIZE
        yield from t.ocall(self.untrusted.mprotect, pages[0], length, rights)

    # Below

    def _accept_new(self, t: EnclaveThread, page: int) -> Steps[None]:
        self._verified("EACCEPT of a new page", page, (yield from t.accept_new(page)))
        self.pages[page] = (COMMITTED, R | W)

    def _ask(
        self,
        t: EnclaveThread,
        name: str,
        function: Callable[..., Steps[Any]],
        address: int,
        length: int,
        what: int,
    ) -> Steps[None]:
        """An ioctl over a range; a page that is still PENDING is accepted, then it continues."""
        done = 0
        while done < length:
            answer: Answer = yield from t.ocall(function, address + done, length - done, what)
            if not 0 <= answer.done <= length - done:
                raise self._abort(f"{name}: count {answer.done} of {length - done}")
            done += answer.done
            if not answer.errno:
                break  # EACCEPT will show whether that is true
            if not (yield from self._repaired(t, address + done, answer)):
                why = f", {status_name(answer.result)}" if answer.result else ""
                where = f"{name} at {address + done:#x}"
                raise self._abort(f"{where}: {errno_text(answer.errno)}{why}")

    def _repaired(self, t: EnclaveThread, page: int, answer: Answer) -> Steps[bool]:
        """Accept the page if the ioctl failed because it waits for its first touch; else False."""
        missing = answer.errno == -EFAULT and not answer.result
        if answer.result != SGX_PAGE_NOT_MODIFIABLE and not missing:
            return False
        if self.pages.get(page, ("", 0))[0] != ON_DEMAND:
            return False  # accepted before: to accept it again would let the host swap frames
        yield from self._accept_new(t, page)
        return True

    def _runs(self, address: int, length: int) -> list[tuple[list[int], int]]:
        """Committed pages of a range, cut where their rights differ."""
        runs: list[tuple[list[int], int]] = []
        for page in _pages(address, length):
            state, rights = self._expect(page, COMMITTED, ON_DEMAND)
            if state == ON_DEMAND:
                rights = R | W
            if runs and runs[-1][1] == rights:
                runs[-1][0].append(page)
            else:
                runs.append(([page], rights))
        return runs

    def _expect(self, page: int, *states: str) -> tuple[str, int]:
        if self.aborted:
            raise EnclaveAbort(self.aborted)
        found = self.pages.get(page)
        if found is None or found[0] not in states:
            have = "not reserved" if found is None else found[0]
            raise ValueError(f"page {page:#x} is {have}, not {' or '.join(states)}")
        return found

    def _verified(self, what: str, page: int, status: Status | None) -> None:
        """Only EACCEPT and EACCEPTCOPY can be trusted; a refusal means that the host lied."""
        if status is None or status != 0:
            raise self._abort(f"{what} at {page:#x}: {status!r}")

    def _abort(self, why: str) -> EnclaveAbort:
        self.aborted = why
        return EnclaveAbort(why)


def _pages(address: int, length: int) -> range:
    assert not (address | length) & PAGE_MASK, "address and length are multiples of 4096"
    return range(address, address + length, PAGE_SIZE)
