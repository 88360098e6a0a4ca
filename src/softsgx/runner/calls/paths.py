"""Whether a path of the program leads to a file that the supervisor serves, and to which.

Most paths do not, and must be found out quickly: a path is followed only if its last component is a
symbolic link or has one of a few names. The nodes do not exist on this machine, so the last step to
one is taken by its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from softsgx.linux.syscalls import SGX_ENCLAVE, SGX_PROVISION
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import AT_FDCWD, PATH_MAX
from softsgx.runner.host.memory_file import SHM
from softsgx.runner.process.identity import Identity, identity
from softsgx.runner.process.scratch import CPUINFO
from softsgx.runner.process.stops import signed32
from softsgx.spec.bits import PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.linux.vfs import File
    from softsgx.runner.process.tracee import Tracee

NODES: Final = {
    b"/dev/sgx_enclave": SGX_ENCLAVE,
    b"/dev/sgx/enclave": SGX_ENCLAVE,
    b"/dev/sgx_provision": SGX_PROVISION,
    b"/dev/sgx/provision": SGX_PROVISION,
}
# /proc/<pid>/mem, as the kernel names an open one.
MEM: Final = re.compile(rb"/proc/(\d+)/(?:task/(\d+)/)?mem")
# How the kernel names the file that stands for an open node.
STAND_IN: Final = (b"/memfd:/dev/sgx", SHM.encode() + b"/#")

_NAMES: Final = frozenset(
    (b"sgx_enclave", b"sgx_provision", b"enclave", b"provision", b"cpuinfo", b"mem")
)
_FIRST_READ: Final = 256
_LINKS_MAX: Final = 40


def read_path(tid: int, address: int) -> bytes | None:
    """The path at an address; None if it cannot be read, in which case the call itself fails."""
    raw = b""
    while len(raw) < PATH_MAX:
        at = address + len(raw)
        part = p.read_memory(tid, at, min(_FIRST_READ, PAGE_SIZE - at % PAGE_SIZE))
        if part is None:
            return None
        path, end, _ = part.partition(b"\0")
        raw += path
        if end:
            return raw
    return None  # ENAMETOOLONG


class Walk:
    """Follows paths of one thread. `files` are the open nodes, by the files that stand for them."""

    def __init__(self, t: Tracee, directory: int, files: Mapping[Identity, File]) -> None:
        self._files = files
        directory = signed32(directory)
        self._own = (
            (b"/proc/self/", b"/proc/%d/" % t.pid),
            (b"/proc/thread-self/", b"/proc/%d/task/%d/" % (t.pid, t.tid)),
            (b"/dev/fd/", b"/proc/%d/fd/" % t.pid),
        )
        self._root = b"/proc/%d/root" % t.tid
        here = "cwd" if directory == AT_FDCWD else f"fd/{directory}"
        self._here = f"/proc/{t.tid}/{here}/".encode()

    def target(self, path: bytes, *, follow: bool = True) -> bytes | None:
        """One of NODES, /proc/cpuinfo or /proc/<pid>/mem; None for any other file."""
        if path in NODES or path == CPUINFO:
            return path
        for _ in range(_LINKS_MAX):
            path = self._with_own(path)
            head, slash, name = path.rpartition(b"/")
            if MEM.fullmatch(path):
                return path
            place = self._place(path)
            if name in _NAMES:
                found = self._found(head + slash, name)
                if found is not None:
                    return found
            if not follow:
                return None
            try:
                link = os.readlink(place)
            except (OSError, ValueError):
                return None  # not a link, so it is some other file
            if link.startswith(STAND_IN):
                return self._node_of(place)
            path = link if link.startswith(b"/") else head + slash + link
        return None

    def shown(self, path: bytes) -> bytes | None:
        """The node that a descriptor's name in /proc stands for; None for any other name."""
        place = self._place(self._with_own(path))
        try:
            return self._node_of(place) if os.readlink(place).startswith(STAND_IN) else None
        except (OSError, ValueError):
            return None

    def _with_own(self, path: bytes) -> bytes:
        """Write the thread's ids for /proc/self and the like, which here are the supervisor's."""
        for begin, own in self._own:
            if path.startswith(begin):
                path = own + path[len(begin) :]
        return path

    def _place(self, path: bytes) -> bytes:
        """The path by which the supervisor reaches the file."""
        return self._root + path if path.startswith(b"/") else self._here + path

    def _found(self, head: bytes, name: bytes) -> bytes | None:
        """The file of this name, by the real path of its directory."""
        path = os.path.join(os.path.realpath(self._place(head)), name)
        return path if path in NODES or path == CPUINFO or MEM.fullmatch(path) else None

    def _node_of(self, place: bytes) -> bytes | None:
        try:
            file = self._files.get(identity(place))
        except OSError:
            return None
        return None if file is None else file.path.encode()
