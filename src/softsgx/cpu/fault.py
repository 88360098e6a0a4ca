"""Architectural faults as exceptions, leaf statuses as values.

A `Fault` is what the instruction delivers: vector, error code, address, and the id of the check
that refused. A `Status` is what a leaf leaves in RAX, with the flags it sets and the id of its
check.
"""

from __future__ import annotations

from typing import Final

from softsgx.spec import faults
from softsgx.spec.msr import RFLAGS_CF, RFLAGS_ZF
from softsgx.spec.status import status_name

# The codes the model gives to a #PF raised by a leaf itself (not by the page tables). KVM injects
# 8003H for ENCLS; for ENCLU the access comes from CPL 3.
ENCLS_PFEC: Final = faults.PFEC_P | faults.PFEC_W | faults.PFEC_SGX
ENCLU_PFEC: Final = faults.PFEC_P | faults.PFEC_U | faults.PFEC_SGX
ENCLU_PFEC_W: Final = ENCLU_PFEC | faults.PFEC_W


class Fault(Exception):
    """An exception of the processor: `vector`, error `code`, linear `address` (#PF), `rule` id."""

    def __init__(self, vector: int, rule: str, code: int = 0, address: int = 0) -> None:
        super().__init__(vector, rule, code, address)
        self.vector = vector
        self.rule = rule
        self.code = code
        self.address = address

    def __str__(self) -> str:
        name = faults.VECTOR_NAMES.get(self.vector, f"vector {self.vector}")
        if self.vector == faults.PF:
            code = f"{self.code:#x} ({faults.pfec_text(self.code)})"
            return f"#PF at {self.address:#x}, error code {code}, {self.rule}"
        if self.vector == faults.GP:
            return f"#GP({self.code}), {self.rule}"
        return f"{name}, {self.rule}"


def GP(rule: str) -> Fault:
    """#GP(0)."""
    return Fault(faults.GP, rule)


def UD(rule: str) -> Fault:
    """#UD."""
    return Fault(faults.UD, rule)


def CP(rule: str, code: int) -> Fault:
    """#CP with the given error code."""
    return Fault(faults.CP, rule, code)


def NM(rule: str) -> Fault:
    """#NM."""
    return Fault(faults.NM, rule)


def PF(address: int, rule: str, code: int) -> Fault:
    """#PF at linear `address` with the given error code."""
    return Fault(faults.PF, rule, code, address)


class Status(int):
    """RAX of a leaf that ended normally, with its `rule` and the `flags` that it sets (ZF or CF).

    `code` is the plain integer that goes into RAX.
    """

    code: int
    rule: str
    flags: int

    def __new__(cls, code: int, rule: str = "", flags: int = 0) -> Status:
        self = super().__new__(cls, code)
        self.code = code
        self.rule = rule
        self.flags = flags
        return self

    def __str__(self) -> str:
        return status_name(int(self))

    def __repr__(self) -> str:
        return f"{status_name(int(self))}{f' ({self.rule})' if self.rule else ''}"


SUCCESS: Final = Status(0)

_refusals: dict[tuple[str, int], Status] = {}
_informations: dict[tuple[str, int], Status] = {}


def refuse(rule: str, code: int) -> Status:
    """The leaf ends with an error: RAX = code, ZF = 1."""
    status = _refusals.get((rule, code))
    if status is None:
        status = _refusals[rule, code] = Status(code, rule, RFLAGS_ZF)
    return status


def inform(rule: str, code: int) -> Status:
    """The leaf ends with an information code: RAX = code, CF = 1, ZF = 0."""
    status = _informations.get((rule, code))
    if status is None:
        status = _informations[rule, code] = Status(code, rule, RFLAGS_CF)
    return status
