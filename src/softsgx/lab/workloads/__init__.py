"""The workloads, by name. `recorded:FILE` is one, too: the calls of a user's program."""

from functools import cache
from typing import Final

from softsgx.lab.workloads.base import Workload
from softsgx.lab.workloads.cow import Cow
from softsgx.lab.workloads.gc import Gc
from softsgx.lab.workloads.jit import Jit
from softsgx.lab.workloads.recorded import RECORDED, Recorded
from softsgx.lab.workloads.relro import Relro
from softsgx.lab.workloads.server import Server
from softsgx.lab.workloads.stacks import Stacks

WORKLOADS: Final[dict[str, type[Workload]]] = {
    workload.name: workload for workload in (Jit, Relro, Gc, Stacks, Cow, Server)
}


@cache
def workload(name: str) -> Workload:
    """A workload by its name; a trace is read once in a process. Raises TraceError."""
    if name.startswith(RECORDED):
        return Recorded(name.removeprefix(RECORDED))
    return WORKLOADS[name]()
