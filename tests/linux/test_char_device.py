"""open(2) of a node by flags, as fs/open.c and fs/namei.c of Linux 6.12 have it.

Calls on its descriptors are in tests/programs/device_calls.c: that table was also compared with
character devices of a real kernel.
"""

from __future__ import annotations

import os

import pytest

from softsgx.linux.char_device import open_flags
from softsgx.linux.errno import EEXIST, EINVAL, ENOTDIR
from softsgx.linux.vfs import File, ProvisionNode

RDWR = os.O_RDWR
LARGEFILE = 0o100000
UNKNOWN = 1 << 30


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (RDWR, RDWR | LARGEFILE),
        (os.O_RDONLY | os.O_CLOEXEC, LARGEFILE),
        (RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY, RDWR | LARGEFILE),
        (RDWR | os.O_NONBLOCK | os.O_APPEND, RDWR | LARGEFILE | os.O_NONBLOCK | os.O_APPEND),
        (RDWR | 0o4000000, RDWR | LARGEFILE | os.O_SYNC),
        (RDWR | UNKNOWN, RDWR | LARGEFILE),
        (os.O_PATH | RDWR | os.O_CREAT | os.O_DIRECT, os.O_PATH),
        (RDWR | os.O_CREAT | os.O_EXCL, -EEXIST),
        (os.O_DIRECTORY, -ENOTDIR),
        (os.O_PATH | os.O_DIRECTORY, -ENOTDIR),
        (os.O_DIRECTORY | os.O_CREAT, -EINVAL),
        (RDWR | os.O_TMPFILE, -ENOTDIR),
        (os.O_RDONLY | os.O_TMPFILE, -EINVAL),
        (RDWR | os.O_DIRECT, -EINVAL),
    ],
)
def test_flags(flags: int, kept: int) -> None:
    assert open_flags(flags) == kept


@pytest.mark.parametrize(
    ("flags", "mode", "kept"),
    [
        (RDWR, 0, RDWR),
        (RDWR | UNKNOWN, 0, -EINVAL),
        (os.O_PATH | RDWR, 0, -EINVAL),
        (RDWR, 0o600, -EINVAL),
        (RDWR | os.O_CREAT, 0o600, RDWR),
        (RDWR | os.O_CREAT, 0o200600, -EINVAL),
    ],
)
def test_openat2_refuses_what_open_ignores(flags: int, mode: int, kept: int) -> None:
    assert open_flags(flags, mode, openat2=True) == kept


@pytest.mark.parametrize(
    ("mode", "readable", "writable"),
    [(os.O_RDONLY, True, False), (os.O_WRONLY, False, True), (RDWR, True, True), (3, False, False)],
)
def test_access_modes(mode: int, readable: bool, writable: bool) -> None:
    file = File("/dev/sgx_provision", ProvisionNode(), mode | LARGEFILE)
    assert (file.readable, file.writable) == (readable, writable)
