"""Intel SGX2 in software: processor, Linux driver, and tools that drive both.

`softsgx.Machine` is a machine with SGX2 and Linux; it is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softsgx.system import Machine as Machine

__version__ = "0.1.0"

__all__ = ["Machine", "__version__"]


def __dir__() -> list[str]:
    """The public names, those not imported yet included."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import the face of the package when it is asked for."""
    if name == "Machine":
        from softsgx.system import Machine

        return Machine
    raise AttributeError(f"module 'softsgx' has no attribute {name!r}")
