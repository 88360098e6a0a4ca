"""The host's side: ioctls in retry loops. The enclave trusts nothing that it returns.

Every function is run by `EnclaveThread.ocall`, so its first argument is the host thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from softsgx.linux.errno import EAGAIN, EBUSY, EINTR
from softsgx.sim import RETRY, Steps
from softsgx.system.v2_enclave import V2Enclave

if TYPE_CHECKING:
    from softsgx.system.host import HostThread
    from softsgx.system.loaded_enclave import Enclave

RETRIES_MAX: Final = 1000
_AGAIN: Final = (-EBUSY, -EAGAIN, -EINTR)

Call = Callable[["HostThread", int, int, int], Steps[tuple[int, Any]]]


class Answer(NamedTuple):
    """The outcome of an ioctl loop: errno (0 or negative), the leaf's code, bytes done."""

    errno: int
    result: int
    done: int


def retry(
    host: HostThread,
    call: Call,
    address: int,
    length: int,
    what: int,
    tries_max: int = RETRIES_MAX,
) -> Steps[Answer]:
    """Repeat an ioctl over [address, address + length) until it is done or fails for good.

    After -EBUSY, -EAGAIN and -EINTR it continues past the pages that are done. A runtime that tries
    only once takes the result as it is, and does not look at the leaf's code.
    """
    done = 0
    for _ in range(tries_max):
        errno, block = yield from call(host, address + done, length - done, what)
        done += block.count
        if errno == 0 and done >= length:
            return Answer(0, 0, done)
        if tries_max == 1:
            return Answer(errno, 0, done)
        if errno not in _AGAIN and errno != 0:
            return Answer(errno, getattr(block, "result", 0), done)
        yield ("again" if block.count else RETRY, "ioctl", False)
    return Answer(-EAGAIN, 0, done)


class Untrusted:
    """The host functions that a `TrustedManager` calls. Override one to play a lying host.

    An ioctl that fails because something is busy is retried, as in Gramine and Intel's EMM. With
    `patient` false it is tried once, as in Enarx.
    """

    def __init__(self, enclave: Enclave, *, patient: bool = True) -> None:
        self.enclave = enclave
        self.tries_max = RETRIES_MAX if patient else 1

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        """RESTRICT_PERMISSIONS."""
        call = self.enclave.restrict
        return (yield from retry(host, call, address, length, rights, self.tries_max))

    def relax(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        """RELAX_PERMISSIONS; of an enclave under the V2 series."""
        assert isinstance(self.enclave, V2Enclave)
        call = self.enclave.relax
        return (yield from retry(host, call, address, length, rights, self.tries_max))

    def modify_types(
        self, host: HostThread, address: int, length: int, page_type: int
    ) -> Steps[Answer]:
        """MODIFY_TYPES."""
        call = self.enclave.modify_types
        return (yield from retry(host, call, address, length, page_type, self.tries_max))

    def remove(self, host: HostThread, address: int, length: int) -> Steps[Answer]:
        """REMOVE_PAGES."""

        def call(host: HostThread, address: int, length: int, _: int) -> Steps[tuple[int, Any]]:
            return (yield from self.enclave.remove(host, address, length))

        return (yield from retry(host, call, address, length, 0, self.tries_max))

    def mprotect(self, host: HostThread, address: int, length: int, rights: int) -> Steps[int]:
        """mprotect(2)."""
        return (yield from host.mprotect(address, length, rights))
