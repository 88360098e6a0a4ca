"""What a thread in the stub's way of the vDSO's ENCLU has done: as stub.py, for systrap.S.

The label of each instruction says how far the ENCLU has come, and which registers were pushed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from softsgx.runner.inserted.layout import STUB
from softsgx.runner.inserted.stub import Phase, Range
from softsgx.runner.inserted.systrap import address
from softsgx.spec.registers import RAX, RFLAGS

# At STUB, where the vDSO image and native.s jump to.
JUMP_TO_SYSTRAP: Final = b"\xe9" + (address("arrive") - (STUB + 5)).to_bytes(
    4, "little", signed=True
)

_STARTS: Final = (
    ("arrive", Phase.ARRIVE, False, ()),
    ("arrive_none", Phase.ARRIVE, True, ()),
    ("arrive_rax", Phase.ARRIVE, True, (RAX,)),
    ("arrive_rax_rflags", Phase.ARRIVE, True, (RAX, RFLAGS)),
    ("foreign_rax", Phase.ARRIVE, True, (RAX,)),
    ("foreign_none", Phase.ARRIVE, True, ()),
    ("enclu_trap", Phase.ARRIVE, False, ()),
    ("mine", Phase.ARRIVE, True, (RAX, RFLAGS)),
    ("published", Phase.WAIT, True, ()),
    ("reply", Phase.DEPART, True, ()),
    ("depart_end", Phase.DEPART, True, ()),
)
PHASES: Final = tuple(
    Range(address(label), address(following[0]), phase, moved, pushed)
    for (label, phase, moved, pushed), following in pairwise(_STARTS)
)
