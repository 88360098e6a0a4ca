"""Reading and writing for subcommands: whatever the system refuses is one line, a UsageError."""

import os

from softsgx.cli.ends import show as show
from softsgx.cli.errors import UsageError
from softsgx.image.errors import ImageError
from softsgx.image.file import HEAD_SIZE, kind


def read(path: str) -> bytes:
    """The bytes of a file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _refused(path, error) from None


def read_enclave(path: str) -> tuple[str, bytes]:
    """Which kind of enclave file it is (`image.file`), and its bytes.

    The kind is decided by the first bytes, so that a file which is none may even be endless.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_SIZE)
            return kind(head), head + file.read()
    except OSError as error:
        raise _refused(path, error) from None
    except ImageError as error:
        raise UsageError(f"{path}: {error}") from None


def write(path: str, data: bytes) -> None:
    """Write a file, or replace it."""
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise _refused(path, error) from None


def expect_write(path: str) -> None:
    """Refuse at once what `write` would refuse after the work, as far as that can be known."""
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise UsageError(f"{path}: is a directory")
    if not os.path.isdir(directory):
        raise UsageError(f"{path}: no such directory")
    if not os.access(path if os.path.exists(path) else directory, os.W_OK):
        raise UsageError(f"{path}: may not be written")


def make_directory(path: str) -> None:
    """A directory to write files to, if it is not there."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise _refused(path, error) from None


def refuse_same(inputs: list[str], outputs: list[str]) -> None:
    """Refuse to write over what is read, or twice to one file."""
    taken = [os.path.realpath(path) for path in inputs]
    for path in outputs:
        real = os.path.realpath(path)
        if real in taken:
            raise UsageError(f"{path}: would be written over: choose another name")
        taken.append(real)


def _refused(name: str, error: OSError) -> UsageError:
    return UsageError(f"{name}: {error.strerror}")
