"""Arguments in memory for system calls that the supervisor makes or changes.

They are in pages that the supervisor mapped, never on the program's stack: below the stack pointer
there may be another coroutine's stack, or nothing that the kernel could grow the stack into.

Texts are part of the code page of every process and never change, so a call of the program whose
path is replaced can use one at any time, in parallel with others, in a vfork child or after a fork.
Other bytes are lent for one injected call. One page for these, which all processes of a run share,
is enough: the supervisor has one thread and waits for each injected call.
"""

from __future__ import annotations

import errno
from typing import Final

from softsgx.runner.host import ptrace as p
from softsgx.runner.host.memory_file import SHM
from softsgx.runner.inserted.layout import GATE, SCRATCH, SCRATCH_SIZE
from softsgx.spec.bits import PAGE_SIZE

NULL: Final = b"/dev/null"
CPUINFO: Final = b"/proc/cpuinfo"
SGX_NODES: Final = (
    b"/dev/sgx_enclave",
    b"/dev/sgx/enclave",
    b"/dev/sgx_provision",
    b"/dev/sgx/provision",
)
_TEXTS: Final = (NULL, CPUINFO, *SGX_NODES, SHM.encode())

TEXTS: Final = GATE + 0x100
TEXTS_IMAGE: Final = b"".join(text + b"\0" for text in _TEXTS)
assert TEXTS + len(TEXTS_IMAGE) <= GATE + PAGE_SIZE


def text(what: bytes) -> int:
    """Address of a text, which ends in NUL."""
    return TEXTS + TEXTS_IMAGE.index(what + b"\0")


def lend(tid: int, data: bytes) -> int:
    """Put `data` at SCRATCH until the next call of `lend`. NoSuchTracee if the thread is gone."""
    assert len(data) <= SCRATCH_SIZE
    if not p.write_memory(tid, SCRATCH, data):
        raise p.NoSuchTracee(errno.ESRCH, "nothing is mapped at SCRATCH: the process is gone")
    return SCRATCH
