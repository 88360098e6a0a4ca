"""What /proc says of a process or thread. Light: the front imports it before anything else."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

_MASKS: Final = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")
_NUMBERS: Final = ("Tgid", "PPid", "NSpid", "TracerPid")


def stat_fields(tid: int) -> list[str]:
    """The fields of /proc/<tid>/stat behind the name, from the state on; empty if it is gone."""
    with (
        suppress(OSError),
        open(f"/proc/{tid}/stat", encoding="ascii", errors="replace") as stat,
    ):
        return stat.read().rpartition(") ")[2].split()
    return []


def state_of(tid: int) -> str:
    """The letter of /proc/<tid>/stat; X if the thread is gone."""
    fields = stat_fields(tid)
    return fields[0] if fields else "X"


def alive(tid: int) -> bool:
    """Whether a thread has not ended yet."""
    return state_of(tid) not in ("X", "Z")


def signal_masks(tid: int) -> dict[str, int]:
    """SigPnd, ShdPnd, SigBlk, SigIgn and SigCgt of /proc/<tid>/status.

    FileNotFoundError or ProcessLookupError if it is gone.
    """
    with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as status:
        fields = (line.split() for line in status if line.startswith(_MASKS))
        return {name[:-1]: int(mask, 16) for name, mask in fields}


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
