"""`--jobs N`: worker processes on this machine."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from softsgx.cli.errors import EXIT_INTERRUPTED
from softsgx.cli.stopping import leave_interrupts_to_parent
from softsgx.cli.workers import SearchSpec, work_on
from softsgx.explore.unit import Unit, UnitResult
from softsgx.runner.host.abi import PR_SET_PDEATHSIG


class Processes:
    """Worker processes that this process starts and ends."""

    lost = (BrokenProcessPool,)

    def __init__(self, size: int) -> None:
        self.size = size
        self._pool = self._fresh()

    def _fresh(self) -> ProcessPoolExecutor:
        # Spawned: after a fork they would share the anonymous memory of machines and emulators.
        # Footprints may hold hashes of strings, so all workers have one seed.
        if os.environ.get("PYTHONHASHSEED", "random") == "random":
            os.environ["PYTHONHASHSEED"] = "0"
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.size, context, initializer=_begin)

    def submit(
        self, spec: SearchSpec, units: list[Unit], seconds: float, left: float | None = None
    ) -> Future[list[UnitResult]]:
        """As Workers.submit. The units may wait for a worker: the deadline is a time of day."""
        end = None if left is None else time.time() + left
        # This may start a worker, which can be interrupted until it has run _begin().
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(work_on, spec, units, seconds, None, end)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def renew(self) -> None:
        """A new pool: a worker that died has broken the old one."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._fresh()

    def close(self) -> None:
        """End the workers."""
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """In a new worker: leave Ctrl-C to the parent, and die with it."""
    leave_interrupts_to_parent()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before prctl(), which then sends no signal.
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(EXIT_INTERRUPTED)
