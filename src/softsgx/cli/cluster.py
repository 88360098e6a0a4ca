"""`--cluster [ADDRESS]`: the workers of a Dask scheduler (extra `cluster`)."""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import CancelledError, Future
from importlib import import_module
from typing import Any, Final

from softsgx.cli.errors import UsageError
from softsgx.cli.stopping import leave_interrupts_to_parent
from softsgx.cli.workers import SearchSpec, work_on, worker_identity
from softsgx.explore.unit import Unit, UnitResult

ANSWER_S: Final = 5.0
"""How long a scheduler may take to answer, in seconds."""


class Cluster:
    """Workers of a Dask scheduler; without an address, of a local scheduler that ends with us.

    They must have the same softsgx and Python as this process, and one PYTHONHASHSEED.
    """

    def __init__(self, address: str, workers: int | None) -> None:
        try:
            distributed: Any = import_module("distributed")
        except ImportError:
            raise UsageError(
                "--cluster: needs Dask: in the checkout: pip install '.[cluster]'"
            ) from None
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self.lost = (CancelledError, distributed.scheduler.KilledWorker)
        self._name = f"--cluster {address}".strip()
        self._local: Any = None
        if address:
            if workers:
                raise UsageError(f"{self._name}: --jobs is for a cluster on this machine")
            self._ask(address)
            self._client: Any = distributed.Client(address, timeout=ANSWER_S)
        else:
            self._local = distributed.LocalCluster(
                n_workers=workers or os.cpu_count() or 1,
                threads_per_worker=1,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
                preload=[__name__],
            )
            self._client = distributed.Client(self._local)
        self._executor = self._client.get_executor(pure=False)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _ask(self, address: str) -> None:
        """UsageError unless a scheduler with workers answers at the address."""
        rpc: Any = import_module("distributed.core").rpc

        async def identity() -> Any:
            async with rpc(address, timeout=ANSWER_S) as there:
                return await there.identity()

        try:
            found = asyncio.run(asyncio.wait_for(identity(), ANSWER_S))
        except (OSError, ValueError, TimeoutError) as error:
            why = str(error) or f"nothing in {ANSWER_S:.0f} s"
            raise UsageError(f"{self._name}: no Dask scheduler answers: {why}") from None
        except Exception:  # another protocol may end in anything
            found = None
        if not isinstance(found, dict) or found.get("type") != "Scheduler":
            raise UsageError(f"{self._name}: not a Dask scheduler")
        if not found.get("workers"):
            raise UsageError(f"{self._name}: the scheduler has no workers")

    def _check(self) -> None:
        """UsageError unless all workers have our versions, and hash strings alike."""
        found = self._client.run(worker_identity, on_error="return")
        ours = worker_identity()
        first = next(iter(found.values()))
        for worker, theirs in found.items():
            if isinstance(theirs, BaseException):
                raise UsageError(f"{self._name}: worker {worker}: {theirs}")
            if theirs[:2] != ours[:2]:
                raise UsageError(
                    f"{self._name}: worker {worker} has softsgx {theirs[0]} on Python {theirs[1]}, "
                    f"not {ours[0]} on {ours[1]}"
                )
            if theirs != first:
                raise UsageError(
                    f"{self._name}: workers have different hashes: "
                    "start all of them with PYTHONHASHSEED=0"
                )
        self._identity = first

    @property
    def size(self) -> int:
        """The present number of workers; a dead one does not count until Dask has replaced it."""
        return max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def submit(
        self, spec: SearchSpec, units: list[Unit], seconds: float, left: float | None = None
    ) -> Future[list[UnitResult]]:
        """Have a worker do `work_on`; if it dies, Dask gives the units to another."""
        future: Future[list[UnitResult]] = self._executor.submit(
            work_on, spec._replace(identity=self._identity), units, seconds, left
        )
        return future

    def renew(self) -> None:
        """Start again with the same scheduler, if it still runs."""
        if self._client.status != "running":
            raise UsageError(f"{self._name}: the scheduler has gone")
        self._executor.shutdown(wait=False)
        self._executor = self._client.get_executor(pure=False)

    def close(self) -> None:
        """End our own workers; with others, cancel the units that they have not begun."""
        self._executor.shutdown(wait=False)
        self._client.close()
        if self._local is not None:
            self._local.close()


def dask_setup(worker: Any) -> None:
    """Called by Dask in each worker of our own (`preload`)."""
    leave_interrupts_to_parent()
