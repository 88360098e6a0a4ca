"""An exception in a hook of the emulator is raised to the caller; ctypes would only print it."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest

from softsgx.cpu import LogicalProcessor
from tests.runner.emulator.engine_rig import rig

LOAD = "mov rax, [rdi]; mov rax, [rdi + 8]; enclu"


@pytest.mark.parametrize("kind", [AssertionError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_exception_in_a_hook_is_raised(
    monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """A broken model went on as if the hook had said no, after a message on stderr."""
    walk = LogicalProcessor.translate

    def broken(self: LogicalProcessor, address: int, access: int) -> int:
        if address >> 12 == r.data >> 12:
            raise kind("the model is broken")
        return walk(self, address, access)

    before = sys.unraisablehook
    with rig(LOAD) as r:
        r.set(rdi=r.data)
        with monkeypatch.context() as patched:
            patched.setattr(LogicalProcessor, "translate", broken)
            with pytest.raises(kind, match="the model is broken"):
                r.run()
        assert sys.unraisablehook == before
        r.expect_exit()  # nothing of it is left


def test_a_signal_in_a_hook_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler runs at the first instruction of the hook, before any `try`."""
    walk = LogicalProcessor.translate

    def interrupted(self: LogicalProcessor, address: int, access: int) -> int:
        if address >> 12 == r.data >> 12:
            os.kill(os.getpid(), signal.SIGUSR1)
        return walk(self, address, access)

    def handler(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        with rig(LOAD) as r:
            r.set(rdi=r.data)
            monkeypatch.setattr(LogicalProcessor, "translate", interrupted)
            with pytest.raises(KeyboardInterrupt):
                r.run()
    finally:
        signal.signal(signal.SIGUSR1, old)
