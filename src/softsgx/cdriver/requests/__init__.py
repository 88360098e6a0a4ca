"""What serves the requests of the driver's tasks, by subject, with the objects of `sim`, `linux`
and `cpu`. A handler gets the call and the arguments; it returns the answer, or a generator of it.
"""

from __future__ import annotations

from typing import Final

from softsgx.cdriver.requests import ends, files, locks, machine, memory, mm, tasks
from softsgx.cdriver.requests.handlers import Handlers

HANDLERS: Final[Handlers] = {
    **ends.HANDLERS,
    **locks.HANDLERS,
    **memory.HANDLERS,
    **mm.HANDLERS,
    **files.HANDLERS,
    **tasks.HANDLERS,
    **machine.HANDLERS,
}
"""All of them."""
