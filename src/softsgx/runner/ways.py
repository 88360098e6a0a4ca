"""What this process uses where a machine refuses the usual call. Set by `doctor.needs`.

And how threads are stopped, which the session decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INT80: Final = b"\xcd\x80"
UD2: Final = b"\x0f\x0b"


@dataclass
class Ways:
    """The default of every field is the usual way."""

    memory_by_file: bool = False  # /proc/PID/mem instead of process_vm_readv
    filter_by_prctl: bool = False  # one filter for everything, from the start
    cpuid: bytes = INT80  # replaces CPUID
    files_in_shm: bool = False  # files without a name in /dev/shm instead of memfd_create
    memfd: int = 0  # flags that memfd_create must have
    enclu: bytes = INT80  # replaces ENCLU, and is in the stub
    traced: bool = True  # by ptrace; otherwise by signals, which a stub in the process answers


WAYS: Final = Ways()
