"""A whole machine in Python: processors, kernel, processes, enclaves whose code is Python.

Names are imported when they are used: the supervisor of real programs needs only the machine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from softsgx.system.enclave import EnclaveThread
    from softsgx.system.host import HostThread, SignalRaised
    from softsgx.system.loaded_enclave import Enclave, EnclaveFault
    from softsgx.system.loader import BuildError, load
    from softsgx.system.machine import Machine

_HOME: Final = {
    "BuildError": "softsgx.system.loader",
    "Enclave": "softsgx.system.loaded_enclave",
    "EnclaveFault": "softsgx.system.loaded_enclave",
    "EnclaveThread": "softsgx.system.enclave",
    "HostThread": "softsgx.system.host",
    "Machine": "softsgx.system.machine",
    "SignalRaised": "softsgx.system.host",
    "load": "softsgx.system.loader",
}

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


def __dir__() -> list[str]:
    """The public names, those not imported yet included."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import the module that defines the name."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'softsgx.system' has no attribute {name!r}")
