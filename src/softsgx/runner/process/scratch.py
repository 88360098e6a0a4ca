"""What the kernel is to read for a call of ours lies in memory of ours, never in the program's.

Below the program's stack pointer there may be anything, or nothing: another stack of a coroutine,
or pages that the stack has not grown to, where only a store of the thread itself makes it grow.

A text is part of the code page of every process and never changes: a call of the program whose
path is replaced may take it whenever it runs, beside others, in a vfork child, after a fork. Other
bytes are lent for one injected call. The page for them is shared by all processes of a run, which
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
    """Address of one of the texts, NUL behind it."""
    return TEXTS + TEXTS_IMAGE.index(what + b"\0")


def lend(tid: int, data: bytes) -> int:
    """Address of `data` in the process, until the next loan; NoSuchTracee if the thread is gone."""
    assert len(data) <= SCRATCH_SIZE
    if not p.write_memory(tid, SCRATCH, data):
        raise p.NoSuchTracee(errno.ESRCH, "nothing is mapped at SCRATCH: the process is gone")
    return SCRATCH
