"""The files of `--sgxs-out`: one SGXS stream for each enclave that the program created.

The first is FILE, the others FILE.2, FILE.3 and so on, in the order of ECREATE. A file is created
with its enclave and complete after each EINIT, so it exists however the program ends. If FILE is a
device, all streams go there, one after the other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Hashable, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final

from softsgx.report.same_file import file_of
from softsgx.runner.errors import RunnerError
from softsgx.system.built import ACCEPTED, Built, BuiltEnclaves

if TYPE_CHECKING:
    from softsgx.cpu import Processor

FILES_MAX: Final = 64
LINES_MAX: Final = 16
_BUFFER: Final = 1 << 18


class SgxsFiles:
    """Writes the enclaves that are built on a processor. RunnerError if no file can be written.

    `inputs` are files that no stream may overwrite, under any name. If writing fails later, the
    program goes on, and the line about the file at the end says why.
    """

    def __init__(self, path: str, inputs: Sequence[str], processor: Processor) -> None:
        self.path = path
        self._inputs = {file_of(name) for name in inputs} - {None}
        directory = os.path.dirname(path) or "."
        if os.path.isdir(path) or not os.access(directory, os.W_OK | os.X_OK):
            why = "is a directory" if os.path.isdir(path) else f"{directory}: may not be written"
            raise RunnerError("--sgxs-out", f"{path}: {why}")
        self._file = file_of(path)
        if self._file in self._inputs:
            raise RunnerError("--sgxs-out", f"{path}: would be written over: choose another name")
        self._built = BuiltEnclaves(processor, self._create)

    def name(self, number: int) -> str:
        """The file of an enclave, counted from 1."""
        return self.path if number == 1 or self._file is None else f"{self.path}.{number}"

    def _create(self, number: int) -> _File | None:
        return _File(self.name(number), self._inputs) if number <= FILES_MAX else None

    def close(self) -> list[str]:
        """End the streams after the run, and return a line about each file."""
        self._built.close()
        found = self._built.enclaves
        lines = [self._line(built) for built in found[:LINES_MAX]]
        if not found:
            lines.append(f"no enclave was created, so {self.path} is not written")
        if len(found) > LINES_MAX:
            lines.append(f"and {len(found) - LINES_MAX} more, up to {self.name(found[-1].number)}")
        if self._built.left_out:
            lines.append(f"{self._built.left_out} later enclaves are not written")
        return lines

    def _line(self, built: Built) -> str:
        stream = built.stream
        assert isinstance(stream, _File)
        einit = {"": "not executed", ACCEPTED: ACCEPTED}.get(built.einit, f"refused: {built.einit}")
        text = f"enclave {built.eid}, {built.pages} pages, MRENCLAVE {built.mrenclave.hex()}"
        unusual = f"; cannot be measured again: {built.unusual}" if built.unusual else ""
        trouble = f"; not complete: {stream.trouble}" if stream.trouble else ""
        return f"{stream.path}: {text}, EINIT {einit}{unusual}{trouble}"


class _File:
    """A stream in a file. `trouble` says why it is not complete."""

    def __init__(self, path: str, inputs: Collection[Hashable]) -> None:
        self.path = path
        self.trouble = ""
        self._file: IO[bytes] | None = None
        try:
            # Truncate it only once it is known not to be an input.
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._file = open(fd, "wb", buffering=_BUFFER)  # noqa: SIM115
            if file_of(fd) in inputs:
                self.trouble = "an argument of the program, so it was left as it is"
            elif stat.S_ISREG(os.fstat(fd).st_mode):
                os.ftruncate(fd, 0)
        except OSError as error:
            self.trouble = error.strerror or str(error)

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        if self._file is not None and not self.trouble:
            try:
                self._file.write(data)
            except OSError as error:
                self.trouble = error.strerror or str(error)

    def flush(self) -> None:
        """Write everything so far to the file."""
        if self._file is not None and not self.trouble:
            try:
                self._file.flush()
            except OSError as error:
                self.trouble = error.strerror or str(error)

    def close(self) -> None:
        """End the stream."""
        self.flush()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
