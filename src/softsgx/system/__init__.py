"""A whole machine in Python: processors, kernel, processes, enclaves whose code is Python."""

from softsgx.system.enclave import EnclaveThread
from softsgx.system.host import HostThread, SignalRaised
from softsgx.system.loader import BuildError, Enclave, EnclaveFault, load
from softsgx.system.machine import Machine

__all__ = [
    "BuildError",
    "Enclave",
    "EnclaveFault",
    "EnclaveThread",
    "HostThread",
    "Machine",
    "SignalRaised",
    "load",
]
