"""Options that name a file to be written: `-` is standard output, and then text goes elsewhere.

Each such option has `output` as its type, so that `main` knows them. Where one of them is standard
output, as `-` or by another name, what a command prints goes to standard error instead.
"""

from __future__ import annotations

import argparse
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Final

from softsgx.cli.ends import stdout_failed
from softsgx.cli.errors import UsageError

STDOUT: Final = "-"


class Output(str):
    """The name of a file that is written."""

    __slots__ = ()


def output(text: str) -> Output:
    """The type of an option: a file to write, or `-` for standard output."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return Output(text)


def file_output(text: str) -> Output:
    """The same where standard output is not to be had, because it is the program's."""
    if text == STDOUT:
        raise argparse.ArgumentTypeError(
            "-: standard output is the program's: name a file, or /dev/fd/3"
        )
    return output(text)


def is_stdout(path: str) -> bool:
    """Whether a name leads to what standard output is: the same file, pipe or terminal."""
    if path == STDOUT:
        return True
    try:
        ours, found = os.fstat(1), os.stat(path)
    except (OSError, ValueError):
        return False
    # Nothing comes together at /dev/null.
    void = stat.S_ISCHR(found.st_mode) and not os.isatty(1)
    return os.path.samestat(ours, found) and not void


def write_stdout(data: bytes) -> None:
    """Bytes to standard output, behind what was printed. ReaderGone or UsageError."""
    try:
        with open(1, "wb", closefd=False) as stdout:
            stdout.write(data)
    except OSError as error:
        raise stdout_failed(error) from None


@contextmanager
def text_off_stdout(args: argparse.Namespace) -> Iterator[None]:
    """While a command runs: its text goes to standard error if standard output takes a file."""
    found = vars(args)
    names = [key for key, value in found.items() if isinstance(value, Output) and is_stdout(value)]
    if not names:
        yield
        return
    if found.get("json"):
        raise UsageError("--json: standard output is taken by a file that is written there")
    if sys.stdout is None:
        raise UsageError("standard output: is closed")
    sys.stdout.flush()
    with redirect_stdout(sys.stderr or io.StringIO()):
        yield
