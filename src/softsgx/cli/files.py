"""Reading and writing files for subcommands. An error of the system becomes a UsageError."""

import os
import stat
import tempfile
from collections.abc import Sequence

from softsgx.cli.errors import UsageError
from softsgx.cli.outputs import STDOUT, is_stdout, write_stdout
from softsgx.image.errors import ImageError
from softsgx.image.file import HEAD_SIZE, kind
from softsgx.report.same_file import overwritten


def read(path: str) -> bytes:
    """The bytes of a file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _refused(path, error) from None


def read_enclave(path: str) -> tuple[str, bytes]:
    """The kind of an enclave file (`image.file`), and its bytes.

    The first bytes determine the kind, so any other file, even an endless one, is refused at once.
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
    """Write or replace a file atomically: if this fails, a former file is intact."""
    try:
        if is_stdout(path):
            write_stdout(data)
        else:
            _write_whole(path, data)
    except OSError as error:
        raise _refused(path, error) from None


def _write_whole(path: str, data: bytes) -> None:
    target = os.path.realpath(path)
    try:
        before = os.stat(path)
    except FileNotFoundError:
        before = None
    mode = 0o666 & ~_umask() if before is None else stat.S_IMODE(before.st_mode)
    if before is not None and not _may_be_replaced(target, before):
        with open(path, "wb") as file:
            file.write(data)
        return
    handle, beside = tempfile.mkstemp(prefix=".softsgx-", dir=os.path.dirname(target))
    try:
        with open(handle, "wb") as file:
            file.write(data)
            os.fchmod(handle, mode)
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise


def _may_be_replaced(target: str, found: os.stat_result) -> bool:
    """Whether a new file may replace `target`: a regular file that we own, with one name."""
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_nlink == 1
        and found.st_uid == os.geteuid()
        and os.path.exists(target)
        and os.path.samestat(found, os.stat(target))
        and os.access(os.path.dirname(target), os.W_OK | os.X_OK)
    )


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def expect_write(path: str) -> None:
    """Refuse before the work what `write` would refuse after it, as far as this is known then."""
    if is_stdout(path):
        return
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise UsageError(f"{path}: Is a directory")
    if not path or not os.path.isdir(directory):
        raise UsageError(f"{path}: No such file or directory")
    if not os.access(path if os.path.exists(path) else directory, os.W_OK):
        raise UsageError(f"{path}: Permission denied")


def make_directory(path: str) -> None:
    """Make a directory to write files to, unless it exists."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise _refused(path, error) from None


def refuse_same(inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuse to overwrite an input, another output, or the file that is standard error."""
    if outputs.count(STDOUT) > 1:
        raise UsageError(f"{STDOUT}: standard output can take one of them")
    found = overwritten([*inputs, 2], [1 if path == STDOUT else path for path in outputs])
    if found is not None:
        name = "standard output" if found == 1 else found
        raise UsageError(f"{name}: would be written over: choose another name")


def _refused(name: str, error: OSError) -> UsageError:
    return UsageError(f"{name}: {error.strerror}")
