"""The file of `--trace`: its format by its name, a time on every event, never lost for long."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, Protocol

from softsgx.report.jsonl import JsonLines
from softsgx.report.lines import Lines
from softsgx.report.perfetto import Perfetto
from softsgx.runner.errors import RunnerError
from softsgx.sim import Drawn, Event, LockReleased, LockTaken, Log, Stepped, TaskEnded, TaskSpawned

_BUFFER: Final = 1 << 18
_FLUSH_NS: Final = 250_000_000
# How the model comes by its answers, not what happens on the machine.
_LEFT_OUT: Final = frozenset({Drawn, LockReleased, LockTaken, Stepped, TaskEnded, TaskSpawned})


class Writer(Protocol):
    """One format."""

    def event(self, ns: int, seq: int, event: Event) -> None:
        """Write one event."""

    def close(self) -> None:
        """Write what is owed."""


class TraceFile:
    """Writes every event of a log. RunnerError if the file cannot be written at the beginning.

    Should it become impossible later, `trouble` says why, the rest is lost and the program goes on.
    """

    def __init__(self, path: str, header: dict[str, Any], log: Log) -> None:
        self.path = path
        self.trouble = ""
        self.log = log
        try:
            self._stream: IO[bytes] = open(path, "wb", buffering=_BUFFER)  # noqa: SIM115
        except OSError as error:
            raise RunnerError("--trace", f"{path}: {error.strerror}") from None
        try:
            self._writer = _writer(path, self._stream, {**header, "start_ns": time.monotonic_ns()})
            self._stream.flush()
        except OSError as error:
            with suppress(OSError):
                self._stream.close()
            raise RunnerError("--trace", f"{path}: {error.strerror}") from None
        self._flushed = time.monotonic_ns()

    def __call__(self, event: Event) -> None:
        """A listener of the log."""
        if type(event) in _LEFT_OUT or self.trouble:
            return
        now = time.monotonic_ns()
        try:
            self._writer.event(now, self.log.seq, event)
            if now - self._flushed > _FLUSH_NS:
                self._stream.flush()
                self._flushed = now
        except OSError as error:
            self.trouble = f"{self.path}: {error.strerror}"

    def close(self) -> None:
        """Write what is owed, and close."""
        try:
            if not self.trouble:
                self._writer.close()
            self._stream.close()
        except OSError as error:
            self.trouble = self.trouble or f"{self.path}: {error.strerror}"


def _writer(path: str, stream: Any, header: dict[str, Any]) -> Writer:
    suffix = Path(path).suffix
    if suffix in (".perfetto", ".pftrace"):
        return Perfetto(stream, header)
    return Lines(stream, header) if suffix == ".txt" else JsonLines(stream, header)
