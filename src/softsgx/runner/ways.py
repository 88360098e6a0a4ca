"""Which way this process takes where a machine may refuse the usual one. Set by `needs.meet`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INT80: Final = b"\xcd\x80"
UD2: Final = b"\x0f\x0b"


@dataclass
class Ways:
    """The usual way is the default of every field."""

    memory_by_file: bool = False  # /proc/PID/mem instead of process_vm_readv
    filter_by_prctl: bool = False  # for one thread only, so all filters are one from the start
    cpuid: bytes = INT80  # what stands where CPUID stood
    files_in_shm: bool = False  # files without a name in /dev/shm instead of memfd_create
    memfd: int = 0  # flags that memfd_create must have
    enclu: bytes = INT80  # what stands where ENCLU stood, and in the stub


WAYS: Final = Ways()
