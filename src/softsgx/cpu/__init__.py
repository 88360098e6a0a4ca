"""The processor: logical processors, EPC, EPCM, access control, tracking, and every SGX leaf.

From the bottom up: `state` is what there is; `access` translates, `memory` loads and stores;
`entry`, `aex`, `cet`, `tracking` and `operands` are what several listings share; `execute` has the
instructions, `lp` the logical processor that has them; a leaf is a file in `leaf/`, which
`dispatch` finds; `processor` puts it together.
"""

from typing import TYPE_CHECKING, Any

from softsgx.cpu.aex import Delivered
from softsgx.cpu.fault import Fault, Status
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.part import SGX1_PART, Part
from softsgx.cpu.processor import Processor
from softsgx.cpu.readings import Readings

if TYPE_CHECKING:
    from softsgx.cpu.bare import Bare

__all__ = [
    "SGX1_PART",
    "Bare",
    "Delivered",
    "Fault",
    "LogicalProcessor",
    "Part",
    "Processor",
    "Readings",
    "Status",
]


def __dir__() -> list[str]:
    """The public names, those not imported yet included."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import what builds whole enclaves when it is asked for: running programs need none of it."""
    if name == "Bare":
        from softsgx.cpu.bare import Bare

        return Bare
    raise AttributeError(f"module 'softsgx.cpu' has no attribute {name!r}")
