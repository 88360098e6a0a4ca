"""The file of `--trace`. Its suffix chooses the format; every event has a time."""

from __future__ import annotations

import io
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from softsgx.report.jsonl import JsonLines
from softsgx.report.lines import Lines
from softsgx.report.perfetto import Perfetto
from softsgx.runner.errors import RunnerError
from softsgx.sim import Drawn, Event, LockReleased, LockTaken, Log, Stepped, TaskEnded, TaskSpawned

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_BUFFER: Final = 1 << 18
_FLUSH_NS: Final = 250_000_000
# These show how the model works, not what happens on the machine.
_LEFT_OUT: Final = frozenset({Drawn, LockReleased, LockTaken, Stepped, TaskEnded, TaskSpawned})


class Writer(Protocol):
    """One format."""

    def event(self, ns: int, seq: int, event: Event) -> None:
        """Write one event."""

    def close(self) -> None:
        """Write what is still buffered."""


class TraceFile:
    """Writes every event of a log. RunnerError if the file cannot be written at the beginning.

    Its old contents are kept until `started`: a program that cannot be executed does not destroy
    the trace of an earlier run. If writing fails later, `trouble` says why, the rest of the trace
    is lost and the program goes on.
    """

    def __init__(self, path: str, header: dict[str, Any], log: Log) -> None:
        self.path = path
        self.trouble = ""
        self.log = log
        try:
            self._file = _File(path)
        except OSError as error:
            raise RunnerError("--trace", f"{path}: {error.strerror}") from None
        self._stream = io.BufferedWriter(self._file, _BUFFER)
        try:
            self._writer = _writer(path, self._stream, {**header, "start_ns": time.monotonic_ns()})
            self._stream.flush()
        except OSError as error:
            with suppress(OSError):
                self._stream.close()
            raise RunnerError("--trace", f"{path}: {error.strerror}") from None
        self._flushed = time.monotonic_ns()

    def started(self) -> None:
        """The program has been executed: replace the old contents of the file."""
        try:
            self._file.begin()
        except OSError as error:
            self.trouble = self.trouble or f"{self.path}: {error.strerror}"

    def __call__(self, event: Event) -> None:
        """Write an event; a listener of the log."""
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
        """Write what is still buffered, and close."""
        try:
            if not self.trouble:
                self._writer.close()
            self._stream.close()
        except OSError as error:
            self.trouble = self.trouble or f"{self.path}: {error.strerror}"


class _File(io.FileIO):
    """The file, unbuffered. If it is not empty, writes wait for `begin`."""

    def __init__(self, path: str) -> None:
        super().__init__(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666), "wb")
        found = os.fstat(self.fileno())
        self._waiting: bytearray | None = None
        if stat.S_ISREG(found.st_mode) and found.st_size:
            self._waiting = bytearray()

    def write(self, data: ReadableBuffer) -> int:
        """As for any file; returns the number of bytes."""
        if self._waiting is None:
            return super().write(data)
        self._waiting += data
        return memoryview(data).nbytes

    def begin(self) -> None:
        """Truncate the file, and write the bytes that have waited."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        self.truncate(0)
        while waiting:
            del waiting[: super().write(waiting)]


def _writer(path: str, stream: Any, header: dict[str, Any]) -> Writer:
    suffix = Path(path).suffix
    if suffix in (".perfetto", ".pftrace"):
        return Perfetto(stream, header)
    return Lines(stream, header) if suffix == ".txt" else JsonLines(stream, header)
