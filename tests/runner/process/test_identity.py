"""A descriptor is a device by the file it refers to, not by anything other files may have, too."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from softsgx.runner.process.identity import identity
from softsgx.runner.process.world import LiveProcess


def test_same_inode_number_on_another_file_system_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Story: the number alone was compared; memory files count theirs from 1, as tmpfs does."""
    memfd = os.memfd_create("device")
    other = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    real = os.stat
    number = real(memfd).st_ino
    device = object()
    process: Any = SimpleNamespace(pid=os.getpid())
    process.world = SimpleNamespace(files={identity(f"/proc/self/fd/{memfd}"): device})

    def stat(path: Any, **options: Any) -> Any:
        found = real(path, **options)
        return SimpleNamespace(st_dev=found.st_dev, st_ino=number)

    try:
        with monkeypatch.context() as numbers:
            numbers.setattr(os, "stat", stat)
            assert LiveProcess.node(process, memfd) is device
            assert LiveProcess.node(process, other) is None
        os.close(other)
        assert LiveProcess.node(process, other) is None
    finally:
        os.close(memfd)
