"""How a task of the driver ends, but for a return; and what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.linux.process import SI_KERNEL, SIGBUS, SIGFPE, SIGILL, SIGSEGV
from softsgx.sim import Unmodelled

if TYPE_CHECKING:
    from softsgx.cdriver.call import Call
    from softsgx.cdriver.requests.handlers import Handlers

_SIGNALS: Final = {SIGILL: "SIGILL", SIGBUS: "SIGBUS", SIGFPE: "SIGFPE", SIGSEGV: "SIGSEGV"}


def _crashed(call: Call, signal: int, address: int, at: int, code: int, *_: int) -> int:
    where = f"at {address:#x}"
    if code == SI_KERNEL:
        where = "at an address that is not canonical, as those in freed memory and removed entries"
    raise call.bug(f"{_SIGNALS[signal]} {where}", at)


def _bug(call: Call, file: int, line: int, *_: int) -> int:
    raise call.bug(f"BUG at {call.arena.text(file).rpartition('/')[2]}:{line}")


def _hang(call: Call, *_: int) -> int:
    raise call.bug("never comes to a point")


def _unmodelled(call: Call, what: int, *_: int) -> int:
    text = call.arena.text(what)
    call.driver.broken = text
    said = "\n  ".join([text, *call.backtrace()])
    raise Unmodelled(f"driver: {said}")


# Messages


def _log(call: Call, text: int, once: int, *_: int) -> int:
    line = call.arena.text(text)
    key = call.arena.text(once) if once else f"{len(call.kernel.printed)} {line}"
    call.kernel.printed.setdefault(key, line)
    return 0


def _warn(call: Call, text: int, file: int, line: int, *_: int) -> int:
    where = call.arena.text(file).rpartition("/")[2]
    call.kernel.warn(f"{call.arena.text(text)} ({where}:{line})")
    return 0


HANDLERS: Final[Handlers] = {
    "CRASHED": _crashed,
    "BUG": _bug,
    "HANG": _hang,
    "UNMODELLED": _unmodelled,
    "LOG": _log,
    "WARN": _warn,
}
