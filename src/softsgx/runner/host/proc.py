"""What /proc says of a process or thread. Light: the front imports it before anything else."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

_NUMBERS: Final = ("Tgid", "PPid", "NSpid", "TracerPid")


def stat_fields(tid: int) -> list[str]:
    """The fields of /proc/<tid>/stat behind the name, from the state on; empty if it is gone."""
    with (
        suppress(OSError),
        open(f"/proc/{tid}/stat", encoding="ascii", errors="replace") as stat,
    ):
        return stat.read().rpartition(") ")[2].split()
    return []


def caught(pid: int, number: int) -> bool:
    """Whether a process handles, ignores or blocks a signal; no if it is gone."""
    with suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as of:
        masks = [line.split()[1] for line in of if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
        return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)
    return False


def status_numbers(tid: int | str) -> dict[str, list[int]]:
    """Tgid, PPid, TracerPid and NSpid of /proc/<tid>/status; empty if the thread is gone."""
    found: dict[str, list[int]] = {}
    try:
        with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                name, _, value = line.partition(":")
                if name in _NUMBERS:
                    found[name] = [int(word) for word in value.split()]
    except OSError:
        return {}
    return found
