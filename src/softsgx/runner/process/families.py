"""Whether a new thread shares the address space of the thread that made it.

A thread of the same process does. A new process does after CLONE_VM, which the ptrace event does
not tell: vfork() and posix_spawn() use it, fork() does not, clone(2) may. kcmp(2) would say, but
containers refuse it. So a word is written to the gate page of the parent, and looked for in the
child: it is there if the memory is the same.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final

from softsgx.runner.host import ptrace as p
from softsgx.runner.inserted.layout import GATE_WORD

if TYPE_CHECKING:
    from softsgx.runner.process.tracee import Tracee

_words: Final = count(1)  # each used once: the copy of an earlier one proves nothing


def thread_group(tid: int) -> int:
    """The process of a thread."""
    with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Tgid:"):
                return int(line.split()[1])
    raise OSError(f"/proc/{tid}/status without Tgid")


def shares_memory(parent: Tracee, tid: int) -> bool:
    """Whether the child `tid`, of another thread group, has the parent's memory.

    The parent is stopped, and the child has not executed anything yet.
    """
    if not parent.space.gate_ready:
        return False  # a 32-bit program: nothing is mapped into it
    word = next(_words)
    p.request(p.PTRACE_POKEDATA, parent.tid, GATE_WORD, word)
    return p.read_memory(tid, GATE_WORD, 8) == word.to_bytes(8, "little")
